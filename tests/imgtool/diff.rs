//! diff: what a container changed, as Docker lists it of a container that did the same.

use std::collections::BTreeSet;

use super::{Image, bundle, load, remove, run, scene};
use crate::harness::docker::Engine;
use crate::harness::tarball::{Entry, Tarball};

const NAME: &str = "e2e.test/diff:base";

fn image() -> Image {
    Image::busybox().layer(Tarball::of([
        Entry::dir("keep"),
        Entry::file("keep/file", "kept"),
        Entry::dir("drop"),
        Entry::file("drop/one", "1"),
        Entry::dir("drop/sub"),
        Entry::file("drop/sub/two", "2"),
        Entry::dir("a"),
        Entry::dir("a/b"),
        Entry::file("a/b/old", "old"),
        Entry::file("replaced", "a file"),
        Entry::file("changed", "before\n"),
        Entry::file("mode", "m"),
        Entry::symlink("link", "keep"),
        Entry::dir("moved"),
        Entry::file("moved/x", "x"),
    ]))
}

const SCRIPT: &str = "rm() { busybox rm \"$@\"; }; set -e
rm -r /drop; echo after >>/changed; busybox chmod 600 /mode; rm /replaced; busybox mkdir /replaced
echo in >/replaced/inside; echo new >/a/b/new; rm /a/b/old; busybox mkfifo /pipe
busybox ln -sfn a /link; busybox mkdir -p /deep/er; echo d >/deep/er/file; touch /keep
busybox ln /changed /linked; busybox chmod 750 /; echo gone >/short; rm /short";

fn docker_lists(script: &str) -> BTreeSet<String> {
    let docker = Engine::overlay();
    let name = format!("e2e-{}-diff", std::process::id());
    let flags = ["run", "--name", &name, "--network", "none", NAME, "sh", "-c", script];
    docker.docker(flags).run().success();
    let listed = docker.docker(["diff", &name]).run().success();
    docker.docker(["rm", &name]).run().success();
    listed.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn what_changed_is_listed_as_docker_lists_it() {
    scene(|scene| {
        let archive = load(scene, &image(), NAME);
        Engine::overlay().docker(["load", "-q", "-i"]).arg(&archive).run().success();
        let theirs = docker_lists(SCRIPT);
        Engine::overlay().docker(["rmi", NAME]).run().success();
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let dir = bundle(scene, flags, NAME, "b", &["sh", "-c", SCRIPT]);
            let untouched = scene.imgtool().arg("diff").arg(&dir).run().success();
            assert_eq!(untouched.stdout, "", "{flags:?}");
            run(scene, "b").success();
            let listed = scene.imgtool().arg("diff").arg(&dir).run().success();
            let ours: BTreeSet<String> = listed.stdout.lines().map(str::to_owned).collect();
            assert_eq!(ours, theirs, "{flags:?}");
            let paths: Vec<&str> = listed.stdout.lines().map(|line| &line[2..]).collect();
            assert!(paths.is_sorted(), "{}", listed.stdout);

            let json = scene.imgtool().args(["diff", "--format", "json"]).arg(&dir).run();
            let lines: BTreeSet<String> = json
                .success()
                .stdout
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .map(|change| {
                    let word = |key: &str| change[key].as_str().unwrap().to_owned();
                    format!("{} {}", word("kind"), word("path"))
                })
                .collect();
            assert_eq!(lines, ours);
            remove(scene, "b");
        }
    });
}

/// Of a directory that was removed and made again Docker's overlay driver says only that it was
/// deleted; what is gone of it and what came is listed here, as from a plain tree.
#[test]
fn a_directory_made_again_is_listed_entry_by_entry() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let script = "busybox rm -r /drop && busybox mkdir /drop && echo 1 >/drop/one && \
                      echo 3 >/drop/three";
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let dir = bundle(scene, flags, NAME, "b", &["sh", "-c", script]);
            run(scene, "b").success();
            let listed = scene.imgtool().arg("diff").arg(&dir).run().success();
            let wanted = "C /drop\nC /drop/one\nD /drop/sub\nA /drop/three\n";
            assert_eq!(listed.stdout, wanted, "{flags:?}");
            remove(scene, "b");
        }
    });
}
