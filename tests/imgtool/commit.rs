//! commit: what a container changed becomes a layer, and nothing else does.

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
