//! Plain trees on a file system whose files can share their bytes.

use crate::harness::command::binary;
use crate::harness::image::Image;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, requires, scene};

const NAME: &str = "e2e.test/shared:latest";
const BYTES: usize = 24 << 20;

/// `$1` is a directory of the scene, `$2` imgtool. The mount is gone with the shell.
const SCRIPT: &str = r#"
truncate -s 256M "$1/disk" && mkfs.btrfs -q "$1/disk" >/dev/null && mkdir "$1/fs" && mount -o loop "$1/disk" "$1/fs"
export IMGTOOL_ROOT="$1/fs/store"
free() { sync -f "$1" && stat -f -c %f "$1"; }
"$2" load -q -i "$1/image.tar"
"$2" bundle NAME "$1/fs/shared" >/dev/null
"$2" bundle --copy NAME "$1/fs/one" >/dev/null
before=$(free "$1/fs")
"$2" bundle --copy NAME "$1/fs/two" >/dev/null
echo "blocks: $((before - $(free "$1/fs")))"
cmp "$1/fs/one/rootfs/data/large" "$1/fs/two/rootfs/data/large"
cd "$1/fs/two/rootfs"
find . -mindepth 1 ! -path './probe' -printf '%p %y %m %U %n %l\n' | sort
getfattr --absolute-names --only-values -n user.e2e data/small; echo
echo "diff: $("$2" diff "$1/fs/two")"
printf x >>data/large
cmp -s "$1/fs/one/rootfs/data/large" data/large && echo 'one file is changed with the other'
"$2" diff "$1/fs/two"
"$2" rm "$1/fs/shared" "$1/fs/one" "$1/fs/two" >/dev/null
"#;

fn image() -> Image {
    let mut noise = 1_u64;
    let bytes: Vec<u8> = (0..BYTES)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()[0]
        })
        .collect();
    Image::probe(&["report"])
        .layer(Tarball::of([
            Entry::dir("data").mode(0o750).owner(5, 6),
            Entry::file("data/large", bytes),
            Entry::hardlink("data/another", "data/large"),
            Entry::file("data/gone", "gone"),
        ]))
        .layer(Tarball::of([
            Entry::file("data/.wh.gone", ""),
            Entry::file("data/small", "small").mode(0o640).owner(7, 8).xattr("user.e2e", b"kept"),
            Entry::symlink("data/link", "small"),
        ]))
}

#[test]
fn copies_share_the_bytes_of_the_layers_where_the_file_system_can() {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.contains("btrfs") || !std::path::Path::new("/dev/loop-control").exists() {
        println!("SKIP: this kernel has no btrfs or no loop devices");
        return;
    }
    requires::program("mkfs.btrfs", "btrfs-progs");
    scene(|scene| {
        let dir = scene.path("shared");
        std::fs::create_dir(&dir).unwrap();
        image().docker_archive(&dir.join("image.tar"), NAME);
        let shell = Cmd::line("unshare --mount --propagation private -- sh -ec");
        let shell = shell.arg(SCRIPT.replace("NAME", NAME)).arg("sh");
        let told = shell.arg(&dir).arg(binary("imgtool")).run().success().stdout;
        let lines: Vec<&str> = told.lines().collect();
        let blocks: u64 = lines[0].strip_prefix("blocks: ").unwrap().parse().unwrap();
        assert!(blocks * 4096 < BYTES as u64 / 4, "{told}");
        for line in [
            "./data d 750 5 1 ",
            "./data/another f 644 0 2 ",
            "./data/large f 644 0 2 ",
            "./data/link l 777 0 1 small",
            "./data/small f 640 7 1 ",
            "kept",
            "diff: ",
        ] {
            assert!(lines.contains(&line), "{line}: {told}");
        }
        assert!(!told.contains("gone") && !told.contains("with the other"), "{told}");
        assert!(told.contains("C /data/large"), "{told}");
    });
}
