//! commit: what a container changed becomes a layer, and nothing else does.

use std::fs;

use serde_json::json;

use super::{Image, bundle, load, remove, run, scene};
use crate::harness::docker::Engine;
use crate::harness::tarball::{Entry, Tarball};

const NAME: &str = "e2e.test/commit:base";
const NEW: &str = "e2e.test/commit:new";

fn image() -> Image {
    Image::probe(&["report"]).with("Env", vec!["PATH=/"]).layer(Tarball::of([
        Entry::dir("keep"),
        Entry::file("keep/file", "kept").mode(0o640).owner(3, 4),
        Entry::dir("drop"),
        Entry::file("drop/one", "1"),
        Entry::file("drop/two", "2"),
        Entry::file("replaced", "a file"),
        Entry::file("changed", "before\n"),
    ]))
}

/// Changes made from outside while nothing runs: the rootfs is what the bundle is made of.
const CHANGES: &str = "cd \"$0/rootfs\" && rm drop/one && rm replaced && mkdir replaced \
    && echo inside > replaced/inside && echo after >> changed && ln changed linked \
    && setfattr -n user.mark -v value changed && mkfifo pipe && chmod 4711 keep/file \
    && rm -r drop && mkdir drop && echo 3 > drop/three";

#[test]
fn overlay_and_copy_commit_the_same_layer_and_docker_sees_the_same_tree() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let mut trees = Vec::new();
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let dir = bundle(scene, flags, NAME, "b", &["/probe", "append", "/run-made", "x"]);
            run(scene, "b").success();
            let change = crate::harness::Cmd::new("sh").args(["-c", CHANGES]).arg(&dir);
            change.run().success();
            let commit = scene.imgtool().args(["commit", "--author", "a tester"]);
            let commit = commit.args(["--message", "for a test", "--change", "CMD [\"/probe\"]"]);
            let id = commit.arg(&dir).arg(NEW).run().success();
            assert!(id.word().starts_with("sha256:"), "{}", id.stdout);
            remove(scene, "b");

            let seen = scene.imgtool().args(["inspect", NEW]).run().success().json();
            assert_eq!(seen[0]["Id"], id.word());
            assert_eq!(seen[0]["Author"], "a tester");
            assert_eq!(seen[0]["Config"]["Cmd"], json!(["/probe"]));
            assert_eq!(seen[0]["Config"]["Env"], json!(["PATH=/"]));
            assert_eq!(seen[0]["RootFS"]["Layers"].as_array().unwrap().len(), 3);

            let archive = scene.path("new.tar");
            scene.imgtool().args(["save", NEW, "--output"]).arg(&archive).run().success();
            let docker = Engine::overlay();
            docker.docker(["load", "--quiet", "--input"]).arg(&archive).run().success();
            let words = ["run", "--rm", "--network", "none", "--entrypoint", "/probe", NEW, "tree"];
            let skipped = ["/proc", "/sys", "/dev", "/etc", "/.dockerenv", "~/"];
            let tree = docker.docker(words).args(skipped).run().success().stdout;
            docker.docker(["rmi", NEW]).run().success();
            scene.imgtool().args(["rmi", NEW]).run().success();
            trees.push(tree);
        }
        // The times are those of two runs; all else is the same.
        let without_times = |tree: &str| -> Vec<String> {
            tree.lines()
                .map(|line| {
                    let time = |word: &&str| !word.contains('.') || word.contains('=');
                    line.split(' ').filter(time).collect::<Vec<_>>().join(" ")
                })
                .collect()
        };
        assert_eq!(without_times(&trees[0]), without_times(&trees[1]));
        let tree = &trees[0];
        for line in [
            "\"/drop/three\"",
            "\"/replaced/inside\"",
            "\"/pipe\" 010",
            "\"/keep/file\" 104711 3:4",
        ] {
            assert!(tree.contains(line), "{line} in\n{tree}");
        }
        assert!(tree.contains("user.mark=76616c7565"), "{tree}");
        assert!(tree.contains("linked to \"/changed\""), "{tree}");
        for gone in ["/drop/one", "/drop/two", "/etc/hosts"] {
            assert!(!tree.contains(gone), "{gone} in\n{tree}");
        }
    });
}

