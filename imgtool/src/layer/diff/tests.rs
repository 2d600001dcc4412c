use std::fs as std_fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::layer::extract::{Target, extract};
use crate::layer::lower::{Lowers, make_root, mount_writable, open_directory};
use crate::layer::record::{self, Record};
use crate::layer::tar::Reader;

/// An image's tree of one layer, made in any number of places.
fn original(path: &Path) -> OwnedFd {
    let root = make_root(path).unwrap();
    let mut writer = Writer::new(Vec::new());
    let mut add = |path: &str, kind: Kind, contents: &str| {
        let mut entry = Entry::new(path.as_bytes().to_vec(), kind, 0o755);
        entry.size = contents.len() as u64;
        entry.mtime.seconds = 1_600_000_000;
        if kind == Kind::HardLink {
            entry.link = contents.as_bytes().to_vec();
        }
        writer.entry(&entry).unwrap();
        if kind == Kind::File {
            writer.contents(contents.as_bytes()).unwrap();
        }
    };
    add("./", Kind::Directory, "");
    for directory in ["keep", "gone", "gone/sub", "again", "etc", "to-file", "links"] {
        add(directory, Kind::Directory, "");
    }
    for file in ["keep/a", "keep/b", "gone/sub/x", "again/old", "to-file/y", "to-dir", "links/1"] {
        add(file, Kind::File, file);
    }
    add("links/2", Kind::HardLink, "links/1");
    let bytes = writer.finish().unwrap();
    extract(&mut &bytes[..], root.as_fd(), Target::Flat).unwrap();
    root
}

/// What a container does in its root, by paths that need no mount table.
fn change(root: &OwnedFd) {
    let base = PathBuf::from(std::ffi::OsStr::from_bytes(&rooted::proc_path(root.as_fd(), b"")));
    let path = |name: &str| base.join(name);
    std_fs::remove_dir_all(path("gone")).unwrap();
    std_fs::remove_dir_all(path("again")).unwrap();
    std_fs::create_dir(path("again")).unwrap();
    std_fs::write(path("again/new"), "new").unwrap();
    std_fs::write(path("keep/b"), "changed").unwrap();
    std_fs::set_permissions(path("keep/b"), std_fs::Permissions::from_mode(0o600)).unwrap();
    std_fs::remove_dir_all(path("to-file")).unwrap();
    std_fs::write(path("to-file"), "file").unwrap();
    std_fs::remove_file(path("to-dir")).unwrap();
    std_fs::create_dir(path("to-dir")).unwrap();
    std_fs::write(path("to-dir/z"), "z").unwrap();
    symlink("/nowhere", path("link")).unwrap();
    std_fs::write(path("pair"), "pair").unwrap();
    std_fs::hard_link(path("pair"), path("pair2")).unwrap();
    // What a runtime leaves behind.
    std_fs::create_dir_all(path("data/volume")).unwrap();
    std_fs::create_dir(path("proc")).unwrap();
    std_fs::write(path("etc/hosts"), "").unwrap();
}

fn mount_points() -> BTreeSet<Vec<u8>> {
    [&b"data/volume"[..], b"proc", b"etc/hosts"].map(<[u8]>::to_vec).into()
}

fn difference(root: &OwnedFd, baseline: &Baseline<'_>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    diff(root.as_fd(), baseline, &mount_points(), None, &mut writer).unwrap();
    writer.finish().unwrap()
}

fn entries(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive);
    let mut paths = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut text = String::from_utf8(entry.path).unwrap();
        if !entry.link.is_empty() {
            text += &format!(" -> {}", String::from_utf8(entry.link).unwrap());
        }
        paths.push(text);
    }
    paths
}

/// The tree as a record without inodes and their times.
fn listing(root: &OwnedFd) -> Vec<String> {
    let mut text = Vec::new();
    record::write(root.as_fd(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let without = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields.len() < 12 {
            String::new()
        } else {
            [&fields[..7], &fields[9..]].concat().join(" ")
        }
    };
    let is_stub = |line: &String| {
        ["/data", "/data/volume", "/proc", "/etc/hosts", "/etc", "/"]
            .iter()
            .any(|stub| line.ends_with(&format!(" {stub} ")))
    };
    text.lines().map(without).filter(|line| !is_stub(line)).collect()
}

#[test]
fn a_plain_tree_is_packed_by_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let tree = original(&dir.path().join("tree"));
    let mut text = Vec::new();
    record::write(tree.as_fd(), &mut text).unwrap();
    let record = Record::read(&text[..]).unwrap();
    let baseline = Baseline::Record(&record);
    assert_eq!(entries(&difference(&tree, &baseline)), [""; 0]);
    change(&tree);
    let archive = difference(&tree, &baseline);
    assert_eq!(
        entries(&archive),
        [
            "./",
            "again/",
            "again/new",
            "again/.wh.old",
            ".wh.gone",
            "keep/",
            "keep/b",
            "link -> /nowhere",
            "pair",
            "pair2 -> pair",
            "to-dir/",
            "to-dir/z",
            "to-file",
        ]
    );
    assert_eq!(archive, difference(&tree, &baseline));
    let copy = original(&dir.path().join("copy"));
    extract(&mut &archive[..], copy.as_fd(), Target::Flat).unwrap();
    assert_eq!(listing(&copy), listing(&tree));
}

#[test]
fn an_upper_directory_is_packed_with_whiteouts() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| dir.path().join(name);
    let lower = original(&path("lower"));
    let upper = make_root(&path("upper")).unwrap();
    crate::layer::metadata::copy_directory(lower.as_fd(), upper.as_fd()).unwrap();
    std_fs::create_dir(path("work")).unwrap();
    let lowers = [path("lower")];
    let merged = mount_writable(&lowers, &path("upper"), &path("work")).unwrap();
    let layers = Lowers::open(&lowers).unwrap();
    let baseline = Baseline::Layers(&layers);
    assert_eq!(entries(&difference(&upper, &baseline)), [""; 0]);
    change(&merged);
    let archive = difference(&upper, &baseline);
    assert_eq!(
        entries(&archive),
        [
            "./",
            "again/",
            "again/.wh..wh..opq",
            "again/new",
            ".wh.gone",
            "keep/",
            "keep/b",
            "link -> /nowhere",
            "pair",
            "pair2 -> pair",
            "to-dir/",
            "to-dir/z",
            "to-file",
        ]
    );
    let copy = original(&path("copy"));
    extract(&mut &archive[..], copy.as_fd(), Target::Flat).unwrap();
    assert_eq!(listing(&copy), listing(&merged));

    let second = make_root(&path("second")).unwrap();
    let summary = extract(&mut &archive[..], second.as_fd(), Target::Overlay).unwrap();
    assert!(layers.complete(second.as_fd(), &summary).unwrap());
    for name in ["upper2", "work2"] {
        std_fs::create_dir(path(name)).unwrap();
    }
    let again =
        mount_writable(&[path("lower"), path("second")], &path("upper2"), &path("work2")).unwrap();
    assert_eq!(listing(&again), listing(&merged));
    drop(open_directory(&path("second")).unwrap());
}
