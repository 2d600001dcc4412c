//! Images made of images: settings, layers, bases, indexes, file systems.

use std::fs;

use serde_json::Value;

use super::{Cmd, Image, Scene, load, scene};
use crate::harness::hostile::{Content, Hostile};
use crate::harness::registry::{Guard, PASSWORD, Registry, USER};
use crate::harness::tarball::{Entry, Tarball};

const EPOCH: &str = "1700000000";

fn imgtool(scene: &Scene, words: &[&str]) -> String {
    let run = scene.imgtool().args(words).env("SOURCE_DATE_EPOCH", EPOCH).run();
    run.success().word().to_owned()
}

fn inspect(scene: &Scene, name: &str) -> Value {
    scene.imgtool().args(["inspect", name]).run().success().json()[0].clone()
}

/// The names in an image's file system.
fn names(scene: &Scene, image: &str) -> Vec<String> {
    let file = scene.path("export.tar");
    scene.imgtool().args(["export", "-o"]).arg(&file).arg(image).run().success();
    let listed = Cmd::line("tar -tf").arg(&file).run().success();
    let mut names: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn two_layers() -> Image {
    Image::probe(&[])
        .layer(Tarball::of([Entry::file("etc/second", "layer"), Entry::file("etc/.wh.group", "")]))
}

#[test]
fn settings_change_and_layers_stay() {
    scene(|scene| {
        load(scene, &two_layers(), "e2e.test/edit:1");
        let before = inspect(scene, "e2e.test/edit:1");
        let words = [
            "mutate",
            "--env",
            "A=1",
            "--label",
            "l=x=y",
            "--cmd",
            "/probe",
            "--cmd",
            "echo",
            "--entrypoint",
            "[]",
            "-u",
            "1000",
            "-w",
            "/tmp",
            "-c",
            "EXPOSE 80",
            "--annotation",
            "who=me",
            "--set-platform",
            "linux/s390x",
            "-t",
            "e2e.test/edit:2",
            "e2e.test/edit:1",
        ];
        let id = imgtool(scene, &words);
        assert_eq!(id, imgtool(scene, &words), "the same again is the same");
        let after = inspect(scene, &id);
        assert_eq!(after["RootFS"], before["RootFS"]);
        assert_eq!(after["Architecture"], "s390x");
        assert_eq!(after["Created"], "2023-11-14T22:13:20Z");
        let config = &after["Config"];
        assert_eq!(config["Cmd"], serde_json::json!(["/probe", "echo"]));
        assert_eq!(config["Labels"]["l"], "x=y");
        assert_eq!((&config["User"], &config["WorkingDir"]), (&"1000".into(), &"/tmp".into()));
        let raw = scene.imgtool().args(["inspect", "--raw", &id]).run().success().json();
        assert_eq!(raw["annotations"]["who"], "me");
        imgtool(scene, &["mutate", "--clear", "env", "--clear", "labels", "e2e.test/edit:2"]);
        let cleared = inspect(scene, "e2e.test/edit:2");
        assert!(cleared["Config"]["Labels"].is_null() && cleared["Config"]["Env"].is_null());
        let bad = scene.imgtool().args(["mutate", "--clear", "all", "e2e.test/edit:2"]).run();
        bad.refused(&["can't clear \"all\""]);
    });
}

#[test]
fn layers_are_put_on_top_and_made_one() {
    scene(|scene| {
        load(scene, &two_layers(), "e2e.test/edit:1");
        let extra = scene.path("extra.tar.gz");
        let tar = Tarball::of([Entry::dir("opt"), Entry::file("opt/extra", "more")]).bytes();
        let plain = scene.path("extra.tar");
        fs::write(&plain, tar).unwrap();
        let pack = format!("gzip < {} > {}", plain.display(), extra.display());
        Cmd::new("sh").args(["-c", &pack]).run().success();
        let insert = format!("{}:/opt/in/serted", plain.display());
        let extra = extra.display().to_string();
        let words = ["mutate", "-t", "e2e.test/edit:2", "--append", &extra, "--insert", &insert];
        imgtool(scene, &[&words[..], &["e2e.test/edit:1"]].concat());
        let layered = names(scene, "e2e.test/edit:2");
        for name in ["etc/second", "opt/extra", "opt/in/serted", "probe"] {
            assert!(layered.iter().any(|found| found == name), "{name} in {layered:?}");
        }
        assert!(!layered.iter().any(|name| name == "etc/group"), "{layered:?}");
        let flat = ["mutate", "--flatten", "-t", "e2e.test/edit:3", "e2e.test/edit:2"];
        let id = imgtool(scene, &flat);
        assert_eq!(id, imgtool(scene, &flat), "the same again is the same");
        assert_eq!(inspect(scene, &id)["RootFS"]["Layers"].as_array().unwrap().len(), 1);
        assert_eq!(names(scene, "e2e.test/edit:3"), layered);
        let garbage = scene.path("garbage");
        fs::write(&garbage, vec![b'x'; 2000]).unwrap();
        let refused = scene.imgtool().args(["mutate", "e2e.test/edit:1", "--append"]);
        refused.arg(&garbage).run().refused(&["garbage", "no tar archive"]);
        let refused = scene.imgtool().args(["mutate", "e2e.test/edit:1", "--insert"]);
        refused.arg(format!("{}:/../x", garbage.display())).run().refused(&["bad path"]);
        scene.imgtool().arg("verify").run().success().stdout_has("are whole");
    });
}

#[test]
fn an_image_gets_another_base() {
    scene(|scene| {
        let old = Image::probe(&["old"]);
        let mut new = Image::probe(&["new"]);
        new.layers.push(Tarball::of([Entry::file("new-base", "")]).bytes());
        load(scene, &old, "e2e.test/base:1");
        load(scene, &new, "e2e.test/base:2");
        load(scene, &two_layers(), "e2e.test/app:1");
        let bases = ["--old-base", "e2e.test/base:1", "--new-base", "e2e.test/base:2"];
        let id = imgtool(
            scene,
            &[&["rebase", "-t", "e2e.test/app:2"], &bases[..], &["e2e.test/app:1"]].concat(),
        );
        assert_eq!(inspect(scene, &id)["RootFS"]["Layers"].as_array().unwrap().len(), 3);
        let found = names(scene, "e2e.test/app:2");
        assert!(found.iter().any(|name| name == "new-base"), "{found:?}");
        assert!(found.iter().any(|name| name == "etc/second"), "{found:?}");
        let wrong = ["--old-base", "e2e.test/base:2", "--new-base", "e2e.test/base:1"];
        let refused = scene.imgtool().arg("rebase").args(wrong).arg("e2e.test/app:1").run();
        refused.refused(&["not made from that base"]);
    });
}

#[test]
fn indexes_are_made_changed_and_pushed() {
    scene(|scene| {
        let registry = Registry::start(scene);
        load(scene, &Image::probe(&["a"]), "e2e.test/part:amd64");
        load(scene, &Image::probe(&["b"]), "e2e.test/part:other");
        let set = ["mutate", "--set-platform", "linux/arm/v7", "e2e.test/part:other"];
        imgtool(scene, &set);
        let name = format!("{}/lib/multi:1", registry.host);
        imgtool(scene, &["manifest", "create", &name, "e2e.test/part:amd64"]);
        scene.imgtool().args(["manifest", "create", &name]).run().refused(&["exists already"]);
        imgtool(scene, &["manifest", "add", &name, "e2e.test/part:other"]);
        let annotate = ["manifest", "annotate", &name, "linux/arm/v7", "--variant", "v6"];
        imgtool(scene, &annotate);
        let index = scene.imgtool().args(["manifest", "inspect", &name]).run().success().json();
        assert_eq!(index["manifests"][1]["platform"]["variant"], "v6");
        // What the index was before is nobody's; the image that mutate took the name from stays.
        let dangling = imgtool(scene, &["images", "-q", "-f", "dangling=true"]);
        assert_eq!(dangling.lines().count(), 1, "{dangling}");
        let pushed = scene.imgtool().args(["manifest", "push", &name]).run().success();
        let digest = registry.digest("lib/multi:1");
        pushed.stdout_has(&format!("digest: {digest}"));
        let place = format!("docker://{name}");
        let raw = Cmd::line("skopeo inspect --raw --tls-verify=false").arg(&place).run().success();
        assert_eq!(raw.json()["manifests"].as_array().unwrap().len(), 2);
        // An index needs its images, whatever else they are called; and takes them along.
        let id = |name: &str| imgtool(scene, &["inspect", "-f", "{{.Id}}", name]);
        let other = id("e2e.test/part:other");
        let untagged = scene.imgtool().args(["rmi", "e2e.test/part:other"]).run().success().stdout;
        assert!(!untagged.contains("Deleted: "), "{untagged}");
        imgtool(scene, &["tag", &name, "e2e.test/whole:1"]);
        let whole = scene.imgtool().args(["rmi", "e2e.test/whole:1"]).run().success().stdout;
        assert!(!whole.contains("Deleted: "), "{whole}");
        scene.imgtool().args(["pull", "-q", "--platform", "all", &name]).run().success();
        let all = scene.imgtool().args(["rmi", &name]).run().success().stdout;
        assert!(all.contains(&format!("Deleted: {other}")), "{all}");
        scene.imgtool().args(["pull", "-q", "--platform", "all", &name]).run().success();
        let other = format!("docker://{}/lib/multi:2", registry.host);
        imgtool(scene, &["manifest", "push", &name, &other]);
        let pulled = scene.imgtool().args(["pull", &other]).run().success();
        pulled.stdout_has(&format!("Digest: {digest}"));
        imgtool(scene, &["manifest", "remove", &name, "linux/arm/v6"]);
        let none = scene.imgtool().args(["manifest", "remove", &name, "linux/arm/v6"]).run();
        none.refused(&["no linux/arm/v6", "linux/amd64"]);
        let single = scene.imgtool().args(["manifest", "inspect", "e2e.test/part:amd64"]).run();
        single.refused(&["no index"]);
    });
}

#[test]
fn indexes_are_made_of_images_that_stay_in_their_registries() {
    scene(|scene| {
        let (one, two) = (Registry::start(scene), Registry::guarded(scene, &Guard::Password));
        for (name, platform) in [("a", "linux/amd64"), ("b", "linux/arm64")] {
            let part = format!("{}/lib/{name}:1", one.host);
            load(scene, &Image::probe(&[name]), &part);
            imgtool(scene, &["mutate", "--set-platform", platform, &part]);
            imgtool(scene, &["push", "-q", &part]);
            imgtool(scene, &["rmi", &part]);
        }
        imgtool(scene, &["prune", "-f"]);
        let layer = Tarball::of([Entry::file("x", "y")]).bytes();
        let content = Content::new(vec![layer]);
        let third = Hostile::start(move |request, stream| content.answer(request, stream));
        let (a, b) = (format!("docker://{}/lib/a:1", one.host), format!("{}/lib/b:1", one.host));
        let name = format!("{}/lib/multi:1", one.host);
        let digest = imgtool(scene, &["manifest", "create", &name, &a, &b]);
        // Nothing but the index is here.
        let blobs = || fs::read_dir(scene.store().join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs(), 1);
        let index = scene.imgtool().args(["manifest", "inspect", &name]).run().success().json();
        let platforms: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        scene.imgtool().args(["manifest", "push", &name]).run().success();
        assert_eq!(one.digest("lib/multi:1"), digest);

        // By another name, with an image of a third registry, to a registry that wants a login:
        // that is shown to nobody else.
        let other = format!("{}/lib/multi:2", two.host);
        imgtool(scene, &["tag", &name, &other]);
        let digest = imgtool(scene, &["manifest", "add", &other, &third.name()]);
        let creds = format!("{USER}:{PASSWORD}");
        let push = scene.imgtool().args(["manifest", "push", "--creds", &creds, &other]);
        push.args(["--cert-dir", two.certificates.to_str().unwrap()]).run().success();
        assert_eq!(two.digest("lib/multi:2"), digest);
        assert!(third.asked().iter().all(|request| request.header("authorization").is_none()));
        let whole = Cmd::line("skopeo copy --all --quiet --insecure-policy --src-tls-verify=false");
        let whole = whole.args(["--src-creds", &creds, &format!("docker://{other}")]);
        whole.arg(format!("dir:{}", scene.path("whole").display())).run().success();
        assert_eq!(blobs(), 2);
        scene.imgtool().arg("verify").run().success();

        let none = format!("{}/lib/none:1", one.host);
        let missing = scene.imgtool().args(["manifest", "add", &name, &none]).run();
        missing.refused(&["lib/none:1", "not found"]);
    });
}

#[test]
fn file_systems_come_in_and_go_out() {
    scene(|scene| {
        let tar = Tarball::of([Entry::dir("a"), Entry::file("a/b", "c").mode(0o4755)]).bytes();
        let file = scene.path("root.tar");
        fs::write(&file, &tar).unwrap();
        let path = file.display().to_string();
        let import = ["import", "-c", "CMD /a/b", "-m", "made of nothing", &path, "e2e.test/imp:1"];
        let id = imgtool(scene, &import);
        assert_eq!(id, imgtool(scene, &import));
        let seen = inspect(scene, &id);
        assert_eq!(seen["Comment"], "made of nothing");
        assert_eq!(seen["Config"]["Cmd"][2], "/a/b");
        assert_eq!(names(scene, "e2e.test/imp:1"), ["./", "a/", "a/b"]);
        let mode = Cmd::line("tar -tvf").arg(scene.path("export.tar")).run().success();
        mode.stdout_has("-rwsr-xr-x");
        let piped = scene.imgtool().args(["import", "-"]).stdin(tar).run().success();
        assert!(piped.word().starts_with("sha256:"));
        let url = crate::harness::web::serve(|_| "no archive at all".repeat(100));
        scene.imgtool().args(["import", &url]).run().refused(&["import http", "no tar archive"]);
        scene.imgtool().args(["import", "-"]).stdin("x").run().refused(&["no tar archive"]);
        scene.imgtool().args(["import", "/nonexistent"]).run().refused(&["/nonexistent"]);

        // A container's file system goes out by the name of its bundle.
        load(scene, &Image::probe(&[]), "e2e.test/probe:1");
        let bundle = super::bundle(scene, &["--network", "none"], "e2e.test/probe:1", "b", &[]);
        fs::write(bundle.join("rootfs/made"), "x").unwrap();
        assert!(names(scene, bundle.to_str().unwrap()).contains(&"made".to_owned()));
        super::remove(scene, "b");
        scene.imgtool().args(["export", "none", "-o", "/dev/null"]).run().refused(&["none"]);
    });
}

#[test]
fn what_nobody_needs_goes_and_what_is_damaged_is_found() {
    scene(|scene| {
        load(scene, &Image::probe(&["one"]), "e2e.test/one:1");
        load(scene, &Image::probe(&["two"]), "e2e.test/one:1");
        load(scene, &Image::probe(&["three"]), "e2e.test/two:1");
        scene.imgtool().args(["untag", "e2e.test/two:1"]).run().success();
        scene.imgtool().args(["untag", "e2e.test/two:1"]).run().refused(&["no such image"]);
        let no = scene.imgtool().arg("prune").stdin("n\n").run().success();
        assert!(no.stdout.ends_with("[y/N] "), "{}", no.stdout);
        scene.imgtool().arg("prune").run().refused(&["--force"]);
        let dry = scene.imgtool().args(["prune", "--dry-run"]).run().success();
        assert_eq!(dry.stdout.matches("deleted: sha256:").count(), 2, "{}", dry.stdout);
        let filtered = scene.imgtool().args(["prune", "-f", "--filter", "until=2000-01-01"]);
        assert_eq!(filtered.run().success().stdout, "Total reclaimed space: 0B\n");
        let yes = scene.imgtool().arg("prune").stdin("y\n").run().success();
        let yes = yes.stdout_has("Deleted Images:\ndeleted: ");
        // By what `images` and `rmi` call them, too.
        yes.stdout_has(&format!("deleted: {}\n", Image::probe(&["three"]).id()))
            .stdout_has("Total reclaimed space: ");
        assert_eq!(scene.imgtool().args(["images", "-q"]).run().stdout.lines().count(), 1);
        let bundle = super::bundle(scene, &["--network", "none"], "e2e.test/one:1", "b", &[]);
        let all = scene.imgtool().args(["prune", "-a", "-f"]).run().success();
        assert_eq!(all.stdout, "Total reclaimed space: 0B\n");

        scene.imgtool().arg("verify").run().success().stdout_has("1 images and 3 blobs are whole");
        let blobs = scene.store().join("blobs/sha256");
        let blob = fs::read_dir(&blobs).unwrap().map(|e| e.unwrap().path());
        let blob = blob.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        let bytes = fs::read(&blob).unwrap();
        fs::write(&blob, [&bytes[..], b"x"].concat()).unwrap();
        let told = scene.imgtool().arg("verify").run();
        told.refused(&["2 faults"]).stdout_has("is damaged").stdout_has("bytes, the manifest says");
        fs::remove_file(&blob).unwrap();
        scene.imgtool().arg("verify").run().code(1).stdout_has("is missing");
        fs::write(&blob, bytes).unwrap();
        super::remove(scene, "b");
        assert!(!bundle.exists());
        let all = scene.imgtool().args(["prune", "-a", "-f"]).run().success();
        all.stdout_has("untagged: e2e.test/one:1");
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);
    });
}