#[test]
fn the_layer_holds_only_what_changed() {
    scene(|scene| {
        load(scene, &image(), NAME);
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            bundle(scene, flags, NAME, "b", &["/probe", "append", "/made", "x"]);
            run(scene, "b").success();
            scene.imgtool().arg("commit").arg(scene.path("b")).arg(NEW).run().success();
            let archive = scene.path("new.tar");
            scene.imgtool().args(["save", NEW, "--output"]).arg(&archive).run().success();
            let script = "cd $(mktemp -d) && tar xf \"$0\" && last=$(jq -r '.[0].Layers[-1]' \
                          manifest.json) && tar tf \"$last\" && rm -r \"$PWD\"";
            let listed = crate::harness::Cmd::new("sh").args(["-c", script]).arg(&archive).run();
            let names: Vec<String> = listed
                .success()
                .stdout
                .lines()
                .map(|name| name.trim_start_matches("./").trim_end_matches('/').to_owned())
                .filter(|name| !name.is_empty() && name != ".")
                .collect();
            assert_eq!(names, ["made"], "{flags:?}");
            remove(scene, "b");
            scene.imgtool().args(["rmi", NEW]).run().success();
        }
    });
}

#[test]
fn a_container_is_committed_by_its_id() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let words = ["/probe", "pause"];
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &words);
        let id = scene.id("named");
        scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir).arg(&id).run().success();
        scene.runtime().args(["exec", &id, "/probe", "append", "/made", "x"]).run().success();
        scene.imgtool().args(["commit", &id, NEW]).run().success();
        scene.runtime().args(["delete", "--force", &id]).run().success();
        bundle(scene, &["--network", "none"], NEW, "c", &["/probe", "cat", "/made"]);
        assert_eq!(run(scene, "c").success().stdout, "x\n");
        remove(scene, "c");
        remove(scene, "b");
    });
}

/// The digests of the layers of `name`, in the form that is stored and pushed.
fn layers(scene: &super::Scene, name: &str) -> Vec<String> {
    let manifest = scene.imgtool().args(["manifest", "inspect", name]).run();
    let manifest = match manifest.code {
        0 => manifest.json(),
        _ => scene.imgtool().args(["inspect", "--raw", name]).run().success().json(),
    };
    let layers = manifest["layers"].as_array().expect("a manifest has layers");
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn committing_twice_gives_one_digest_and_committing_nothing_no_layer() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let before = layers(scene, NAME);
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let commit = |dir: &std::path::Path| {
                let commit = scene.imgtool().env("SOURCE_DATE_EPOCH", "1700000000");
                let id = commit.arg("commit").arg(dir).arg(NEW).run().success();
                (id.word().to_owned(), layers(scene, NEW))
            };
            let dir = bundle(scene, flags, NAME, "b", &["/probe", "append", "/made", "x"]);
            let (first, nothing) = commit(&dir);
            assert_eq!(nothing, before, "{flags:?}: a layer without anything in it");
            assert_eq!(commit(&dir).0, first, "{flags:?}");

            // Two containers that do the same at different times.
            run(scene, "b").success();
            let (once, layer) = commit(&dir);
            assert_eq!(layer.len(), before.len() + 1);
            assert_eq!(commit(&dir), (once.clone(), layer.clone()), "{flags:?}");
            remove(scene, "b");
            let dir = bundle(scene, flags, NAME, "b", &["/probe", "append", "/made", "x"]);
            run(scene, "b").success();
            assert_eq!(commit(&dir), (once, layer), "{flags:?}: the time of the change shows");
            remove(scene, "b");
            scene.imgtool().args(["rmi", NEW]).run().success();
        }
    });
}

