//! Access to /proc that a container can't divert: an instance of our own or one that was verified,
//! never a path through the container's mounts (CVE-2025-52881).

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use crate::rooted::open_beneath;

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const PROC_ROOT_INODE: u64 = 1;

/// The root of a trusted procfs.
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// Takes a mount that we made ourselves.
    pub(crate) fn from_mount(root: OwnedFd) -> Self {
        Procfs(root)
    }

    /// Makes a procfs that is mounted nowhere; where the rights for that are missing, takes the
    /// host's, which the container has not been able to touch.
    pub(crate) fn private() -> Result<Self> {
        match detached() {
            Ok(root) => Ok(Procfs(root)),
            Err(_) => Self::of_host(),
        }
    }

    /// The same after namespaces were joined: `outside` was taken before.
    pub(crate) fn private_or(outside: Self) -> Self {
        detached().map_or(outside, Procfs)
    }

    /// The host's own.
    pub(crate) fn of_host() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open("/proc", flags, Mode::empty()).context("open /proc")?;
        if !is_procfs(root.as_fd())? || rustix::fs::fstat(&root)?.st_ino != PROC_ROOT_INODE {
            bail!("/proc is not the root of a procfs");
        }
        Ok(Procfs(root))
    }

    /// Opens a file that is no link and has nothing mounted over it.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.resolve(path, flags).with_context(|| format!("open /proc/{}", path.display()))
    }

    /// The directory of our own process's descriptors, by our only thread: that is the name under
    /// which runc's tests know the handle that a container waiting for its start has of it.
    pub(crate) fn descriptors(&self) -> Result<Descriptors> {
        self.resolve_own("thread-self", "fd", OFlags::PATH | OFlags::DIRECTORY)?
            .context("open /proc/thread-self/fd")
            .map(Descriptors)
    }

    /// Opens a file of our own process's directory.
    pub(crate) fn open_own(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        self.try_open_own(name, flags)?.with_context(|| format!("open /proc/self/{name}"))
    }

    /// The same for those who go on if it is not there.
    pub(crate) fn try_open_own(&self, name: &str, flags: OFlags) -> Result<Result<OwnedFd, Errno>> {
        self.resolve_own("self", name, flags)
    }

    fn resolve_own(&self, link: &str, name: &str, flags: OFlags) -> Result<Result<OwnedFd, Errno>> {
        // The link is followed by its text: our pid need not be the one this procfs shows.
        let own = rustix::fs::readlinkat(&self.0, link, Vec::new())
            .with_context(|| format!("readlink /proc/{link}"))?;
        let path = Path::new(OsStr::from_bytes(own.as_bytes())).join(name);
        Ok(self.resolve(&path, flags))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        open_beneath(self.0.as_fd(), path, flags, Mode::empty(), resolve)
    }

    /// Reads a small file of our own process's directory.
    pub(crate) fn read_own(&self, name: &str) -> Result<Vec<u8>> {
        let mut file = std::fs::File::from(self.open_own(name, OFlags::RDONLY)?);
        let mut content = Vec::new();
        file.read_to_end(&mut content).with_context(|| format!("read /proc/self/{name}"))?;
        Ok(content)
    }
}

/// Our own process's descriptors.
pub(crate) struct Descriptors(OwnedFd);

impl Descriptors {
    /// Opens anew what `descriptor` is a handle of.
    pub(crate) fn reopen(&self, descriptor: BorrowedFd, flags: OFlags) -> Result<OwnedFd> {
        let name = descriptor.as_raw_fd().to_string();
        rustix::fs::openat(&self.0, &name, flags | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open /proc/self/fd/{name}"))
    }
}

impl Descriptors {
    /// Takes the mount away whose root `mount` is, with all that is mounted beneath. There is no
    /// call that takes a descriptor: our working directory becomes this one for it.
    pub(crate) fn unmount(&self, mount: BorrowedFd) -> Result<()> {
        rustix::process::fchdir(&self.0).context("enter /proc/self/fd")?;
        let name = mount.as_raw_fd().to_string();
        rustix::mount::unmount(name.as_str(), UnmountFlags::DETACH).context("unmount")
    }
}

fn detached() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Whether `file` lies in a procfs.
pub(crate) fn is_procfs(file: BorrowedFd) -> Result<bool> {
    let kind = rustix::fs::fstatfs(file).context("fstatfs")?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == PROC_SUPER_MAGIC))
}

/// A path of mountinfo as it is: the kernel writes blanks and backslashes as `\ooo`.
pub(crate) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            _ => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134\011\x"), "/a b\\\t\\x");
    }
}
