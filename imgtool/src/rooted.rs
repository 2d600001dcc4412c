//! Access to what lies beneath a directory, by descriptor: a path is resolved by the kernel with
//! that directory as its root, so neither `..` nor a symbolic link leads out of it, and a last
//! component is always acted upon relative to the descriptor of its parent.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

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

/// Removes an entry and all beneath it; that it does not exist is no error.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let directory = match open_child(parent, name) {
        // Without privileges a directory of one's own may still forbid reading.
        Err(Errno::ACCESS) => {
            fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open_child(parent, name)?
        }
        result => result?,
    };
    clear(directory.as_fd())?;
    drop(directory);
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes all entries of a directory opened for reading.
pub(crate) fn clear(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut unlocked = false;
    for name in names(directory)? {
        match remove(directory, name.to_bytes()) {
            Err(Errno::ACCESS) if !unlocked => {
                fs::fchmod(directory, Mode::RWXU)?;
                unlocked = true;
                remove(directory, name.to_bytes())?;
            }
            result => result?,
        }
    }
    Ok(())
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
}
