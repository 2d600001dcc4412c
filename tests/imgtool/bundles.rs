//! The life of a bundle: bundle, bundles, mount, umount, rm, and the reboot in between.

use std::fs;
use std::path::Path;

use super::{Image, Scene, bundle, load, remove, run, scene};
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, command::binary};

const NAME: &str = "e2e.test/bundles:latest";

fn mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let point = dir.join("rootfs").display().to_string();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(point.as_str()))
}

/// What `bundles --format json` says of the bundle at `dir`.
fn listed(scene: &Scene, dir: &Path) -> Option<serde_json::Value> {
    let all = scene.imgtool().args(["bundles", "--format", "json"]).run().success().stdout;
    let wanted = dir.display().to_string();
    all.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|bundle| bundle.to_string().contains(&wanted))
}

#[test]
fn the_same_bundle_runs_under_ours_and_under_runc() {
    scene(|scene| {
        load(scene, &Image::probe(&["echo", "the same"]), NAME);
        for flags in [&["--network", "none", "--copy"][..], &["--network", "none"]] {
            let dir = bundle(scene, flags, NAME, "b", &[]);
            for runtime in [binary("runtime"), "runc".into()] {
                let run = Cmd::new(&runtime).args(["run", "--bundle"]).arg(&dir);
                let outcome = run.arg(scene.id("same")).run().success();
                assert_eq!(outcome.stdout, "the same\n", "{} {flags:?}", runtime.display());
            }
            remove(scene, "b");
        }
    });
}

#[test]
fn without_a_directory_the_bundle_lies_in_the_store() {
    scene(|scene| {
        load(scene, &Image::probe(&["echo", "hello"]), NAME);
        let made = scene.imgtool().args(["bundle", "--network", "none", NAME]).run().success();
        let dir = Path::new(made.word());
        assert!(dir.starts_with(scene.store()), "{}", dir.display());
        let run = scene.runtime().args(["run", "--bundle"]).arg(dir).arg(scene.id("b")).run();
        assert_eq!(run.success().stdout, "hello\n");
        let quiet = scene.imgtool().args(["bundles", "--quiet"]).run().success();
        assert_eq!(quiet.word(), dir.to_str().unwrap());
        scene.imgtool().arg("rm").arg(dir).run().success();
        assert!(!dir.exists());
        assert_eq!(scene.imgtool().args(["bundles", "--quiet"]).run().success().stdout, "");
    });
}

#[test]
fn bundles_share_layers_and_keep_their_changes_to_themselves() {
    scene(|scene| {
        load(scene, &Image::probe(&[]), NAME);
        let flags = ["--network", "none"];
        let one = bundle(scene, &flags, NAME, "one", &["/probe", "append", "/made", "by one"]);
        let two = bundle(scene, &flags, NAME, "two", &["/probe", "stat", "/made"]);
        run(scene, "one").success();
        let seen = run(scene, "two").success().json();
        assert_eq!(seen["/made"]["error"], "ENOENT");
        assert_eq!(fs::read_to_string(one.join("rootfs/made")).unwrap(), "by one\n");
        assert!(!two.join("rootfs/made").exists());
        let inode = |dir: &Path| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(dir.join("rootfs/probe")).unwrap().ino()
        };
        assert_eq!(inode(&one), inode(&two), "the layer is unpacked twice");
        remove(scene, "one");
        remove(scene, "two");
    });
}

#[test]
fn mount_and_umount_are_idempotent() {
    scene(|scene| {
        load(scene, &Image::probe(&["echo", "back"]), NAME);
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &[]);
        assert!(mounted(&dir));
        for _ in 0..2 {
            scene.imgtool().arg("umount").arg(&dir).run().success();
            assert!(!mounted(&dir));
        }
        let empty = run(scene, "b");
        assert_ne!(empty.code, 0);
        empty.stderr_has("imgtool mount");
        for _ in 0..2 {
            scene.imgtool().arg("mount").arg(&dir).run().success();
            assert!(mounted(&dir));
        }
        assert_eq!(run(scene, "b").success().stdout, "back\n");
        remove(scene, "b");
        assert!(!dir.exists());
    });
}

#[test]
fn a_bundle_in_use_and_its_image_are_not_removed() {
    scene(|scene| {
        load(scene, &Image::probe(&["pause"]), NAME);
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &[]);
        let id = scene.id("user");
        scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir).arg(&id).run().success();
        scene.imgtool().arg("rm").arg(&dir).run().refused(&[&id]);
        let path = dir.display().to_string();
        scene.imgtool().args(["rmi", NAME]).run().refused(&[&path]);
        let bundle = listed(scene, &dir).expect("the bundle is listed");
        assert!(bundle.to_string().contains(&id), "{bundle}");
        scene.runtime().args(["delete", "--force", &id]).run().success();
        remove(scene, "b");
        scene.imgtool().args(["rmi", NAME]).run().success();
    });
}

#[test]
fn a_bundle_whose_record_can_not_be_read_still_keeps_its_layers() {
    scene(|scene| {
        load(scene, &Image::probe(&["echo", "whole"]), NAME);
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &[]);
        let record = dir.join("imgtool.json");
        let text = fs::read(&record).unwrap();
        fs::write(&record, "{ torn").unwrap();
        scene.imgtool().args(["rmi", NAME]).run().refused(&[&dir.display().to_string()]);
        fs::write(&record, text).unwrap();
        assert_eq!(run(scene, "b").success().stdout, "whole\n");
        remove(scene, "b");
    });
}

