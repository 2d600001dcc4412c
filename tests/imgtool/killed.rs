//! `kill -9` at any moment: the store is whole, the next command finishes what was begun, and at the
//! end nothing is left.

use std::fs;
use std::time::Duration;

use super::{Image, Scene, load, scene};
use crate::harness::tarball::{Entry, Tarball};

const NAME: &str = "e2e.test/killed:latest";
const COMMITTED: &str = "e2e.test/killed:committed";
/// Where the kills are spread over; the longest command takes about as long.
const STEPS: u64 = 12;
const STEP_MS: u64 = 15;

/// The probe, and enough files above it for every command to take a while.
fn image() -> Image {
    let mut image = Image::probe(&["report"]);
    let files = (0..400).map(|n| Entry::file(&format!("files/{n}"), vec![b'x'; 10_000]));
    image.layers.push(Tarball::of(files).bytes());
    image
}

/// All that the store holds but for what every store has.
pub(super) fn left(scene: &Scene) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![scene.store()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else if !["oci-layout", "index.json", "lock"].contains(&name.as_str()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

#[test]
fn whatever_a_kill_leaves_the_next_command_finishes() {
    scene(|scene| {
        let archive = load(scene, &image(), NAME).display().to_string();
        let dir = scene.path("bundle");
        let path = dir.display().to_string();
        for step in 0..STEPS {
            let time = Duration::from_millis(STEP_MS * step);
            let run = |words: &[&str]| scene.imgtool().args(words).run();
            let killed = |words: &[&str]| scene.imgtool().args(words).kill_after(time).run();
            killed(&["load", "-i", &archive]);
            run(&["load", "-i", &archive]).success();
            let how = if step % 2 == 0 { "--read-only" } else { "--copy" };
            // A bundle is there wholly or not at all.
            if killed(&["bundle", how, NAME, &path]).code != 0 {
                let again = run(&["bundle", how, NAME, &path]);
                assert!(again.code == 0 || again.stderr.contains("exists already"), "{again:?}");
            }
            run(&["bundles", "--quiet"]).success().stdout_has(&path);
            fs::write(dir.join("rootfs/files/new"), vec![b'y'; 1_000_000]).unwrap();
            killed(&["commit", &path, COMMITTED]);
            run(&["commit", &path, COMMITTED]).success();
            killed(&["rm", &path]);
            let removed = run(&["rm", &path]);
            assert!(removed.code == 0 || removed.stderr.contains("no such bundle"), "{removed:?}");
            assert!(!dir.exists(), "killed after {time:?}");
            killed(&["rmi", COMMITTED]);
            let images = run(&["images", "--quiet", "--no-trunc"]).success().stdout;
            for id in images.lines() {
                run(&["rmi", "--force", id]).success();
            }
        }
        // The last kill may have come between an image and its blobs: whoever deletes next sees them.
        load(scene, &image(), NAME);
        scene.imgtool().args(["rmi", NAME]).run().success();
        assert_eq!(left(scene), [""; 0]);
    });
}
