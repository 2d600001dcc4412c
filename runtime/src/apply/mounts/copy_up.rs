//! `tmpcopyup`: a tmpfs starts with what it hides.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::rooted::Root;

/// Copies the directory `from`, which lies beneath `root`, into the directory `to`.
pub(super) fn copy(root: &Root, from: &Path, to: BorrowedFd) -> Result<()> {
    let from_fd = root
        .open(from, OFlags::RDONLY | OFlags::DIRECTORY)
        .with_context(|| format!("open {}", from.display()))?;
    copy_directory(from_fd.as_fd(), to).with_context(|| format!("tmpcopyup {}", from.display()))
}

fn copy_directory(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    for entry in rustix::fs::Dir::read_from(from).context("read a directory")? {
        let entry = entry.context("read a directory")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(from, to, name).with_context(|| format!("copy {}", name.to_string_lossy()))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd, to: BorrowedFd, name: &std::ffi::CStr) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | nofollow;
            let inner_from = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let inner_to = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy_directory(inner_from.as_fd(), inner_to.as_fd())?;
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, OFlags::RDONLY | nofollow, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
            let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut source = std::fs::File::from(source);
            std::io::copy(&mut source, &mut std::fs::File::from(target))?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), to, name)?;
        }
        other => rustix::fs::mknodat(to, name, other, mode, stat.st_rdev)?,
    }
    let owner = Some(Uid::from_raw(stat.st_uid));
    let group = Some(Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    Ok(())
}
