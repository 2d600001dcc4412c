//! cgroup directories and their files, by descriptor: no symlink is followed, nothing outside
//! the directory is reached, and only a cgroup file system is accepted.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir as Entries, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::Uid;

use crate::pseudo;

const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Unlike ENODEV, which says that a cgroup is on its way out.
pub(super) const NOT_A_CGROUP: Errno = Errno::INVAL;

/// A failed call on a cgroup, for callers that look at the errno.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub(super) struct FileError {
    action: String,
    #[source]
    pub(super) errno: Errno,
}

/// Attaches what was attempted to an errno.
fn failed(action: impl Display) -> impl FnOnce(Errno) -> FileError {
    move |errno| FileError { action: action.to_string(), errno }
}

/// An open cgroup directory.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    pub(super) path: PathBuf,
}

/// Whether the mount at `path` is of cgroup v1, v2 or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    V1,
    V2,
    Other,
}

impl Kind {
    fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(match rustix::fs::fstatfs(fd)?.f_type {
            CGROUP_MAGIC => Self::V1,
            CGROUP2_MAGIC => Self::V2,
            _ => Self::Other,
        })
    }
}

/// What file system a path is on; `None` if it does not exist.
pub(super) fn kind(path: &Path) -> Result<Option<Kind>, FileError> {
    match rustix::fs::statfs(path) {
        Ok(stat) => Ok(Some(match stat.f_type {
            CGROUP_MAGIC => Kind::V1,
            CGROUP2_MAGIC => Kind::V2,
            _ => Kind::Other,
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed(format_args!("statfs {}", path.display()))(errno)),
    }
}

impl Dir {
    /// Opens a cgroup by its absolute path; [`NOT_A_CGROUP`] if the directory is none.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let fd = rustix::fs::openat2(
            CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(failed(format_args!("open {}", path.display())))?;
        match Kind::of(fd.as_fd()).map_err(failed(format_args!("statfs {}", path.display())))? {
            Kind::V1 | Kind::V2 => Ok(Self { fd, path: path.to_owned() }),
            Kind::Other => {
                let action = format!("{} is not in a cgroup file system", path.display());
                Err(FileError { action, errno: NOT_A_CGROUP })
            }
        }
    }

    /// As [`Dir::open`], `None` if there is no such cgroup.
    pub(super) fn open_if_exists(path: &Path) -> Result<Option<Self>, FileError> {
        match Self::open(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.errno == Errno::NOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the cgroup `name` beneath this one.
    pub(super) fn child(&self, name: &str) -> Result<Self, FileError> {
        let fd = self.open_beneath(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Opens the cgroup above this one, in the same mount.
    pub(super) fn parent(&self) -> Result<Self, FileError> {
        let fd = rustix::fs::openat2(
            &self.fd,
            "..",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
        .map_err(failed(format_args!("open the cgroup above {}", self.path.display())))?;
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        Ok(Self { fd, path })
    }

    /// Makes the cgroup `name` beneath this one and opens it; false if it was there.
    pub(super) fn make_child(&self, name: &str) -> Result<(Self, bool), FileError> {
        let made = match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => {
                let path = self.path.join(name);
                return Err(failed(format_args!("mkdir {}", path.display()))(errno));
            }
        };
        let child = self.child(name);
        if made && child.is_err() {
            // Nobody would know of it. The first error is the one that tells.
            let _ = self.remove_child(name);
        }
        Ok((child?, made))
    }

    /// Removes the cgroup `name` beneath this one.
    pub(super) fn remove_child(&self, name: &str) -> Result<(), FileError> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
            .map_err(failed(format_args!("rmdir {}", self.path.join(name).display())))
    }

    /// The names of the cgroups beneath this one.
    pub(super) fn children(&self) -> Result<Vec<String>, FileError> {
        let list = || -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            for entry in Entries::read_from(&self.fd)? {
                let entry = entry?;
                let name = entry.file_name().to_str().map_err(|_| Errno::ILSEQ)?;
                if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                    names.push(name.to_owned());
                }
            }
            Ok(names)
        };
        list().map_err(failed(format_args!("list {}", self.path.display())))
    }

    pub(super) fn read(&self, file: &str) -> Result<String, FileError> {
        pseudo::read(File::from(self.open_beneath(file, OFlags::RDONLY)?))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::ILSEQ))
            .map_err(failed(format_args!("read {}", self.path.join(file).display())))
    }

    /// As [`Dir::read`], `None` if there is no such file, or no such cgroup any more.
    pub(super) fn read_if_exists(&self, file: &str) -> Result<Option<String>, FileError> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_gone(error.errno) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the whole value with one call, as the kernel takes it.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), FileError> {
        let fd = self.open_beneath(file, OFlags::WRONLY)?;
        let action = format!("failed to write {value:?}: write {}", self.path.join(file).display());
        File::from(fd).write_all(value.as_bytes()).map_err(|error| FileError {
            action,
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    }

    pub(super) fn exists(&self, file: &str) -> Result<bool, FileError> {
        match rustix::fs::accessat(
            &self.fd,
            file,
            rustix::fs::Access::EXISTS,
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(()) => Ok(true),
            Err(errno) if is_gone(errno) => Ok(false),
            Err(errno) => {
                Err(failed(format_args!("access {}", self.path.join(file).display()))(errno))
            }
        }
    }

    /// Gives the cgroup itself (`.`) or one of its files to a user.
    pub(super) fn give(&self, file: &str, uid: u32) -> Result<(), FileError> {
        rustix::fs::chownat(
            &self.fd,
            file,
            Some(Uid::from_raw(uid)),
            None,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed(format_args!("chown {}", self.path.join(file).display())))
    }

    /// Opens a file of this cgroup for reading, for those who wait for its changes.
    pub(super) fn open_file(&self, file: &str) -> Result<File, FileError> {
        Ok(File::from(self.open_beneath(file, OFlags::RDONLY)?))
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    fn open_beneath(&self, name: &str, flags: OFlags) -> Result<OwnedFd, FileError> {
        rustix::fs::openat2(
            &self.fd,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
        .map_err(failed(format_args!("open {}", self.path.join(name).display())))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// True if the cgroup has been removed: ENODEV where a file was open or its cgroup dying.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}
