mod below;

use std::fs as std_fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::layer::tar::{Time, Writer};

struct Tree {
    _dir: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

/// An empty root beside a directory that must stay as it is.
fn tree() -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    std_fs::create_dir(&root).unwrap();
    std_fs::create_dir(&outside).unwrap();
    std_fs::write(outside.join("secret"), "secret").unwrap();
    Tree { _dir: dir, root, outside }
}

impl Tree {
    fn root(&self) -> OwnedFd {
        fs::open(&self.root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn apply(&self, target: Target, entries: &[Entry]) -> Result<Summary> {
        let bytes = archive(entries);
        extract(&mut &bytes[..], self.root().as_fd(), target)
    }

    fn flat(&self, entries: &[Entry]) {
        self.apply(Target::Flat, entries).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        walk(&self.root, "", &mut names);
        names
    }

    fn assert_outside_untouched(&self) {
        let names: Vec<_> = std_fs::read_dir(&self.outside).unwrap().collect();
        assert_eq!(names.len(), 1);
        let secret = self.outside.join("secret");
        assert_eq!(std_fs::read(&secret).unwrap(), b"secret");
        assert_eq!(std_fs::metadata(&secret).unwrap().nlink(), 1);
        assert_eq!(std_fs::metadata(&self.outside).unwrap().mode() & 0o777, 0o755);
    }
}

fn walk(directory: &Path, prefix: &str, names: &mut Vec<String>) {
    let mut entries: Vec<_> = std_fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std_fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        names.push(name.clone());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), &format!("{name}/"), names);
        }
    }
}

/// Files hold their own name.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        if entry.kind == Kind::File && entry.size > 0 {
            writer.contents(&entry.path).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn file(path: &str) -> Entry {
    let mut entry = Entry::new(path.as_bytes().to_vec(), Kind::File, 0o644);
    entry.size = path.len() as u64;
    entry
}

fn dir(path: &str) -> Entry {
    Entry::new(path.as_bytes().to_vec(), Kind::Directory, 0o755)
}

fn marker(path: &str) -> Entry {
    Entry::new(path.as_bytes().to_vec(), Kind::File, 0)
}

