//! Volumes that are mounts: of a device, of a server, of memory, of a directory elsewhere. The
//! runtime mounts them when the container starts, and they go with it.

use std::fs;

use super::{Image, Outcome, Scene, load, remove, scene};
use crate::harness::{Cmd, requires};

const NAME: &str = "e2e.test/volumes:1";

fn create(scene: &Scene, name: &str, options: &[&str]) -> Outcome {
    let create = scene.imgtool().args(["volume", "create", "--driver", "local"]);
    let options = options.iter().flat_map(|option| ["--opt", option]);
    create.args(options).arg(name).run()
}

/// What a shell says in a container with this volume on /data.
fn said(scene: &Scene, volume: &str, script: &str) -> Outcome {
    let flags = ["--network", "none", "-v", &format!("{volume}:/data")];
    super::bundle(scene, &flags, NAME, "b", &["sh", "-c", script]);
    let outcome = super::run(scene, "b");
    remove(scene, "b");
    outcome
}

/// A file system in a file, behind a block device; taken away when it is dropped.
struct Loop(String);

impl Loop {
    fn new(scene: &Scene) -> Self {
        requires::program("mkfs.ext4", "e2fsprogs");
        let file = scene.path("disk");
        fs::File::create(&file).unwrap().set_len(8 << 20).unwrap();
        Cmd::line("mkfs.ext4 -q").arg(&file).run().success();
        let device = Cmd::line("losetup --find --show").arg(&file).run().success();
        Self(device.word().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Cmd::line("losetup --detach").arg(&self.0).run();
    }
}

#[test]
fn a_device_is_mounted_at_the_start_and_unmounted_at_the_end() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        let disk = Loop::new(scene);
        let device = format!("device={}", disk.0);
        create(scene, "disk", &["type=ext4", &device, "o=noatime"]).success();
        let script = "echo kept > /data/file; grep ' /data ' /proc/mounts";
        let seen = said(scene, "disk", script).success().stdout;
        assert!(seen.starts_with(&disk.0) && seen.contains(" ext4 rw,noatime"), "{seen}");
        let mounted = || fs::read_to_string("/proc/mounts").unwrap().contains(&disk.0);
        assert!(!mounted());
        let read = "cat /data/file; ls -d /data/lost+found; echo x > /data/file";
        let seen = said(scene, "disk", read).success();
        assert_eq!(seen.stdout, "kept\n/data/lost+found\n");
        let seen = scene.imgtool().args(["volume", "inspect", "disk"]).run().success().json();
        assert_eq!(seen[0]["Options"]["type"], "ext4");

        // While it is used it stays, and is the same under another bundle's feet.
        let flags = ["--network", "none", "-v", "disk:/data:ro"];
        super::bundle(scene, &flags, NAME, "user", &["sh", "-c", "echo > /data/file"]);
        super::run(scene, "user").stderr_has("Read-only file system");
        let rm = scene.imgtool().args(["volume", "rm", "disk"]);
        rm.run().refused(&["in use by bundle", "imgtool rm"]);
        create(scene, "disk", &["type=xfs", &device]).refused(&["other options"]);
        remove(scene, "user");
        scene.imgtool().args(["volume", "rm", "disk"]).run().success();
        assert!(!mounted());
    });
}

#[test]
fn memory_and_a_directory_elsewhere_are_volumes_too() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        create(scene, "scratch", &["type=tmpfs", "device=tmpfs", "o=size=1m,mode=700"]).success();
        let seen = said(scene, "scratch", "grep ' /data ' /proc/mounts").success();
        seen.stdout_has("size=1024k,mode=700");
        let there = scene.path("there");
        fs::create_dir(&there).unwrap();
        let device = format!("device={}", there.display());
        create(scene, "there", &["o=bind", &device]).success();
        said(scene, "there", "echo made > /data/file").success();
        assert_eq!(fs::read_to_string(there.join("file")).unwrap(), "made\n");
        scene.imgtool().args(["volume", "rm", "there", "scratch"]).run().success();
        assert!(there.join("file").exists());
    });
}

#[test]
fn what_can_not_be_mounted_is_said_early_and_plainly() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        for (options, words) in [
            (&["type=nfs", "device=:/x"][..], &["o=addr="][..]),
            (&["type=nfs", "device=/x", "o=addr=192.0.2.1"], &[":/exported"]),
            (&["type=ext4"], &["device="]),
            (&["size=1m"], &["unknown option", "type, device and o"]),
        ] {
            create(scene, "bad", options).refused(words);
        }
        let other = ["volume", "create", "--driver", "rexray", "bad"];
        scene.imgtool().args(other).run().code(125).stderr_has("local");
        create(scene, "gone", &["type=ext4", "device=/dev/none-at-all"]).success();
        let bundle = scene.imgtool().args(["bundle", "-v", "gone:/data", NAME]);
        bundle.arg(scene.path("b")).run().refused(&["volume gone", "/dev/none-at-all"]);
        let nfs = ["type=nfs", "device=:/srv", "o=addr=127.0.0.1,vers=4.2,soft,timeo=1,retrans=0"];
        create(scene, "far", &nfs).success();
        let known = fs::read_to_string("/proc/filesystems").unwrap().contains("\tnfs\n");
        let bundle = ["bundle", "--network", "none", "-v", "far:/data", NAME];
        let made = scene.imgtool().args(bundle).arg(scene.path("b")).run().success();
        assert!(known || made.stderr.contains("does not know nfs"), "{made:?}");
        // Nobody serves it, or the kernel has no client.
        super::run(scene, "b").code(1).stderr_has("nfs").stderr_has("/data");
        remove(scene, "b");
        scene.imgtool().args(["volume", "rm", "far", "gone"]).run().success();
    });
}