#[test]
fn squashing_makes_one_layer_of_the_same_tree() {
    scene(|scene| {
        load(scene, &image(), NAME);
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let dir = bundle(scene, flags, NAME, "b", &["/probe", "append", "/made", "x"]);
            run(scene, "b").success();
            let change = crate::harness::Cmd::new("sh").args(["-c", CHANGES]).arg(&dir);
            change.run().success();
            scene.imgtool().args(["umount"]).arg(&dir).run().success();
            scene.imgtool().arg("commit").arg(&dir).arg("e2e.test/commit:plain").run().success();
            scene.imgtool().args(["commit", "--squash"]).arg(&dir).arg(NEW).run().success();
            remove(scene, "b");
            assert_eq!(layers(scene, NEW).len(), 1);
            let seen = scene.imgtool().args(["inspect", NEW]).run().success().json();
            assert_eq!(seen[0]["Config"]["Env"], json!(["PATH=/"]));
            let tree = |name: &str| {
                let words = ["/probe", "tree", "/proc", "/sys", "/dev", "/etc", "~/"];
                bundle(scene, &["--network", "none"], name, "c", &words);
                let tree = run(scene, "c").success().stdout;
                remove(scene, "c");
                tree
            };
            assert_eq!(tree(NEW), tree("e2e.test/commit:plain"), "{flags:?}");
            scene.imgtool().args(["rmi", NEW, "e2e.test/commit:plain"]).run().success();
        }
    });
}

/// While the files are read the container stands still, and afterwards it goes on.
#[test]
fn a_running_container_is_paused_and_goes_on() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &["/probe", "pause"]);
        let id = scene.id("paused");
        scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir).arg(&id).run().success();
        let status = || {
            let state = scene.runtime().args(["state", &id]).run().success().json();
            state["status"].as_str().unwrap().to_owned()
        };
        let commit = scene.imgtool().args(["commit", "--pause", &id, NEW]).run().success();
        assert_eq!(commit.stderr, "");
        assert_eq!(status(), "running");

        // One that is paused already stays so.
        scene.runtime().args(["pause", &id]).run().success();
        scene.imgtool().args(["commit", &id, NEW]).run().success();
        assert_eq!(status(), "paused");
        scene.imgtool().args(["commit", "--pause=false", &id, NEW]).run().success();
        assert_eq!(status(), "paused");
        scene.runtime().args(["resume", &id]).run().success();

        // A commit that fails lets it go on as well.
        fs::rename(dir.join("upper"), dir.join("elsewhere")).unwrap();
        scene.imgtool().args(["commit", &id, NEW]).run().refused(&["upper"]);
        assert_eq!(status(), "running");
        fs::rename(dir.join("elsewhere"), dir.join("upper")).unwrap();
        scene.runtime().args(["delete", "--force", &id]).run().success();
        remove(scene, "b");
    });
}

/// The archive has the zeros written out, as every other reader needs it.
#[test]
fn holes_are_holes_again_in_what_was_committed() {
    use std::os::unix::fs::{FileExt, MetadataExt};

    const SIZE: u64 = 20 << 20;
    scene(|scene| {
        load(scene, &image(), NAME);
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &[]);
        let file = fs::File::create(dir.join("rootfs/holes")).unwrap();
        file.write_all_at(b"data between", 5_000_000).unwrap();
        file.set_len(SIZE).unwrap();
        drop(file);
        scene.imgtool().arg("commit").arg(&dir).arg(NEW).run().success();
        let written = fs::read(dir.join("rootfs/holes")).unwrap();
        remove(scene, "b");
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let dir = bundle(scene, flags, NEW, "b", &[]);
            let found = dir.join("rootfs/holes");
            assert!(fs::read(&found).unwrap() == written, "{flags:?}: other contents");
            let held = fs::metadata(&found).unwrap().blocks() * 512;
            assert!(held < SIZE / 20, "{flags:?}: {held} bytes are on the disk");
            remove(scene, "b");
        }
    });
}