fn link(kind: Kind, path: &str, target: &str) -> Entry {
    let mut entry = Entry::new(path.as_bytes().to_vec(), kind, 0o777);
    entry.link = target.as_bytes().to_vec();
    entry
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn no_entry_leads_out_of_the_root() {
    let outside = |tree: &Tree| tree.outside.to_str().unwrap().to_owned();
    type Attack = fn(&str) -> Vec<Entry>;
    let attacks: [(&str, Attack); 11] = [
        ("file through a link", |out| vec![link(Kind::Symlink, "d", out), file("d/pwn")]),
        ("file through a climbing link", |_| {
            vec![link(Kind::Symlink, "d", "../outside"), file("d/pwn")]
        }),
        ("climbing name", |_| vec![file("../outside/pwn")]),
        ("hard link by a climbing name", |_| vec![link(Kind::HardLink, "h", "../outside/secret")]),
        ("hard link through a link", |out| {
            vec![link(Kind::Symlink, "d", out), link(Kind::HardLink, "h", "d/secret")]
        }),
        ("root as a link", |out| vec![link(Kind::Symlink, ".", out)]),
        ("root as a link by a slash", |out| vec![link(Kind::Symlink, "/", out)]),
        ("whiteout of nothing", |_| vec![marker("e/.wh...")]),
        ("device as a directory", |_| {
            vec![
                Entry::new(b"p".to_vec(), Kind::Fifo, 0o666),
                link(Kind::HardLink, "x", "p/../../outside/secret"),
            ]
        }),
        ("links in a circle", |_| {
            vec![link(Kind::Symlink, "a", "b"), link(Kind::Symlink, "b", "a"), file("a/pwn")]
        }),
        ("path too long", |_| vec![file(&"d/".repeat(4000))]),
    ];
    for (name, attack) in attacks {
        let tree = tree();
        let result = tree.apply(Target::Flat, &attack(&outside(&tree)));
        assert!(result.is_err(), "{name}");
        tree.assert_outside_untouched();
    }
}

#[test]
fn whiteouts_and_metadata_stay_in_the_root() {
    let tree = tree();
    symlink(&tree.outside, tree.root.join("d")).unwrap();
    tree.flat(&[marker("d/.wh.secret"), marker("d/.wh..wh..opq")]);
    tree.assert_outside_untouched();
    let mut wide = dir("d");
    wide.mode = 0o777;
    wide.xattrs = vec![(b"user.a".to_vec(), b"b".to_vec())];
    tree.flat(&[wide]);
    tree.assert_outside_untouched();
    assert!(std_fs::symlink_metadata(tree.root.join("d")).unwrap().is_dir());
}

#[test]
fn an_entry_replaces_what_is_there_and_never_writes_through_it() {
    let tree = tree();
    symlink(tree.outside.join("secret"), tree.root.join("link")).unwrap();
    std_fs::write(tree.root.join("one"), "shared").unwrap();
    std_fs::hard_link(tree.root.join("one"), tree.root.join("two")).unwrap();
    tree.flat(&[
        file("link"),
        file("one"),
        dir("x"),
        file("x/y"),
        file("x"),
        dir("x"),
        file("x/z"),
    ]);
    tree.assert_outside_untouched();
    assert_eq!(std_fs::read(tree.root.join("two")).unwrap(), b"shared");
    assert_eq!(tree.names(), ["link", "one", "two", "x", "x/z"]);
}

#[test]
fn links_inside_the_root_are_followed_for_parents() {
    let tree = tree();
    tree.flat(&[dir("usr"), dir("usr/lib"), link(Kind::Symlink, "lib", "/usr/lib"), file("lib/a")]);
    tree.flat(&[file("lib/b"), marker("lib/.wh.a"), link(Kind::HardLink, "c", "lib/b")]);
    assert_eq!(tree.names(), ["c", "lib", "usr", "usr/lib", "usr/lib/b"]);
}

#[test]
fn whiteouts_spare_their_own_layer_in_any_order() {
    let lower = [dir("d"), file("d/old"), dir("d/sub"), file("d/sub/old"), file("f"), dir("e")];
    let upper = [file("d/sub/new"), file("d/mine"), dir("d/made"), file("d/made/x"), file("f")];
    let orders: [fn(&mut Vec<Entry>, Entry); 2] =
        [|entries, marker| entries.insert(0, marker), |entries, marker| entries.push(marker)];
    for insert in orders {
        for hidden in ["d/.wh..wh..opq", ".wh.d"] {
            let tree = tree();
            tree.flat(&lower);
            let mut entries = upper.to_vec();
            insert(&mut entries, marker(hidden));
            insert(&mut entries, marker(".wh.f"));
            insert(&mut entries, marker(".wh.e"));
            tree.flat(&entries);
            let expected = ["d", "d/made", "d/made/x", "d/mine", "d/sub", "d/sub/new", "f"];
            assert_eq!(tree.names(), expected, "{hidden}");
        }
    }
}

#[test]
fn directory_times_outlive_their_entries() {
    let at = |mut entry: Entry, seconds: i64| {
        entry.mtime = Time { seconds, nanoseconds: 123_456_789 };
        entry
    };
    let tree = tree();
    tree.flat(&[at(dir("a"), 1000), at(dir("a/b"), 2000), at(file("a/b/c"), 3000), file("i/j")]);
    tree.flat(&[at(file("a/b/new"), 4000), marker("a/b/.wh.c")]);
    let of = |path: &str| {
        let metadata = std_fs::metadata(tree.root.join(path)).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!(of("a"), (1000, 123_456_789));
    assert_eq!(of("a/b"), (2000, 123_456_789));
    assert_eq!(of("a/b/new"), (4000, 123_456_789));
    assert_eq!(of("i"), (0, 0));
}

#[test]
fn setuid_and_attributes_survive_the_change_of_owner() {
    if !is_root() {
        return;
    }
    let mut entry = file("ping");
    entry.mode = 0o4755;
    entry.uid = 7;
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    entry.xattrs = vec![
        (b"security.capability".to_vec(), capability.to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"user.bin".to_vec(), b"a\n\0b".to_vec()),
    ];
    let tree = tree();
    tree.flat(&[entry.clone()]);
    let metadata = std_fs::metadata(tree.root.join("ping")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o4755, 7));
    let root = tree.root();
    let kept = Place { parent: root.as_fd(), name: b"ping" }.xattr_names().unwrap();
    assert!(!kept.contains(&b"trusted.overlay.redirect".to_vec()));
    let mut xattrs = Place { parent: root.as_fd(), name: b"ping" }.xattrs().unwrap();
    xattrs.sort();
    assert_eq!(xattrs, [entry.xattrs[0].clone(), entry.xattrs[2].clone()]);
}

#[test]
fn an_overlay_layer_keeps_whiteouts_as_records() {
    if !is_root() {
        return;
    }
    let tree = tree();
    let entries = [
        marker(".wh.gone"),
        dir("d"),
        marker("d/.wh..wh..opq"),
        file("mine"),
        marker(".wh.mine"),
        marker(".wh.again"),
        file("again/x"),
    ];
    let summary = tree.apply(Target::Overlay, &entries).unwrap();
    let root = tree.root();
    let opaque = |name: &str| {
        let path = rooted::proc_path(root.as_fd(), name.as_bytes());
        let mut value = [0; 1];
        fs::lgetxattr(path, whiteout::opaque_xattr(), &mut value[..]).is_ok()
    };
    assert_eq!(tree.names(), ["again", "again/x", "d", "gone", "mine"]);
    assert!(whiteout::is_whiteout(&rooted::stat(root.as_fd(), b"gone").unwrap()));
    assert!(opaque("d") && opaque("again"));
    assert_eq!(std_fs::read(tree.root.join("mine")).unwrap(), b"mine");
    assert_eq!(summary.implicit, BTreeSet::from([b"".to_vec(), b"again".to_vec()]));
}

#[test]
fn an_overlay_layer_tells_when_it_needs_lower_ones() {
    let cases = [
        vec![link(Kind::HardLink, "h", "lower/file")],
        vec![link(Kind::Symlink, "lib", "usr/lib"), file("lib/x")],
    ];
    for entries in cases {
        let error = tree().apply(Target::Overlay, &entries).unwrap_err();
        assert!(error.downcast_ref::<NeedsLower>().is_some(), "{error:#}");
    }
}
