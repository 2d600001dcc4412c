//! cp: files between the host and a bundle, by docker's rules.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{Image, Scene, bundle, load, remove, scene};
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, Outcome};

const NAME: &str = "e2e.test/cp:latest";

fn image() -> Image {
    Image::probe(&["pause"]).layer(Tarball::of([
        Entry::dir("dir").mode(0o750),
        Entry::file("dir/file", "from the image").mode(0o640).owner(3, 4),
        Entry::hardlink("dir/again", "dir/file"),
        Entry::dir("dir/sub"),
        Entry::symlink("dir/sub/link", "../file"),
        Entry::dir("empty"),
        Entry::file("plain", "plain"),
        Entry::symlink("to-dir", "/dir"),
        Entry::symlink("to-plain", "plain"),
        Entry::symlink("outside", "/../../../../../../etc"),
        Entry::symlink("up", "../../../.."),
    ]))
}

fn cp(scene: &Scene, from: &str, to: &str) -> Outcome {
    scene.imgtool().args(["cp", from, to]).run()
}

fn at(dir: &Path, path: &str) -> String {
    format!("{}:{path}", dir.display())
}

fn host(scene: &Scene, path: &str) -> String {
    scene.path(path).display().to_string()
}

/// Files on the host to copy from.
fn prepare(scene: &Scene) -> PathBuf {
    let host = scene.path("host");
    fs::create_dir_all(host.join("tree/sub")).unwrap();
    fs::write(host.join("tree/one"), "1").unwrap();
    fs::write(host.join("tree/sub/two"), "2").unwrap();
    fs::set_permissions(host.join("tree/one"), fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::chown(host.join("tree/one"), Some(1234), Some(4321)).unwrap();
    symlink("one", host.join("tree/link")).unwrap();
    fs::write(host.join("with:colon"), "colon").unwrap();
    host
}

#[test]
fn into_a_bundle_by_the_rules_of_docker() {
    scene(|scene| {
        load(scene, &image(), NAME);
        prepare(scene);
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let dir = bundle(scene, flags, NAME, "b", &[]);
            let root = dir.join("rootfs");
            let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
            let tree = host(scene, "host/tree");
            let one = host(scene, "host/tree/one");

            cp(scene, &one, &at(&dir, "/new")).success();
            assert_eq!(read("new"), "1");
            let meta = fs::metadata(root.join("new")).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 0, 0o604));
            let kept = scene.imgtool().args(["cp", "-a", &one, &at(&dir, "empty/")]).run();
            kept.success();
            let meta = fs::metadata(root.join("empty/one")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
            // A file over a file, a directory into one that exists, and as one that does not.
            cp(scene, &one, &at(&dir, "/plain")).success();
            assert_eq!(read("plain"), "1");
            cp(scene, &tree, &at(&dir, "/dir")).success();
            assert_eq!(read("dir/tree/sub/two"), "2");
            cp(scene, &tree, &at(&dir, "/dir/named")).success();
            assert_eq!(read("dir/named/one"), "1");
            cp(scene, &format!("{tree}/."), &at(&dir, "/dir")).success();
            assert_eq!(read("dir/sub/two"), "2");
            assert_eq!(read("dir/sub/link"), "from the image");
            let mode = fs::metadata(root.join("dir")).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o750, "copying what is in a directory changed another one");
            // Links: themselves, followed on demand, and always at the destination.
            cp(scene, &format!("{tree}/link"), &at(&dir, "/a-link")).success();
            assert_eq!(fs::read_link(root.join("a-link")).unwrap(), Path::new("one"));
            let link = format!("{tree}/link");
            scene.imgtool().args(["cp", "-L", &link, &at(&dir, "/a-file")]).run().success();
            assert!(fs::symlink_metadata(root.join("a-file")).unwrap().is_file());
            cp(scene, &one, &at(&dir, "/to-dir")).success();
            assert_eq!(read("dir/one"), "1");
            // A colon in a path of the host's is no bundle's.
            let colon = scene.imgtool().dir(&scene.path("host"));
            colon.args(["cp", "./with:colon", &at(&dir, "/")]).run().success();
            assert_eq!(read("with:colon"), "colon");

            cp(scene, &tree, &at(&dir, "/plain")).refused(&["a directory to a file"]);
            cp(scene, &one, &at(&dir, "/nowhere/")).refused(&["no such directory"]);
            cp(scene, &one, &at(&dir, "/no/where")).refused(&["no such file or directory"]);
            cp(scene, &one, &at(&dir, "/plain/")).refused(&["not a directory"]);
            cp(scene, &format!("{one}x"), &at(&dir, "/")).refused(&["no such file"]);
            cp(scene, &at(&dir, "/plain"), &at(&dir, "/x")).refused(&["imgtool cp"]);
            cp(scene, &one, &host(scene, "x")).refused(&["BUNDLE:PATH"]);
            fs::write(root.join("dir/tree/sub/two2"), "").unwrap();
            fs::create_dir(root.join("clash")).unwrap();
            fs::create_dir(root.join("clash/one")).unwrap();
            cp(scene, &one, &at(&dir, "/clash")).refused(&["a directory"]);
            assert!(root.join("clash/one").is_dir());
            remove(scene, "b");
        }
    });
}

