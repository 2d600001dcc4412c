//! Access to what lies beneath a directory, by descriptor: a path is resolved by the kernel with
//! that directory as its root, so neither `..` nor a symbolic link leads out of it, and a last
//! component is always acted upon relative to the descriptor of its parent.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

/// What a symbolic link among the components of a path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symlinks {
    /// Followed, as a process whose root is the directory would.
    InRoot,
    /// Refused with `ELOOP`.
    Refuse,
}

/// How often a resolution that raced with a rename is tried again.
const RETRIES: usize = 64;

/// The path from the root without empty components, `.` and, resolved as text, `..`: for names that
/// are given on and not for opening.
pub(crate) fn as_text(path: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            _ => components.push(component),
        }
    }
    components.join("/")
}

/// Opens `path` with `root` as the root directory; an empty path is `root` itself.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    symlinks: Symlinks,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if symlinks == Symlinks::Refuse {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let mut tries = 0;
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RETRIES => tries += 1,
            result => return result,
        }
    }
}

/// Opens the directory `path` for reaching its entries, not for reading.
pub(crate) fn open_directory(
    root: BorrowedFd<'_>,
    path: &[u8],
    symlinks: Symlinks,
) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH | OFlags::DIRECTORY, symlinks)
}

/// Opens the directory `name` of `parent` for reading, never through a symbolic link.
pub(crate) fn open_child(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// A second descriptor of `directory`, good for reading its entries.
pub(crate) fn reopen(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(directory, c".", flags, Mode::empty())
}

/// The names in a directory opened for reading, sorted bytewise, without `.` and `..`.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Metadata of the entry itself, a symbolic link included.
pub(crate) fn stat(parent: BorrowedFd<'_>, name: &[u8]) -> Result<fs::Stat, Errno> {
    fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Metadata of the entry, or `None` where there is no such entry.
pub(crate) fn try_stat(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<fs::Stat>, Errno> {
    match stat(parent, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The type in a `stat` result.
pub(crate) fn file_type(stat: &fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The name by which calls that know no descriptor of a directory reach `name` in it: xattr calls
/// took one only from Linux 6.13 on. The process's own `/proc` entry can't be redirected by
/// anything beneath the directory.
pub(crate) fn proc_path(parent: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", parent.as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// Levels of directories that are gone down into. Whoever nested them may have gone on for ever:
/// what lies deeper is brought up first, so that neither descriptors nor the stack run out.
const MAX_LEVELS: usize = 256;

/// Removes an entry and all beneath it; that it does not exist is no error.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    remove_at(parent, name, 0)
}

/// The same for a path that is not beneath any root but our own.
pub(crate) fn remove_path(path: &Path) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::open(parent, flags, Mode::empty()) {
        Ok(parent) => remove(parent.as_fd(), name.as_bytes()),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn remove_at(parent: BorrowedFd<'_>, name: &[u8], level: usize) -> Result<(), Errno> {
    if unlinked(parent, name)? {
        return Ok(());
    }
    let directory = open_readable(parent, name)?;
    clear_at(directory.as_fd(), level)?;
    drop(directory);
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes all entries of a directory opened for reading.
fn clear_at(directory: BorrowedFd<'_>, level: usize) -> Result<(), Errno> {
    make_writable(directory)?;
    if level < MAX_LEVELS {
        for name in names(directory)? {
            remove_at(directory, name.to_bytes(), level + 1)?;
        }
        return Ok(());
    }
    let mut number = 0;
    loop {
        let names = names(directory)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            raise(directory, name.to_bytes(), &mut number)?;
        }
    }
}

/// Removes an entry; if it is a directory, those in it come up beside it.
fn raise(directory: BorrowedFd<'_>, name: &[u8], number: &mut u64) -> Result<(), Errno> {
    if unlinked(directory, name)? {
        return Ok(());
    }
    let child = open_readable(directory, name)?;
    make_writable(child.as_fd())?;
    for entry in names(&child)? {
        if unlinked(child.as_fd(), entry.to_bytes())? {
            continue;
        }
        if !rustix::process::geteuid().is_root() {
            // Its `..` changes, which takes the right to write to it.
            fs::chmodat(&child, &entry, Mode::RWXU, AtFlags::empty())?;
        }
        loop {
            let free = format!("raised-{number}");
            *number += 1;
            match fs::renameat_with(&child, &entry, directory, free, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => break result?,
            }
        }
    }
    fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// Removes what is no directory; `false` for a directory.
fn unlinked(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Without privileges a directory of one's own may still forbid reading.
fn open_readable(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    match open_child(parent, name) {
        Err(Errno::ACCESS) => {
            fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open_child(parent, name)
        }
        result => result,
    }
}

/// Or taking entries out of it.
fn make_writable(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    if rustix::process::geteuid().is_root()
        || Mode::from_raw_mode(fs::fstat(directory)?.st_mode).contains(Mode::RWXU)
    {
        return Ok(());
    }
    fs::fchmod(directory, Mode::RWXU)
}

/// Lets this process open as many files as it may: a level of a tree takes one.
pub(crate) fn allow_many_descriptors() -> Result<(), Errno> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
}

/// The target of a symbolic link.
pub(crate) fn read_link(parent: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    Ok(fs::readlinkat(parent, name, Vec::new())?.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn directory(path: &std::path::Path) -> OwnedFd {
        fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn links_and_dots_stay_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        symlink("/etc", dir.path().join("root/absolute")).unwrap();
        symlink("../../../outside", dir.path().join("root/climber")).unwrap();
        let root = directory(&dir.path().join("root"));
        assert!(open_directory(root.as_fd(), b"absolute", Symlinks::InRoot).is_ok());
        assert!(open_directory(root.as_fd(), b"../../etc", Symlinks::InRoot).is_ok());
        let climber = open_directory(root.as_fd(), b"climber", Symlinks::InRoot);
        assert_eq!(climber.unwrap_err(), Errno::NOENT);
        let refused = open_directory(root.as_fd(), b"absolute", Symlinks::Refuse);
        assert_eq!(refused.unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn remove_takes_a_tree_and_leaves_what_links_point_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("tree/deep/er")).unwrap();
        std::fs::create_dir(dir.path().join("kept")).unwrap();
        std::fs::write(dir.path().join("kept/file"), "x").unwrap();
        symlink("../../kept", dir.path().join("tree/deep/link")).unwrap();
        let root = directory(dir.path());
        remove(root.as_fd(), b"tree").unwrap();
        remove(root.as_fd(), b"tree").unwrap();
        assert!(dir.path().join("kept/file").exists());
        assert!(!dir.path().join("tree").exists());
    }

    #[test]
    fn remove_takes_a_tree_that_is_deeper_than_any_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = directory(dir.path());
        let mut at = root.try_clone().unwrap();
        for _ in 0..3 * MAX_LEVELS {
            for name in ["d", "raised-0"] {
                fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            }
            at = open_child(at.as_fd(), b"d").unwrap();
        }
        remove_path(&dir.path().join("d")).unwrap();
        assert!(!dir.path().join("d").exists());
    }
}
