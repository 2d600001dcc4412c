//! Protects our binary from the container: a process that it has some hold on must not lead it, by
//! /proc/PID/exe, to a file that it could write to (CVE-2019-5736).
//!
//! We execute ourselves once more from a copy of our mount that is read-only and mounted nowhere,
//! or, where the right to make that is missing, from a sealed copy in memory.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result};
use nix::fcntl::AtFlags;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use crate::sys::{self, Depth};

pub(crate) const OWN_EXE: &str = "/proc/self/exe";

/// Returns if we run from a protected binary, else becomes one that does.
pub(crate) fn ensure() -> Result<()> {
    #[cfg(all(target_arch = "x86_64", not(fuzzing)))]
    if sys::start::found_protected() {
        return Ok(());
    }
    let exe = own_binary().context("open our binary")?;
    if is_protected(exe.as_fd()).context("fstatvfs of our binary")? {
        return Ok(());
    }
    let protected = match read_only_clone() {
        Ok(clone) => clone,
        Err(_) => sealed_copy(&exe)?,
    };
    let arguments = std::env::args_os().collect();
    let Err(error) = execute(&protected, arguments, std::env::vars_os().collect());
    Err(error)
}

/// Whether we run from such a copy, and not from a file that an administrator keeps read-only: what is
/// mounted nowhere has `/` for a path, which is no program's, and memory has a name of its own.
pub(crate) fn runs_from_copy() -> std::io::Result<bool> {
    let path = rustix::fs::readlink(OWN_EXE, Vec::new())?;
    Ok(path.as_bytes() == b"/" || path.as_bytes().starts_with(b"/memfd:"))
}

fn own_binary() -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(OWN_EXE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Decided by the file itself, not by a mark that a caller could have set.
fn is_protected(exe: BorrowedFd) -> std::io::Result<bool> {
    let mount = rustix::fs::fstatvfs(exe)?.f_flag;
    if mount.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // Only files in memory have seals.
    Ok(rustix::fs::fcntl_get_seals(exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

fn read_only_clone() -> std::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, OWN_EXE, flags)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    sys::mount_setattr(clone.as_fd(), Depth::This, read_only, MountAttrFlags::empty())?;
    Ok(clone)
}

fn sealed_copy(exe: &OwnedFd) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("runtime", flags).context("memfd_create")?;
    let mut left = usize::try_from(rustix::fs::fstat(exe).context("stat our binary")?.st_size)
        .context("size of our binary")?;
    while left > 0 {
        let sent = rustix::fs::sendfile(&copy, exe, None, left).context("copy our binary")?;
        if sent == 0 {
            anyhow::bail!("our binary ended while it was copied");
        }
        left -= sent;
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).context("seal the copy of our binary")?;
    Ok(copy)
}

/// Becomes the program that `binary` is open on.
pub(crate) fn execute(
    binary: &OwnedFd,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<Infallible> {
    let c_string =
        |word: OsString| CString::new(word.into_vec()).context("a word with a NUL in it");
    let arguments = arguments.into_iter().map(c_string).collect::<Result<Vec<_>>>()?;
    let environment = environment
        .into_iter()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .collect::<Result<Vec<_>>>()?;
    nix::unistd::execveat(binary, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH)
        .context("execute our protected binary")
}