#[test]
fn out_of_a_bundle_by_the_rules_of_docker() {
    scene(|scene| {
        load(scene, &image(), NAME);
        for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
            let dir = bundle(scene, flags, NAME, "b", &[]);
            let out = scene.path("out");
            fs::create_dir(&out).unwrap();
            let to = host(scene, "out");
            let read = |path: &str| fs::read_to_string(out.join(path)).unwrap();
            // After a reboot nothing is mounted.
            scene.imgtool().arg("umount").arg(&dir).run().success();
            cp(scene, &at(&dir, "/dir"), &to).success();
            assert_eq!(read("dir/file"), "from the image");
            let inode = |path: &str| fs::metadata(out.join(path)).unwrap().ino();
            assert_eq!(inode("dir/file"), inode("dir/again"), "links are copies");
            let meta = fs::metadata(out.join("dir/file")).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 0, 0o640));
            cp(scene, &at(&dir, "dir/."), &host(scene, "out/contents")).success();
            assert_eq!(
                fs::read_link(out.join("contents/sub/link")).unwrap().to_str(),
                Some("../file")
            );
            cp(scene, &at(&dir, "/to-plain"), &to).success();
            assert_eq!(fs::read_link(out.join("to-plain")).unwrap(), Path::new("plain"));
            let follow = scene.imgtool().args(["cp", "-L", &at(&dir, "/to-plain")]);
            follow.arg(out.join("followed")).run().success();
            assert_eq!(read("followed"), "plain");
            scene.imgtool().args(["cp", "-a", &at(&dir, "dir/file")]).arg(&out).run().success();
            let meta = fs::metadata(out.join("file")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (3, 4));

            // As an archive; and an archive back.
            let listed = "imgtool cp \"$0\" - | tar --list --verbose --numeric-owner";
            let path = scene.path("bin").display().to_string();
            fs::create_dir(&path).unwrap();
            symlink(crate::harness::command::binary("imgtool"), scene.path("bin/imgtool")).unwrap();
            let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());
            let shell = |script: &str, word: &str| {
                let cmd = Cmd::new("sh").args(["-c", script, word]);
                cmd.env("PATH", &path).env("IMGTOOL_ROOT", scene.store()).run()
            };
            let listed = shell(listed, &at(&dir, "/dir")).success();
            listed.stdout_has("3/4").stdout_has("dir/sub/link -> ../file");
            let back = "tar --create --file - --directory /etc passwd | imgtool cp - \"$0\"";
            shell(back, &at(&dir, "/empty")).success();
            assert!(dir.join("rootfs/empty/passwd").exists());
            shell(back, &at(&dir, "/plain")).refused(&["not a directory"]);
            let again = "imgtool cp \"$0:/dir\" - | imgtool cp - \"$0:/empty\"";
            shell(again, &dir.display().to_string()).success();
            assert!(dir.join("rootfs/empty/dir/sub").is_dir());
            remove(scene, "b");
            fs::remove_dir_all(&out).unwrap();
            fs::remove_dir_all(scene.path("bin")).unwrap();
        }
    });
}

