//! A disk that is full, a store that can't be written to, a clock that jumped: one line, the store as it
//! was, and once there is room the same command succeeds.

use std::fs;

use super::hostile::noise;
use super::killed::left;
use super::{Image, Scene, load, scene};
use crate::harness::disk::Disk;
use crate::harness::hostile::{Content, Hostile};
use crate::harness::image::BUSYBOX;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, tracer};

/// What does not fit on the disk while it is full.
const LARGE: usize = 3_000_000;
/// How much of it there still is room for: the disk fills up at the first file, at one of the small
/// ones, and in the middle of the large one.
const FREE: [u64; 3] = [0, 40_000, 1_500_000];
const BASE: &str = "e2e.test/scarce:base";
const LARGE_NAME: &str = "e2e.test/scarce:large";

fn large() -> Image {
    Image::probe(&["report"]).layer(Tarball::of([Entry::file("large", noise(LARGE))]))
}

/// Fails for want of room on the disk, leaves the store as it was, and succeeds when there is some.
#[track_caller]
fn tried(scene: &Scene, disk: &Disk, words: &[&str]) {
    tried_with(
        scene,
        disk,
        words,
        &["No space left on device", &scene.store().display().to_string()],
    );
}

#[track_caller]
fn tried_with(scene: &Scene, disk: &Disk, words: &[&str], told: &[&str]) {
    for free in FREE {
        let before = left(scene);
        let filler = disk.fill_but(free);
        let full = scene.imgtool().args(words).run();
        fs::remove_file(filler).unwrap();
        assert_ne!(full.code, 0, "{full:?}");
        let last = full.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("imgtool: "), "{full:?}");
        assert!(told.iter().all(|word| full.stderr.contains(word)), "{full:?}");
        // What broke off is kept for the next pull, as from a line that is cut.
        let mut after = left(scene);
        after.retain(|path| !path.contains("/staging/partial-"));
        assert_eq!(after, before, "{full:?}");
        scene.imgtool().arg("verify").run().success();
    }
    scene.imgtool().args(words).run().success();
}

#[test]
fn on_a_full_disk_everything_fails_and_nothing_stays() {
    scene(|scene| {
        let disk = Disk::at(&scene.store(), "size=64m");
        load(scene, &Image::probe(&["report"]), BASE);
        let bundle = super::bundle(scene, &[], BASE, "bundle", &[]);
        fs::write(bundle.join("rootfs/large"), noise(LARGE)).unwrap();
        let (archive, bundle) = (scene.path("large.tar"), bundle.display().to_string());
        let archive = large().docker_archive(&archive, LARGE_NAME).display().to_string();
        tried(scene, &disk, &["load", "--quiet", "--input", &archive]);
        let other = scene.path("other").display().to_string();
        tried(scene, &disk, &["bundle", LARGE_NAME, &other]);
        scene.imgtool().args(["rm", &other]).run().success();
        tried(scene, &disk, &["commit", &bundle, "e2e.test/scarce:committed"]);
        let content = Content::new(vec![Tarball::of([Entry::file("f", noise(LARGE + 1))]).bytes()]);
        let registry = Hostile::start(move |request, stream| content.answer(request, stream));
        tried(scene, &disk, &["pull", "--quiet", &registry.name()]);
        let context = scene.path("context");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("Dockerfile"), format!("FROM {BASE}\nCOPY f /f\n")).unwrap();
        fs::write(context.join("f"), noise(LARGE + 2)).unwrap();
        let context = context.display().to_string();
        tried(scene, &disk, &["build", "--tag", "e2e.test/scarce:built", &context]);
        super::remove(scene, "bundle");
    });
}

/// The program says so itself; what it has written so far goes.
#[test]
fn a_step_of_a_build_that_fills_the_disk_fails_with_it() {
    scene(|scene| {
        let disk = Disk::at(&scene.store(), "size=64m");
        load(scene, &Image::busybox(), BUSYBOX);
        let context = scene.path("context");
        fs::create_dir(&context).unwrap();
        let run = "RUN dd if=/dev/zero of=/large bs=1000000 count=3";
        fs::write(context.join("Dockerfile"), format!("FROM {BUSYBOX}\n{run}\n")).unwrap();
        let context = context.display().to_string();
        let name = "e2e.test/scarce:step";
        let words = ["build", "--progress", "plain", "--tag", name, &context];
        tried_with(scene, &disk, &words, &["No space left on device"]);
    });
}

