//! Containers with ids of their own: what they see as theirs is somebody else's on the host, and what
//! is made of them names the ids that they see.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Image, Scene, load, remove, scene};
use crate::harness::ordinary::{FIRST_SUBID, UID};
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Ordinary, Subids};

const NAME: &str = "e2e.test/userns:1";
const CHANGED: &str = "e2e.test/userns:2";
/// Away from what the tests' ordinary user has.
const FIRST: u32 = 900_000;
const MAP: &str = "0:900000:65536";
const LIST: &str = "ls -ln /srv | tail -n +2 | awk '{print $3 \":\" $4 \" \" $9}'";

fn image() -> Image {
    Image::busybox().layer(Tarball::of([
        Entry::dir("srv").owner(33, 34),
        Entry::file("srv/page", "text\n").mode(0o640).owner(33, 34),
        Entry::dir("data").owner(33, 0),
        Entry::file("data/filled", "by the image\n").owner(33, 34),
    ]))
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (metadata.uid(), metadata.gid())
}

fn bundle(scene: &Scene, flags: &[&str], image: &str, dir: &str, script: &str) {
    super::bundle(
        scene,
        &[&["--network", "none"], flags].concat(),
        image,
        dir,
        &["sh", "-ec", script],
    );
}

/// Packed and run without a user namespace, the changes belong to whom the container saw.
fn commit_shows(scene: &Scene, expected: &str) {
    scene.imgtool().arg("commit").arg(scene.path("b")).arg(CHANGED).run().success();
    bundle(scene, &[], CHANGED, "plain", LIST);
    assert_eq!(super::run(scene, "plain").success().stdout, expected);
    remove(scene, "plain");
}

const CHANGE: &str = "id -u; id -g; cat /proc/self/uid_map; echo more >> /srv/page; echo x > /srv/new; \
                      mkdir /srv/dir; chown 7:8 /srv/dir; touch /etc/hosts";

#[test]
fn mapped_ids_are_the_containers_and_the_disk_keeps_the_images() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let changed = "7:8 dir\n0:0 new\n33:34 page\n";
        for copy in [false, true] {
            let flags: &[&str] =
                if copy { &["--copy", "--uidmap", MAP] } else { &["--uidmap", MAP] };
            bundle(scene, flags, NAME, "b", &format!("{CHANGE}; {LIST}"));
            let rootfs = scene.path("b/rootfs");
            assert_eq!(owner(&rootfs), (FIRST, FIRST));
            assert_eq!(owner(&rootfs.join("srv/page")), (FIRST + 33, FIRST + 34));
            let seen = super::run(scene, "b").success().stdout;
            let lines: Vec<&str> = seen.lines().collect();
            assert_eq!(lines[..2], ["0", "0"], "{seen}");
            let map: Vec<&str> = lines[2].split_whitespace().collect();
            assert_eq!(map, ["0", "900000", "65536"], "{seen}");
            assert_eq!(lines[3..].join("\n") + "\n", changed);
            assert_eq!(owner(&rootfs.join("srv/new")), (FIRST, FIRST));
            assert_eq!(owner(&rootfs.join("srv/dir")), (FIRST + 7, FIRST + 8));
            let diff = scene.imgtool().arg("diff").arg(scene.path("b")).run().success().stdout;
            assert_eq!(diff, "C /srv\nA /srv/dir\nA /srv/new\nC /srv/page\n");
            commit_shows(scene, changed);
            remove(scene, "b");
        }
    });
}

