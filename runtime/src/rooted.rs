//! The only way to a path inside a container's root: resolved by the kernel beneath a descriptor of
//! that root, so that no symlink, `..` or race in it can lead out.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many symlinks as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// openat2 gives up with EAGAIN when it races with a rename anywhere; the kernel says: try again.
const MAX_RACES: usize = 128;

/// The root directory of a container.
pub(crate) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Takes the descriptor of a directory for the root.
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Root(directory)
    }

    /// Opens an existing path; symlinks in it are followed within the root.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path, flags, ResolveFlags::IN_ROOT)
    }

    /// Opens an existing path that has no symlink in it.
    pub(crate) fn open_no_symlinks(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    /// Where in the root an existing path leads.
    pub(crate) fn name_of(&self, path: &Path) -> Result<PathBuf, Errno> {
        let name = |descriptor: BorrowedFd| {
            let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
            let name = rustix::fs::readlink(link, Vec::new())?;
            Ok(PathBuf::from(OsStr::from_bytes(name.as_bytes())))
        };
        let found = name(self.open(path, OFlags::PATH)?.as_fd())?;
        let root = name(self.as_fd())?;
        found.strip_prefix(root).map(Path::to_owned).map_err(|_| Errno::NOENT)
    }

    fn open_with(
        &self,
        path: &Path,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        open_beneath(self.as_fd(), path, flags, Mode::empty(), resolve)
    }

    /// A handle on the directory at `path`, made with all its parents where missing.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => self.make(path, Leaf::Directory),
            opened => opened.with_context(|| format!("open {}", path.display())),
        }
    }

    /// A handle on the file at `path`, made empty with all its parents where missing.
    pub(crate) fn file(&self, path: &Path) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => self.make(path, Leaf::File),
            opened => opened.with_context(|| format!("open {}", path.display())),
        }
    }

    /// The directory of `path`, made where missing, and the last part of `path`.
    pub(crate) fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p Path)> {
        let Some(name) = path.file_name() else { bail!("{} has no name", path.display()) };
        let parent = path.parent().unwrap_or(Path::new("."));
        Ok((self.directory(parent)?, Path::new(name)))
    }

    /// Walks down by descriptors. Where a part is missing it is made in the directory just opened,
    /// and from there on nothing but what we made ourselves is entered.
    fn make(&self, path: &Path, leaf: Leaf) -> Result<OwnedFd> {
        let mut wanted = clean(path);
        for _ in 0..MAX_LINKS {
            match self.make_once(&wanted, leaf)? {
                Made::Handle(handle) => return Ok(handle),
                Made::DanglingLink(target) => wanted = clean(&target),
            }
        }
        Err(Errno::LOOP).with_context(|| format!("mkdir {}", path.display()))
    }

    fn make_once(&self, path: &Path, leaf: Leaf) -> Result<Made> {
        let mut handle =
            self.open(Path::new("."), OFlags::PATH | OFlags::DIRECTORY).context("open the root")?;
        let mut walked = PathBuf::new();
        let parts: Vec<&OsStr> = path.iter().collect();
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let next = walked.join(part);
            let opened = self.open(&next, OFlags::PATH);
            handle = match opened {
                Ok(opened) => opened,
                Err(Errno::NOENT) => {
                    let kind = if last { leaf } else { Leaf::Directory };
                    match make_entry(handle.as_fd(), Path::new(part), kind) {
                        Ok(made) => made,
                        // A symlink to nothing stands there: what it names is what is wanted.
                        Err(Errno::EXIST) => {
                            let link = rustix::fs::readlinkat(&handle, *part, Vec::new())
                                .with_context(|| format!("mkdir {}", next.display()))?;
                            let target = Path::new(OsStr::from_bytes(link.as_bytes()));
                            let rest: PathBuf = parts[index + 1..].iter().collect();
                            return Ok(Made::DanglingLink(walked.join(target).join(rest)));
                        }
                        Err(error) => {
                            return Err(error).with_context(|| format!("mkdir {}", next.display()));
                        }
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("open {}", next.display()));
                }
            };
            walked = next;
        }
        Ok(Made::Handle(handle))
    }
}

#[derive(Clone, Copy)]
enum Leaf {
    Directory,
    File,
}

enum Made {
    Handle(OwnedFd),
    DanglingLink(PathBuf),
}

fn make_entry(parent: BorrowedFd, name: &Path, leaf: Leaf) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match leaf {
        Leaf::Directory => {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            open_beneath(parent, name, flags, Mode::empty(), resolve)
        }
        Leaf::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NONBLOCK;
            open_beneath(parent, name, flags, Mode::from_raw_mode(0o644), resolve)?;
            open_beneath(parent, name, OFlags::PATH, Mode::empty(), resolve)
        }
    }
}

/// Opens `path` from `directory` under the given rules and never through a magic link.
pub(crate) fn open_beneath(
    directory: BorrowedFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    let mut races = 0;
    loop {
        match rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) if races < MAX_RACES => races += 1,
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The path relative to the root, without `.` and with `..` taken as text, as runc does with the
/// destination of a mount.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> (Self, Root) {
            let path = std::env::temp_dir().join(format!("rooted-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            let directory = OwnedFd::from(std::fs::File::open(&path).unwrap());
            (Tree(path), Root::new(directory))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_path_is_cleaned_as_text() {
        assert_eq!(clean(Path::new("/a/./b/../../../c/")), Path::new("c"));
        assert_eq!(clean(Path::new("/")), Path::new(""));
    }

    #[test]
    fn missing_directories_are_made_beneath_the_root() {
        let (tree, root) = Tree::new("mkdir");
        root.directory(Path::new("/a/b/c")).unwrap();
        root.file(Path::new("/a/d/f")).unwrap();
        assert!(tree.0.join("a/b/c").is_dir());
        assert!(tree.0.join("a/d/f").is_file());
    }

    #[test]
    fn an_absolute_symlink_stays_within_the_root() {
        let (tree, root) = Tree::new("symlink");
        symlink("/etc", tree.0.join("out")).unwrap();
        root.file(Path::new("/out/made-by-test")).unwrap();
        assert!(tree.0.join("etc/made-by-test").is_file());
        assert!(!Path::new("/etc/made-by-test").exists());
    }

    #[test]
    fn a_dangling_relative_symlink_is_followed_and_made() {
        let (tree, root) = Tree::new("dangling");
        std::fs::create_dir(tree.0.join("var")).unwrap();
        symlink("../../run", tree.0.join("var/run")).unwrap();
        root.directory(Path::new("/var/run/x")).unwrap();
        assert!(tree.0.join("run/x").is_dir());
    }

    #[test]
    fn a_path_is_named_by_where_it_leads() {
        let (tree, root) = Tree::new("name");
        std::fs::create_dir_all(tree.0.join("real/conf")).unwrap();
        symlink("/real", tree.0.join("link")).unwrap();
        assert_eq!(root.name_of(Path::new("/link/conf")).unwrap(), Path::new("real/conf"));
        assert_eq!(root.name_of(Path::new("/")).unwrap(), Path::new(""));
        assert_eq!(root.name_of(Path::new("/link/no")).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn a_loop_of_symlinks_ends() {
        let (tree, root) = Tree::new("loop");
        symlink("b", tree.0.join("a")).unwrap();
        symlink("a", tree.0.join("b")).unwrap();
        assert!(root.directory(Path::new("/a/x")).is_err());
    }
}
