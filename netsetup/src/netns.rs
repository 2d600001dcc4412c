//! Network namespaces: open one, do something inside, come back.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

const NSFS_MAGIC: i64 = 0x6e73_6673;

/// What tells a namespace from every other one that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// An open network namespace.
pub(crate) struct NetworkNamespace {
    file: File,
    identity: Identity,
}

impl NetworkNamespace {
    /// Opens the namespace at a path; anything but a network namespace is refused.
    pub(crate) fn open(path: &Path) -> Result<NetworkNamespace> {
        let open = || -> Result<NetworkNamespace> {
            let file = File::open(path)?;
            let kind = fstatfs(&file)?.filesystem_type();
            ensure!(kind == FsType(NSFS_MAGIC), "not a network namespace");
            let metadata = file.metadata()?;
            let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
            Ok(NetworkNamespace { file, identity })
        };
        open().with_context(|| format!("open network namespace {}", path.display()))
    }

    /// The namespace that this process is in.
    pub(crate) fn own() -> Result<NetworkNamespace> {
        NetworkNamespace::open(Path::new("/proc/self/ns/net"))
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Makes this namespace the process's own, if it is not.
    pub(crate) fn come_home(&self) -> Result<()> {
        if NetworkNamespace::own()?.identity == self.identity {
            return Ok(());
        }
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("return from network namespace")
    }

    /// Runs `inside` in this namespace. Sockets that it opens stay there. The process has one
    /// thread, so that nothing else can be caught in the wrong namespace meanwhile.
    pub(crate) fn enter<T>(&self, inside: impl FnOnce() -> Result<T>) -> Result<T> {
        let home = NetworkNamespace::own()?;
        // A failure on the way back leaves the process astray until `come_home`.
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("enter network namespace")?;
        let outcome = inside();
        setns(&home.file, CloneFlags::CLONE_NEWNET).context("return from network namespace")?;
        outcome
    }
}

/// Where a process keeps its namespace.
pub(crate) fn path_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// The PID namespace that this process is in, by its inode; 0 where it can't be told.
pub(crate) fn process_ids() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}

/// The identity of what is at a path now, if anything is.
pub(crate) fn identity_at(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Identity { device: metadata.dev(), inode: metadata.ino() })
}