#[test]
fn mapped_bundles_are_copied_exported_squashed_and_mounted_again() {
    scene(|scene| {
        load(scene, &image(), NAME);
        bundle(scene, &["--uidmap", MAP], NAME, "b", CHANGE);
        super::run(scene, "b").success();
        let dir = scene.path("b");
        for verb in ["umount", "mount"] {
            scene.imgtool().arg(verb).arg(&dir).run().success();
        }
        let page = dir.join("rootfs/srv/page");
        assert_eq!(owner(&page), (FIRST + 33, FIRST + 34));

        let (out, given) = (scene.path("out"), scene.path("given"));
        let inside = |name: &str| format!("{}:/srv/{name}", dir.display());
        scene.imgtool().args(["cp", "-a", &inside("page")]).arg(&out).run().success();
        assert_eq!(
            (owner(&out), fs::read_to_string(&out).unwrap()),
            ((33, 34), "text\nmore\n".into())
        );
        fs::write(&given, "g").unwrap();
        std::os::unix::fs::chown(&given, Some(5), Some(6)).unwrap();
        scene.imgtool().args(["cp", "-a"]).arg(&given).arg(inside("kept")).run().success();
        scene.imgtool().arg("cp").arg(&given).arg(inside("roots")).run().success();
        assert_eq!(owner(&dir.join("rootfs/srv/kept")), (FIRST + 5, FIRST + 6));
        assert_eq!(owner(&dir.join("rootfs/srv/roots")), (FIRST, FIRST));

        let archive = scene.path("export.tar");
        scene.imgtool().arg("export").arg(&dir).arg("-o").arg(&archive).run().success();
        let listed = crate::harness::Cmd::line("tar -tv --numeric-owner -f").arg(&archive);
        let listed = listed.run().success().stdout;
        for (owner, name) in [("33/34", "srv/page"), ("7/8", "srv/dir/"), ("5/6", "srv/kept")] {
            let line = listed.lines().find(|line| line.ends_with(name)).unwrap_or_default();
            assert!(line.contains(&format!(" {owner} ")), "{name}: {line:?}");
        }
        scene.imgtool().args(["commit", "--squash"]).arg(&dir).arg(CHANGED).run().success();
        bundle(scene, &[], CHANGED, "plain", LIST);
        let seen = super::run(scene, "plain").success().stdout;
        assert_eq!(seen, "7:8 dir\n5:6 kept\n0:0 new\n33:34 page\n0:0 roots\n");
        remove(scene, "plain");
        remove(scene, "b");
    });
}

#[test]
fn volumes_keep_their_owners_for_containers_with_and_without_maps() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let host = scene.path("host");
        fs::create_dir(&host).unwrap();
        std::os::unix::fs::chown(&host, Some(33), Some(34)).unwrap();
        let bind = format!("{}:/host:idmap", host.display());
        let flags = ["--uidmap", MAP, "--user", "33:34", "-v", "vol:/data", "-v", &bind];
        let script =
            "cat /data/filled; echo x > /data/made; echo y > /host/made; stat -c %u:%g /data/*";
        bundle(scene, &flags, NAME, "b", script);
        let seen = super::run(scene, "b").success().stdout;
        assert_eq!(seen, "by the image\n33:34\n33:34\n");
        assert_eq!(owner(&host.join("made")), (33, 34));
        remove(scene, "b");
        // Another container, whose ids are the host's, finds the same owners.
        bundle(scene, &["-v", "vol:/data"], NAME, "b", "stat -c %u:%g /data /data/*");
        assert_eq!(super::run(scene, "b").success().stdout, "33:0\n33:34\n33:34\n");
        remove(scene, "b");
    });
}

#[test]
fn maps_that_can_t_be_are_refused() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let refused = |flags: &[&str], words: &[&str]| {
            let dir = scene.path("refused");
            let made = scene.imgtool().arg("bundle").args(flags).arg(NAME).arg(&dir);
            made.run().refused(words);
            assert!(!dir.exists());
        };
        refused(&["--copy", "--uidmap", "0:1:9"], &["user 33 is not among the container's ids"]);
        refused(&["--uidmap", "1:1:1"], &["--uidmap", "nothing for 0"]);
        refused(&["--uidmap", "0:1:9", "--uidmap", "5:20:9"], &["overlap"]);
        refused(&["--uidmap", "x"], &["CONTAINER:HOST"]);
        refused(&["--userns", "keep-id"], &["ordinary users", "--uidmap"]);
        refused(&["--userns", "private"], &["--uidmap"]);
        refused(&["--userns", "auto"], &["--userns auto", "--uidmap"]);
        refused(&["--userns", "nomap"], &["--userns nomap", "keep-id"]);
        refused(&["--userns", "pod"], &["host, private or keep-id"]);
        refused(&["--uidmap", MAP, "--user", "70000"], &["70000", "--uidmap"]);
        refused(&["-v", "/tmp:/x:idmap"], &["idmap needs --uidmap"]);
    });
}

