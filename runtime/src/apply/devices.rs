//! /dev: nodes, and the links that every container has.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::mounts::{attach, clone_tree};
use crate::plan::devices::{LINKS, Node, NodeKind};
use crate::rooted::Root;

/// How nodes come into being.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    Mknod,
    /// A user namespace may not make device nodes: the host's are bound.
    Bind,
}

/// Makes the nodes and links. /dev itself must be a directory of the container's, since a link
/// there would have them made elsewhere (CVE-2026-41579).
pub(crate) fn populate(root: &Root, nodes: &[Node], making: Making) -> Result<()> {
    let dev = open_dev(root)?;
    for node in nodes {
        make(root, dev.as_fd(), node, making)
            .with_context(|| format!("error creating device nodes: /{}", node.path.display()))?;
    }
    for (name, target) in LINKS {
        link(dev.as_fd(), name, target)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(dev.as_fd(), "core", "/proc/kcore")?;
    }
    match rustix::fs::unlinkat(&dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).context("remove /dev/ptmx"),
    }
    link(dev.as_fd(), "ptmx", "pts/ptmx")
}

/// The container's /dev, made where missing.
pub(super) fn open_dev(root: &Root) -> Result<OwnedFd> {
    let path = Path::new("dev");
    match root.open_no_symlinks(path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => root.directory(path),
        Err(Errno::LOOP | Errno::NOTDIR) => bail!("/dev of the container is not a directory"),
        opened => opened.context("open /dev"),
    }
}

fn make(root: &Root, dev: BorrowedFd, node: &Node, making: Making) -> Result<()> {
    let elsewhere;
    let (parent, name) = match node.path.strip_prefix("dev") {
        Ok(name) if name.components().count() == 1 => (dev, name),
        _ => {
            elsewhere = root.parent(&node.path)?;
            (elsewhere.0.as_fd(), elsewhere.1)
        }
    };
    if making == Making::Bind && node.kind != NodeKind::Fifo {
        return bind(parent, name, node);
    }
    let (kind, device) = kind_and_number(node);
    match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(node.mode), device) {
        Ok(()) if node.uid == 0 && node.gid == 0 => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .context("chown")
        }
        Err(Errno::EXIST) => verify(parent, name, node),
        Err(Errno::PERM) => bind(parent, name, node),
        Err(error) => Err(error).context("mknod"),
    }
}

fn kind_and_number(node: &Node) -> (FileType, u64) {
    let device = rustix::fs::makedev(node.major, node.minor);
    match node.kind {
        NodeKind::Character => (FileType::CharacterDevice, device),
        NodeKind::Block => (FileType::BlockDevice, device),
        NodeKind::Fifo => (FileType::Fifo, 0),
    }
}

/// What stands there already, from the image, must be the very device.
fn verify(parent: BorrowedFd, name: &Path, node: &Node) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(parent, name, flags, Mode::empty()).context("open")?;
    check(found.as_fd(), node)
}

fn check(found: BorrowedFd, node: &Node) -> Result<()> {
    let stat = rustix::fs::fstat(found).context("stat")?;
    let (kind, device) = kind_and_number(node);
    let same_kind = FileType::from_raw_mode(stat.st_mode) == kind;
    if !same_kind || (kind != FileType::Fifo && stat.st_rdev != device) {
        bail!("what stands there is not device {}:{}", node.major, node.minor);
    }
    Ok(())
}

fn bind(parent: BorrowedFd, name: &Path, node: &Node) -> Result<()> {
    let source = clone_tree(&Path::new("/").join(&node.path), false)?;
    check(source.as_fd(), node)?;
    let target = empty_file(parent, name)?;
    attach(source.as_fd(), target.as_fd()).context("bind the host's node")
}

/// A handle on a file to mount something on, made if missing; a symlink there is not followed.
pub(super) fn empty_file(parent: BorrowedFd, name: &Path) -> Result<OwnedFd> {
    let create =
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, create, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("create {}", name.display())),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())
        .with_context(|| format!("open {}", name.display()))?;
    let stat = rustix::fs::fstat(&file).with_context(|| format!("stat {}", name.display()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        bail!("{} is a symlink", name.display());
    }
    Ok(file)
}

fn link(dev: BorrowedFd, name: &str, target: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        // The image's own, whatever it says: it leads nobody but the container itself.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("symlink /dev/{name}")),
    }
}