#[test]
fn a_copy_for_which_there_is_no_room_is_not_begun() {
    scene(|scene| {
        load(scene, &large(), LARGE_NAME);
        let disk = Disk::at(&scene.path("disk"), "size=64m");
        let copy = scene.path("disk/bundle").display().to_string();
        let words = ["bundle", "--copy", LARGE_NAME, &copy];
        for free in FREE {
            let filler = disk.fill_but(free);
            scene.imgtool().args(words).run().refused(&["No space left on device", "disk/bundle"]);
            fs::remove_file(filler).unwrap();
            assert_eq!(fs::read_dir(scene.path("disk")).unwrap().count(), 0);
            assert_eq!(scene.imgtool().args(["bundles", "--quiet"]).run().success().stdout, "");
        }
        let saved = scene.path("disk/saved.tar").display().to_string();
        let filler = disk.fill_but(FREE[1]);
        let save = ["save", "--output", &saved, LARGE_NAME];
        scene.imgtool().args(save).run().refused(&["No space left on device", &saved]);
        fs::remove_file(filler).unwrap();
        assert_eq!(fs::read_dir(scene.path("disk")).unwrap().count(), 0);
        scene.imgtool().args(save).run().success();
        scene.imgtool().args(words).run().success();
        scene.imgtool().args(["rm", &copy]).run().success();
    });
}

#[test]
fn a_store_that_can_not_be_written_to_is_read_and_run_from() {
    scene(|scene| {
        let disk = Disk::at(&scene.store(), "size=64m");
        let archive = load(scene, &Image::probe(&["report"]), BASE).display().to_string();
        super::bundle(scene, &["--network", "none"], BASE, "bundle", &[]);
        disk.remount("ro");
        super::run(scene, "bundle").success();
        let saved = scene.path("saved.tar").display().to_string();
        for words in [
            &["images"][..],
            &["inspect", BASE],
            &["history", BASE],
            &["verify"],
            &["bundles"],
            &["info"],
            &["save", "--output", &saved, BASE],
        ] {
            scene.imgtool().args(words).run().success();
        }
        let (bundle, other) = (scene.path("bundle").display().to_string(), scene.path("other"));
        let other = other.display().to_string();
        for words in [
            &["load", "--input", &archive][..],
            &["tag", BASE, "e2e.test/scarce:tagged"],
            &["rmi", "--force", BASE],
            &["prune", "--force"],
            &["bundle", BASE, &other],
            &["bundle", "--copy", BASE, &other],
            &["commit", &bundle, "e2e.test/scarce:committed"],
            &["rm", &bundle],
            &["pull", "127.0.0.1:1/lib/app:1"],
        ] {
            scene.imgtool().args(words).run().refused(&["Read-only file system", "store"]);
        }
        assert!(!scene.path("other").exists());
        disk.remount("rw");
        super::remove(scene, "bundle");
    });
}

#[test]
fn what_comes_from_the_future_is_listed_and_goes() {
    const YEAR: i64 = 365 * 24 * 3600;
    scene(|scene| {
        load(scene, &Image::probe(&["report"]), BASE);
        let path = super::bundle(scene, &[], BASE, "bundle", &[]).display().to_string();
        let name = "e2e.test/scarce:future";
        let commit = scene.imgtool().args(["commit", &path, name]);
        let commit = tracer::ahead(commit, YEAR);
        assert_eq!(commit.code, 0, "{commit:?}");
        let mut listed = scene.imgtool().arg("images").run().success();
        listed.stdout.retain(|letter| letter != '-');
        listed.stdout_has("future");
        scene.imgtool().args(["history", name]).run().success();
        // A download that broke off then is not gone on with for another year and a day.
        let partial = scene.store().join("staging").join(format!("partial-sha256-{:064}", 0));
        fs::write(&partial, "begun").unwrap();
        Cmd::line("touch -d").arg("next year").arg(&partial).run().success();
        super::remove(scene, "bundle");
        scene.imgtool().args(["prune", "--force", "--all", "--filter", "until=1h"]).run().success();
        assert!(!partial.exists());
        // It is no hour old; the base, whose time is that of an image made long ago, is.
        scene.imgtool().args(["inspect", BASE]).run().code(1);
        scene.imgtool().args(["rmi", name]).run().success();
        assert_eq!(left(scene), [""; 0]);
    });
}
