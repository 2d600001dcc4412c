//! Volumes: a directory each, filled with what the image has in its place; most are a bundle's own.
//! The place is looked up beneath the root file system only (CVE-2022-23648).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::layer::metadata::{self, Place, Setter};
use crate::layer::tar::{Entry, Kind};
use crate::rooted::{self, Symlinks};

/// The directory of the volumes within a bundle.
const DIRECTORY: &str = "volumes";
/// Each level holds two descriptors.
const MAX_DEPTH: usize = 200;

/// Makes volume `number` for the mount point `target` and gives its path within the bundle.
pub(crate) fn make(
    bundle: &Path,
    number: usize,
    target: &str,
    rootfs: BorrowedFd<'_>,
) -> Result<String> {
    let name = format!("{DIRECTORY}/{number}");
    let path = bundle.join(&name);
    fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    copy(&path, target, rootfs)?;
    Ok(name)
}

/// Fills a volume of the store that has nothing in it yet, and says whether it was so.
pub(crate) fn fill(path: &Path, target: &str, rootfs: BorrowedFd<'_>) -> Result<bool> {
    let mut entries = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
    if entries.next().is_some() {
        return Ok(false);
    }
    copy(path, target, rootfs)?;
    Ok(true)
}

/// Copies what the image has in the place of a volume.
fn copy(path: &Path, target: &str, rootfs: BorrowedFd<'_>) -> Result<()> {
    let volume = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match rooted::open(rootfs, target.as_bytes(), flags, Symlinks::InRoot) {
        Ok(source) => copy_tree(&source, volume.as_fd(), 0)?,
        Err(Errno::NOENT) => metadata::set_mode(Place::itself(volume.as_fd()), 0o755)?,
        Err(Errno::NOTDIR) => bail!("the image has a file there, not a directory"),
        Err(error) => return Err(error).context("look at what the image has there"),
    }
    Ok(())
}

fn copy_tree(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        bail!("directories are nested more than {MAX_DEPTH} deep");
    }
    for name in rooted::names(from)? {
        copy_entry(from, to, name.as_bytes(), depth)
            .with_context(|| format!("copy {}", name.to_string_lossy()))?;
    }
    // Last, since every entry changed the time.
    metadata::copy_directory(from.as_fd(), to)
}

fn copy_entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<()> {
    let (source, target) = (Place { parent: from.as_fd(), name }, Place { parent: to, name });
    let stat = source.stat()?;
    let file_type = rooted::file_type(&stat);
    let kind = match file_type {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let child = rooted::open_child(to, name)?;
            return copy_tree(&rooted::open_child(from.as_fd(), name)?, child.as_fd(), depth + 1);
        }
        FileType::RegularFile => {
            copy_content(from, to, name)?;
            Kind::File
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), to, name)?;
            Kind::Symlink
        }
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        // A socket without the process behind it is nothing.
        _ => return Ok(()),
    };
    if matches!(kind, Kind::Fifo | Kind::CharDevice | Kind::BlockDevice) {
        rustix::fs::mknodat(to, name, file_type, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
    }
    let mut entry = Entry::new(name.to_vec(), kind, stat.st_mode & 0o7777);
    (entry.uid, entry.gid) = metadata::owner(source, &stat)?;
    entry.mtime = metadata::mtime(&stat);
    entry.xattrs = source.xattrs()?;
    Setter::new().all(target, &entry)
}

fn copy_content(from: &OwnedFd, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags | OFlags::RDONLY, Mode::empty())?;
    let create = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let target = rustix::fs::openat(to, name, create, Mode::RUSR | Mode::WUSR)?;
    io::copy(&mut fs::File::from(source), &mut fs::File::from(target))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    fn directories() -> (tempfile::TempDir, PathBuf, OwnedFd) {
        let scratch = tempfile::tempdir().unwrap();
        let rootfs = scratch.path().join("rootfs");
        fs::create_dir(&rootfs).unwrap();
        fs::create_dir(scratch.path().join("outside")).unwrap();
        fs::write(scratch.path().join("outside/secret"), "s").unwrap();
        let fd = fs::File::open(&rootfs).unwrap().into();
        (scratch, rootfs, fd)
    }

    #[test]
    fn what_the_image_has_is_copied() {
        let (scratch, rootfs, fd) = directories();
        fs::create_dir_all(rootfs.join("data/sub")).unwrap();
        fs::write(rootfs.join("data/sub/file"), "text").unwrap();
        fs::set_permissions(rootfs.join("data/sub/file"), fs::Permissions::from_mode(0o640))
            .unwrap();
        symlink("/etc/passwd", rootfs.join("data/link")).unwrap();
        let path = scratch.path().join(make(scratch.path(), 0, "/data", fd.as_fd()).unwrap());
        assert_eq!(fs::read_to_string(path.join("sub/file")).unwrap(), "text");
        let mode = fs::metadata(path.join("sub/file")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(fs::read_link(path.join("link")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn nothing_outside_the_image_is_read() {
        let (scratch, rootfs, fd) = directories();
        symlink("../../outside", rootfs.join("up")).unwrap();
        symlink(scratch.path().join("outside"), rootfs.join("absolute")).unwrap();
        for (number, target) in ["/up", "/absolute", "/../outside"].iter().enumerate() {
            let path =
                scratch.path().join(make(scratch.path(), number, target, fd.as_fd()).unwrap());
            assert_eq!(fs::read_dir(path).unwrap().count(), 0, "{target}");
        }
    }
}
