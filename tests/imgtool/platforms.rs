//! Some of an index's platforms: pulled, loaded, listed.

use std::fs;

use super::copy::{copy, index_layout};
use super::{Compression, Image, Scene, load, scene};
use crate::harness::registry::Registry;

/// The registry has an index of three platforms, one of them attested, as `lib/all:1`.
fn in_a_registry(body: impl FnOnce(&Scene, &Registry, &str, &str)) {
    scene(|scene| {
        let registry = Registry::start(scene);
        let digest = index_layout(&scene.path("layout"));
        let layout = format!("oci:{}:all", scene.path("layout").display());
        let name = format!("{}/lib/all:1", registry.host);
        copy(scene, &["--all", &layout, &format!("docker://{name}")]);
        body(scene, &registry, &name, &digest);
    });
}

/// The platforms that are here, as the tree of images shows them.
fn here(scene: &Scene, name: &str) -> Vec<String> {
    let tree = scene.imgtool().args(["images", "--tree", name]).run().success();
    let rows = tree.stdout.lines().filter(|line| line.contains("─ ") && !line.contains(" 0B "));
    rows.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn several_platforms_are_pulled_and_the_index_stays_what_it_is() {
    in_a_registry(|scene, registry, name, digest| {
        let pull = |flags: &[&str]| scene.imgtool().arg("pull").args(flags).arg(name).run();
        let two = pull(&["--platform", "linux/amd64,linux/s390x"]).success();
        two.stdout_has(&format!("Digest: {digest}")).stdout_has("Downloaded newer image");
        assert_eq!(here(scene, name), ["linux/amd64", "linux/s390x"]);
        pull(&["--platform", "linux/s390x", "--platform", "linux/amd64"])
            .success()
            .stdout_has("Image is up to date");
        pull(&["--platform", "linux/amd64,linux/mips"]).refused(&["linux/mips", "linux/s390x"]);
        pull(&["--platform", "linux/amd64,"]).refused(&["invalid platform"]);
        pull(&["--all-platforms", "--platform", "linux/amd64"]).code(125);
        assert_eq!(here(scene, name), ["linux/amd64", "linux/s390x"]);
        // Where the registry has the rest, the index goes back as it was.
        let back = format!("{}/lib/all:2", registry.host);
        scene.imgtool().args(["push", name, &back]).run().success();
        assert_eq!(registry.digest("lib/all:2"), digest);
        pull(&["--all-platforms"]).success();
        assert_eq!(here(scene, name), ["linux/amd64", "linux/arm64", "linux/s390x"]);
        scene.imgtool().arg("verify").run().success();
    });
}

#[test]
fn an_archive_of_several_platforms_gives_those_that_are_wanted() {
    scene(|scene| {
        let digest = index_layout(&scene.path("layout"));
        let name = "e2e.test/all:1";
        let load_all = scene.imgtool().args(["load", "--tag", name, "-i"]);
        load_all.arg(scene.path("layout")).run().success();
        let saved = scene.path("saved.tar");
        scene.imgtool().args(["save", name, "-o"]).arg(&saved).run().success();
        scene.imgtool().args(["rmi", name]).run().success();
        let load = |platforms: &str, input: &std::path::Path| {
            scene.imgtool().args(["load", "--platform", platforms, "-i"]).arg(input).run()
        };
        load("linux/arm64,linux/s390x", &saved)
            .success()
            .stdout_has("Loaded image: e2e.test/all:1");
        assert_eq!(here(scene, name), ["linux/arm64", "linux/s390x"]);
        let listed = scene.imgtool().args(["images", "--digests", name]).run().success();
        listed.stdout_has(&digest);
        scene.imgtool().args(["rmi", name]).run().success();
        load("linux/mips", &saved).refused(&["linux/mips", "linux/arm64"]);
        // What is no index is for one platform, and wrong for any other.
        let one = Image::probe(&[]).docker_archive(&scene.path("one.tar"), "e2e.test/one:1");
        load("linux/s390x", &one).refused(&["e2e.test/one:1", "not for linux/s390x"]);
        let blobs = fs::read_dir(scene.store().join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, 0);
    });
}

#[test]
fn the_tree_of_images_shows_what_each_takes_and_what_is_in_use() {
    scene(|scene| {
        load(scene, &Image::probe(&["report"]), "e2e.test/used:1");
        let tree = || scene.imgtool().args(["images", "--tree"]).run().success().stdout;
        let before = tree();
        assert!(before.starts_with("IMAGE"), "{before}");
        assert!(before.contains("e2e.test/used:1") && !before.contains(" U\n"), "{before}");
        super::bundle(scene, &[], "e2e.test/used:1", "bundle", &[]);
        let after = tree();
        assert!(after.lines().nth(1).unwrap().ends_with(" U"), "{after}");
        super::remove(scene, "bundle");
        let layout = Image::probe(&[]).layout(&scene.path("plain"), "x", Compression::None);
        scene.imgtool().args(["load", "-i"]).arg(layout).run().success();
        scene.imgtool().args(["images", "--tree", "--quiet"]).run().code(125);
    });
}

#[test]
fn a_bundle_pulls_its_image_when_it_is_told_to() {
    in_a_registry(|scene, _registry, name, _digest| {
        let dir = scene.path("b");
        let bundle = |flags: &[&str]| {
            scene.imgtool().arg("bundle").args(flags).arg(name).arg(&dir).args(["--", "/x"]).run()
        };
        let remove = || scene.imgtool().arg("rm").arg(&dir).run().success();
        let architecture = || {
            let config = fs::read(dir.join("config.json")).unwrap();
            let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
            let annotations = &config["annotations"];
            annotations["org.opencontainers.image.architecture"].as_str().unwrap().to_owned()
        };
        for flags in [&[][..], &["--pull", "never"]] {
            bundle(flags).refused(&["no such image", "imgtool pull"]);
        }
        // Its directory is all that is printed.
        let printed = bundle(&["--pull", "missing"]).success().stdout;
        assert_eq!(printed, format!("{}\n", dir.display()));
        assert_eq!(
            (architecture(), here(scene, name)),
            ("amd64".into(), vec!["linux/amd64".into()])
        );
        remove();
        bundle(&["--platform", "linux/arm64"]).refused(&["linux/arm64"]);
        bundle(&["--pull", "missing", "--platform", "linux/arm64"]).success();
        assert_eq!(architecture(), "arm64");
        remove();
        bundle(&["--pull", "missing", "--platform", "linux/mips"]).refused(&["linux/mips"]);
        bundle(&["--pull", "sometimes"]).code(125);
        assert!(!dir.exists());
    });
}
