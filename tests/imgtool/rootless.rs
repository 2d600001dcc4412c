//! Trees of an ordinary user: with the image's owners where the user has further ids, with one
//! owner where not; made, run, packed and removed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use crate::harness::hostile::{Content, Hostile};
use crate::harness::image::Image;
use crate::harness::ordinary::{FIRST_SUBID, SUBIDS, UID};
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Ordinary, Outcome, Subids, requires, scene};

const NAME: &str = "e2e.test/rootless:latest";

/// The probe, and files that are not root's, in directories that shut others out.
fn image() -> Image {
    Image::probe(&["report"]).layer(Tarball::of([
        Entry::dir("srv").mode(0o700).owner(33, 34),
        Entry::file("srv/page", "text").mode(0o600).owner(33, 34),
        Entry::dir("locked").mode(0o500),
        Entry::file("locked/file", "x").mode(0o000),
        Entry::new(tar::EntryType::Char, "null").device(1, 3),
    ]))
}

/// A user that has loaded the image.
fn with_image(subids: Subids, body: impl FnOnce(&Ordinary)) {
    Ordinary::with(subids, &image(), NAME, body);
}

fn bundle(user: &Ordinary, flags: &[&str], words: &[&str]) -> Outcome {
    let made = user.cmd("imgtool").arg("bundle").args(flags).arg(NAME).arg(user.home("b"));
    if words.is_empty() { made.run() } else { made.arg("--").args(words).run() }
}

fn run(user: &Ordinary) -> Outcome {
    user.cmd("runtime").args(["run", "--bundle"]).arg(user.home("b")).arg("c").run()
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

fn remove(user: &Ordinary) {
    user.cmd("imgtool").arg("rm").arg(user.home("b")).run().success();
    assert!(!user.home("b").exists());
}

#[test]
fn rootless_trees_have_the_owners_of_the_image() {
    with_image(Subids::Granted, |user| {
        user.cmd("imgtool").arg("info").run().success().stdout_has("65537 users");
        let made = bundle(user, &["--user", "33"], &[]).success();
        assert!(!made.stderr.contains("one owner"), "{}", made.stderr);
        let tree = user.home("b/rootfs");
        assert_eq!(owner(&tree), (UID, UID));
        assert_eq!(owner(&tree.join("srv/page")), (FIRST_SUBID + 32, FIRST_SUBID + 33));
        let config = fs::read_to_string(user.home("b/config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let maps = json!([
            { "containerID": 0, "hostID": UID, "size": 1 },
            { "containerID": 1, "hostID": FIRST_SUBID, "size": SUBIDS },
        ]);
        assert_eq!(config["linux"]["uidMappings"], maps);
        let report = run(user).success().json();
        assert_eq!(report["uid"], 33);
        remove(user);
    });
}

#[test]
fn rootless_changes_are_packed_as_the_container_sees_them() {
    with_image(Subids::Granted, |user| {
        bundle(user, &["--user", "33:34"], &["/probe", "append", "/srv/new", "words"]).success();
        run(user).success();
        assert_eq!(owner(&user.home("b/rootfs/srv/new")), (FIRST_SUBID + 32, FIRST_SUBID + 33));
        let name = "e2e.test/changed:latest";
        user.cmd("imgtool").arg("commit").arg(user.home("b")).arg(name).run().success();
        user.cmd("imgtool").arg("bundles").run().success().stdout_has("rootless");
        remove(user);
        let made = user.cmd("imgtool").args(["bundle", "--user", "33", name]);
        made.arg(user.home("b")).args(["--", "/probe", "cat", "/srv/new"]).run().success();
        assert_eq!(run(user).success().stdout, "words\n");
        let stat = fs::symlink_metadata(user.home("b/rootfs/srv/new")).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (FIRST_SUBID + 32, FIRST_SUBID + 33));
        remove(user);
    });
}

#[test]
fn rootless_trees_without_further_ids_have_one_owner_and_say_so() {
    with_image(Subids::None, |user| {
        user.cmd("imgtool").arg("info").run().success().stdout_has("one user and one group");
        let made = bundle(user, &[], &["/probe", "append", "/srv/new", "words"]).success();
        made.stderr_has("all files and processes get one owner, you: /etc/subuid has no range for");
        assert_eq!(owner(&user.home("b/rootfs/srv/page")), (UID, UID));
        run(user).success();
        let name = "e2e.test/changed:latest";
        user.cmd("imgtool").arg("commit").arg(user.home("b")).arg(name).run().success();
        remove(user);
        // What the container made is root's, and not that of a number that says nothing elsewhere; what
        // the image gave to others stays theirs.
        let archive = user.home("changed.tar");
        user.cmd("imgtool").args(["save", name, "-o"]).arg(&archive).run().success();
        let listed = crate::harness::Cmd::new("sh").args([
            "-ec",
            "tar -xOf \"$1\" manifest.json | jq -r '.[0].Layers[-1]' >\"$1.name\"
             tar -xOf \"$1\" \"$(cat \"$1.name\")\" | tar -tvz --numeric-owner",
            "sh",
        ]);
        let listed = listed.arg(&archive).run().success().stdout;
        let line = listed.lines().find(|line| line.ends_with("srv/new")).expect("the new file");
        assert!(line.contains(" 0/0 "), "{listed}");
        let line = listed.lines().find(|line| line.ends_with("srv/")).expect("the directory");
        assert!(line.contains(" 33/34 "), "{listed}");
        assert!(!listed.contains("srv/page"), "{listed}");
        // Somebody else's processes take further ids.
        bundle(user, &["--user", "33"], &[]).refused(&["user \"33\"", "/etc/subuid"]);
        assert!(!user.home("b").exists());
    });
}

#[test]
fn rootless_pulled_image_becomes_a_bundle_that_runs() {
    requires::program("newuidmap", "uidmap");
    for (subids, page) in
        [(Subids::Granted, (FIRST_SUBID + 32, FIRST_SUBID + 33)), (Subids::None, (UID, UID))]
    {
        scene(|scene| {
            let user = Ordinary::new(scene, subids);
            let content = Content::new(image().layers());
            let registry = Hostile::start(move |request, stream| content.answer(request, stream));
            let name = registry.name();
            user.cmd("imgtool").args(["pull", "--quiet", &name]).run().success();
            let made = user.cmd("imgtool").args(["bundle", &name]).arg(user.home("b"));
            made.args(["--", "/probe", "cat", "/srv/page"]).run().success();
            assert_eq!(owner(&user.home("b/rootfs/srv/page")), page);
            assert_eq!(run(&user).success().stdout, "text");
            user.cmd("imgtool").arg("verify").run().success();
            remove(&user);
        });
    }
}

#[test]
fn rootless_container_with_rm_takes_its_tree_along() {
    for subids in [Subids::Granted, Subids::None] {
        with_image(subids, |user| {
            bundle(user, &["--rm"], &["/probe", "append", "/srv/new", "words"]).success();
            run(user).success();
            assert!(!user.home("b").exists());
        });
    }
}

#[test]
fn rootless_mapping_that_fails_falls_back_to_one_owner() {
    with_image(Subids::Granted, |user| {
        // The caller's passwd has no such user, so newuidmap refuses.
        let path = "PATH=/usr/bin:/bin";
        let program = user.binary("imgtool");
        let made = user.cmd("unshare").args(["--user", "--map-current-user", "env", path]);
        let made = made.arg(&program).args(["bundle", NAME]).arg(user.home("b")).run().success();
        made.stderr_has("one owner, you: newuidmap");
        remove(user);
    });
}