/// Whatever links a container leaves, a copy stays beneath its root.
#[test]
fn no_link_leads_out_of_the_bundle() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let host_file = prepare(scene).join("tree/one").display().to_string();
        let dir = bundle(scene, &["--network", "none"], NAME, "b", &[]);
        let root = dir.join("rootfs");
        cp(scene, &host_file, &at(&dir, "/outside/new")).success();
        assert_eq!(fs::read_to_string(root.join("etc/new")).unwrap(), "1");
        assert!(!Path::new("/etc/new").exists());
        for path in ["/up", "/up/", "/up/.", "/up/../.."] {
            cp(scene, &host_file, &at(&dir, path)).success();
            assert!(root.join("one").exists(), "{path}");
            fs::remove_file(root.join("one")).unwrap();
        }
        let secret = scene.path("secret");
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, root.join("thief")).unwrap();
        let thief = scene.imgtool().args(["cp", "-L", &at(&dir, "/thief"), "-"]).run();
        thief.refused(&["no such file"]);
        symlink("loop", root.join("loop")).unwrap();
        cp(scene, &host_file, &at(&dir, "/loop")).refused(&["too many links"]);
        // A device that overlayfs would take for the lack of a file.
        let hider = Tarball::of([Entry::new(tar::EntryType::Char, "probe").device(0, 0)]);
        let hide = scene.imgtool().args(["cp", "-", &at(&dir, "/")]).stdin(hider.bytes()).run();
        hide.refused(&["probe"]);
        let marker = Tarball::of([Entry::file(".wh.probe", "no marker")]);
        let mark = scene.imgtool().args(["cp", "-", &at(&dir, "/")]).stdin(marker.bytes()).run();
        mark.success();
        assert!(root.join("probe").exists() && root.join(".wh.probe").exists());
        fs::remove_file(root.join(".wh.probe")).unwrap();
        remove(scene, "b");
    });
}

/// In a container that runs, a copy goes where the container itself would see it: into its volumes
/// and temporary file systems too.
#[test]
fn a_running_container_sees_what_is_copied_wherever_it_goes() {
    scene(|scene| {
        load(scene, &image(), NAME);
        let host = prepare(scene);
        let one = host.join("tree/one").display().to_string();
        let volume = format!("{}:/volume", host.join("tree/sub").display());
        let flags = ["--network", "none", "-v", &volume];
        let dir = bundle(scene, &flags, NAME, "b", &[]);
        cp(scene, &one, &at(&dir, "/volume/x")).refused(&["/volume", "tree/sub"]);
        let id = scene.id("running");
        scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir).arg(&id).run().success();
        for path in ["/volume/x", "/dev/shm/x", "/dir/x"] {
            scene.imgtool().args(["cp", &one, &format!("{id}:{path}")]).run().success();
            let seen = scene.runtime().args(["exec", &id, "/probe", "cat", path]).run();
            assert_eq!(seen.success().stdout, "1", "{path}");
        }
        assert_eq!(fs::read_to_string(host.join("tree/sub/x")).unwrap(), "1");
        let out = scene.path("status").display().to_string();
        scene.imgtool().args(["cp", &format!("{id}:/volume"), &out]).run().success();
        assert_eq!(fs::read_to_string(scene.path("status/x")).unwrap(), "1");
        scene.runtime().args(["delete", "--force", &id]).run().success();
        remove(scene, "b");
    });
}