#[test]
fn with_rm_the_bundle_goes_with_its_container() {
    scene(|scene| {
        load(scene, &Image::probe(&["exit", "3"]), NAME);
        let dir = bundle(scene, &["--rm", "--network", "none"], NAME, "b", &[]);
        run(scene, "b").code(3);
        assert!(!dir.exists(), "the bundle is left");
        assert!(listed(scene, &dir).is_none());
    });
}

/// A reboot takes mounts and /run; what is on disk stays.
#[test]
fn after_a_reboot_the_bundle_is_mounted_run_and_committed() {
    scene(|scene| {
        let base = Image::probe(&[]).layer(Tarball::of([Entry::file("old", "from the image")]));
        load(scene, &base, NAME);
        let words = ["/probe", "append", "/made", "line"];
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &words);
        run(scene, "b").success();

        Cmd::new("umount").arg(dir.join("rootfs")).run().success();

        scene.imgtool().arg("mount").arg(&dir).run().success();
        run(scene, "b").success();
        assert_eq!(fs::read_to_string(dir.join("rootfs/made")).unwrap(), "line\nline\n");
        let committed = "e2e.test/committed:latest";
        scene.imgtool().arg("commit").arg(&dir).arg(committed).run().success();
        bundle(scene, &["--network", "none"], committed, "c", &["/probe", "cat", "/made"]);
        assert_eq!(run(scene, "c").success().stdout, "line\nline\n");

        remove(scene, "b");
        remove(scene, "c");
        scene.imgtool().args(["rmi", committed, NAME]).run().success();
        let left = Cmd::new("find").arg(scene.store()).args(["-type", "f", "-path", "*/sha256/*"]);
        assert_eq!(left.run().success().stdout, "", "blobs or layers are left");
        let bundles = scene.imgtool().args(["bundles", "--quiet"]).run().success();
        assert_eq!(bundles.stdout, "");
    });
}

#[test]
fn a_bundle_that_can_not_be_made_leaves_nothing() {
    scene(|scene| {
        load(scene, &Image::probe(&[]).with("User", "nobody-knows"), NAME);
        let dir = scene.path("b");
        for flags in [&[][..], &["--copy"]] {
            let made = scene.imgtool().arg("bundle").args(flags).arg(NAME).arg(&dir).run();
            made.refused(&["nobody-knows"]);
            assert!(!dir.exists());
            assert_eq!(scene.imgtool().args(["bundles", "--quiet"]).run().success().stdout, "");
        }
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("mine"), "precious").unwrap();
        let made = scene.imgtool().args(["bundle", "-u", "0", NAME]).arg(&dir).run();
        made.refused(&[&dir.display().to_string()]);
        assert_eq!(fs::read_to_string(dir.join("mine")).unwrap(), "precious");
    });
}

#[test]
fn info_tells_what_uses_the_disk() {
    scene(|scene| {
        let layer = Tarball::of([Entry::file("file", vec![b'x'; 5_000_000])]);
        load(scene, &Image::probe(&[]).layer(layer), NAME);
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &[]);
        fs::write(dir.join("rootfs/own"), vec![b'y'; 3_000_000]).unwrap();
        let info = scene.imgtool().arg("info").run().success().stdout;
        let line = |what: &str| {
            let found = info.lines().find_map(|line| line.strip_prefix(what));
            found.unwrap_or_else(|| panic!("{what} in\n{info}")).trim().to_owned()
        };
        assert_eq!(line("Bundles:"), "1 (3MB of their own)");
        let bytes = |what: &str| {
            let text = line(what);
            let number = text.strip_suffix("MB").and_then(|number| number.parse::<f64>().ok());
            number.unwrap_or_else(|| panic!("{what} {text}"))
        };
        assert!(bytes("Unpacked layers:") > 5.0);
        assert_eq!(line("Unfinished downloads:"), "0B");
        remove(scene, "b");
    });
}

#[test]
fn a_store_on_an_overlay_is_told_of_and_its_bundles_are_copies() {
    scene(|scene| {
        let over = scene.path("over");
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(over.join(name)).unwrap();
        }
        // The mount is seen by these commands alone and goes with them.
        let script = "set -e
            mount -t overlay -o lowerdir=$0/lower,upperdir=$0/upper,workdir=$0/work o $0/merged
            imgtool() { \"$1\" --root $0/merged/store \"${@:2}\"; }
            imgtool \"$1\" load -q -i \"$2\"
            imgtool \"$1\" bundle --network none \"$3\" \"$4\"
            echo inside >\"$4/rootfs/made\"
            imgtool \"$1\" commit \"$4\" e2e.test/over:new
            imgtool \"$1\" save -o \"$5\" e2e.test/over:new
            imgtool \"$1\" rm \"$4\"";
        let archive = Image::probe(&[]).docker_archive(&scene.path("image.tar"), NAME);
        let saved = scene.path("saved.tar");
        let done = Cmd::line("unshare --mount --propagation private -- bash -c").arg(script);
        let done = done.arg(&over).arg(binary("imgtool")).arg(&archive).arg(NAME);
        let done = done.arg(scene.path("b")).arg(&saved).run().success();
        done.stderr_has("the store lies on an overlay, which can't hold layers: copying");
        scene.imgtool().args(["load", "-i"]).arg(&saved).run().success();
        let dir = bundle(scene, &["--network", "none"], "e2e.test/over:new", "c", &[]);
        assert_eq!(fs::read_to_string(dir.join("rootfs/made")).unwrap(), "inside\n");
        remove(scene, "c");
    });
}