/// What an ordinary user's container says.
fn said(user: &Ordinary, flags: &[&str], image: &str, script: &str) -> String {
    let made = user.cmd("imgtool").args(["bundle", "--network", "none"]).args(flags).arg(image);
    made.arg(user.home("b")).args(["--", "sh", "-ec", script]).run().success();
    user.cmd("runtime")
        .args(["run", "--bundle"])
        .arg(user.home("b"))
        .arg("c")
        .run()
        .success()
        .stdout
}

fn remove_users(user: &Ordinary) {
    user.cmd("imgtool").arg("rm").arg(user.home("b")).run().success();
    assert!(!user.home("b").exists());
}

fn with_user(subids: Subids, body: impl FnOnce(&Ordinary)) {
    Ordinary::with(subids, &image(), NAME, body);
}

#[test]
fn rootless_users_keep_their_ids() {
    with_user(Subids::Granted, |user| {
        let shared = user.home("shared");
        let made = user.cmd("mkdir").arg(&shared).run();
        made.success();
        let bind = format!("{}:/shared", shared.display());
        let script = "id -u; id -g; echo x > /shared/made; stat -c %u:%g /shared/made /srv/page /";
        let seen = said(user, &["--userns", "keep-id", "-v", &bind], NAME, script);
        assert_eq!(seen, format!("{UID}\n{UID}\n{UID}:{UID}\n33:34\n0:0\n"));
        assert_eq!(owner(&shared.join("made")), (UID, UID));
        let rootfs = user.home("b/rootfs");
        assert_eq!(owner(&rootfs), (FIRST_SUBID, FIRST_SUBID));
        assert_eq!(owner(&rootfs.join("srv/page")), (FIRST_SUBID + 33, FIRST_SUBID + 34));
        remove_users(user);

        // As the container's root, packed again.
        let flags = ["--userns", "keep-id:uid=7,gid=8", "--user", "0", "-v", "/data"];
        let script = format!("{{ {CHANGE}; }} >/dev/null; stat -c %u:%g /data/filled; {LIST}");
        let seen = said(user, &flags, NAME, &script);
        assert_eq!(seen, "33:34\n7:8 dir\n0:0 new\n33:34 page\n");
        assert_eq!(owner(&user.home("b/rootfs/srv/dir")), (UID, UID));
        user.cmd("imgtool").arg("commit").arg(user.home("b")).arg(CHANGED).run().success();
        remove_users(user);
        assert_eq!(said(user, &[], CHANGED, LIST), "7:8 dir\n0:0 new\n33:34 page\n");
        assert_eq!(owner(&user.home("b/rootfs/srv/dir")), (FIRST_SUBID + 6, FIRST_SUBID + 7));
        remove_users(user);

        let made = user.cmd("imgtool").args(["bundle", "--uidmap", "0:1:70000", NAME]);
        made.arg(user.home("b")).run().refused(&["65537", "they end at 65536"]);
    });
}

#[test]
fn rootless_users_without_further_ids_can_keep_none() {
    with_user(Subids::None, |user| {
        let made = user.cmd("imgtool").args(["bundle", "--userns", "keep-id", NAME]);
        made.arg(user.home("b")).run().refused(&["/etc/subuid", "give you none"]);
        assert!(!user.home("b").exists());
    });
}
