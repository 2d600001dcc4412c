//! images, tag, inspect, rmi: names and what they stand for.

use super::{Image, load, scene};

#[test]
fn a_loaded_image_is_listed_with_its_id() {
    scene(|scene| {
        let image = Image::probe(&["report"]);
        load(scene, &image, "e2e.test/names:one");
        let short = &image.id()[7..19];
        let listed = scene.imgtool().arg("images").run().success();
        assert!(listed.stdout.starts_with("REPOSITORY"), "{}", listed.stdout);
        let listed = listed.stdout_has("e2e.test/names").stdout_has("one");
        listed.stdout_has(short);
        let quiet = scene.imgtool().args(["images", "--quiet"]).run().success();
        assert_eq!(quiet.word(), short);
        let json = scene.imgtool().args(["images", "--format", "json"]).run().success();
        assert!(json.stdout.contains(short), "{}", json.stdout);
    });
}

#[test]
fn a_tag_is_another_name_for_the_same_image() {
    scene(|scene| {
        let image = Image::probe(&["report"]);
        load(scene, &image, "e2e.test/names:one");
        let names = ["e2e.test/names:one", "e2e.test/other:two"];
        scene.imgtool().arg("tag").args(names).run().success();
        for name in [names[0], names[1], &image.id(), &image.id()[7..19]] {
            let seen = scene.imgtool().args(["inspect", name]).run().success().json();
            assert_eq!(seen[0]["Id"], image.id().as_str(), "{name}");
        }
        let first = scene.imgtool().args(["rmi", names[0]]).run().success();
        let (tag, digest) = (names[0], "e2e.test/names@sha256:");
        assert!(first.stdout.starts_with(&format!("Untagged: {tag}\nUntagged: {digest}")));
        assert_eq!(first.stdout.lines().count(), 2, "{}", first.stdout);
        // A repository that has another tag has the digest, too.
        scene.imgtool().args(["tag", names[1], "e2e.test/other:three"]).run().success();
        let one = scene.imgtool().args(["rmi", "e2e.test/other:three"]).run().success();
        assert_eq!(one.stdout, "Untagged: e2e.test/other:three\n");
        let last = scene.imgtool().args(["rmi", names[1]]).run().success();
        let last = last.stdout_has("Untagged: e2e.test/other@sha256:");
        last.stdout_has(&format!("Untagged: {}\n", names[1]))
            .stdout_has(&format!("Deleted: {}", image.id()));
        let gone = scene.imgtool().args(["inspect", names[1]]).run();
        gone.refused(&[names[1], "imgtool pull"]);
        let listed = scene.imgtool().args(["images", "--quiet"]).run().success();
        assert_eq!(listed.stdout, "");
    });
}

#[test]
fn inspect_says_what_dockers_inspect_says() {
    scene(|scene| {
        let image = Image::probe(&["report"])
            .with("Env", vec!["PATH=/bin", "KEY=value"])
            .with("WorkingDir", "/tmp")
            .with("Labels", serde_json::json!({ "org.example": "label" }));
        load(scene, &image, "e2e.test/inspect:latest");
        let seen = scene.imgtool().args(["inspect", "e2e.test/inspect"]).run().success().json();
        assert_eq!(seen[0]["RepoTags"][0], "e2e.test/inspect:latest");
        assert_eq!(seen[0]["Config"]["Env"][1], "KEY=value");
        assert_eq!(seen[0]["Config"]["Labels"]["org.example"], "label");
        assert_eq!(seen[0]["RootFS"]["Layers"].as_array().unwrap().len(), 1);
        assert_eq!(seen[0]["Os"], "linux");
    });
}

#[test]
fn info_counts_images_and_containers_by_state() {
    scene(|scene| {
        load(scene, &Image::busybox().with("Cmd", vec!["sleep", "1000"]), "e2e.test/info:1");
        let counts = || -> Vec<u32> {
            let told = scene.imgtool().arg("info").run().success().stdout;
            let count = |name: &str| {
                let line = told.lines().find_map(|line| line.trim_start().strip_prefix(name));
                line.unwrap_or_else(|| panic!("{name} in {told}")).trim().parse().unwrap()
            };
            ["Containers:", "Running:", "Paused:", "Stopped:", "Images:"].map(count).into()
        };
        let before = counts();
        let change = |by: [i64; 5]| -> Vec<u32> {
            let sum = |(old, by): (&u32, i64)| u32::try_from(i64::from(*old) + by).unwrap();
            before.iter().zip(by).map(sum).collect()
        };
        let dir = super::bundle(scene, &["--network", "none"], "e2e.test/info:1", "b", &[]);
        let id = scene.id("info");
        let runtime = |words: &[&str]| scene.runtime().args(words).run().success();
        scene.runtime().args(["create", "--bundle"]).arg(&dir).arg(&id).run().success();
        assert_eq!(counts(), change([1, 0, 0, 1, 0]));
        runtime(&["start", &id]);
        assert_eq!(counts(), change([1, 1, 0, 0, 0]));
        runtime(&["pause", &id]);
        assert_eq!(counts(), change([1, 0, 1, 0, 0]));
        runtime(&["resume", &id]);
        runtime(&["delete", "--force", &id]);
        assert_eq!(counts(), before);
        super::remove(scene, "b");
    });
}
