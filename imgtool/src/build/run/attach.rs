//! Puts what `RUN --mount` asks for into the bundle, in the mount namespace of the step. A source is
//! found by descriptor beneath its tree, with no link followed, and attached by it: what a stage or
//! a context holds can't lead to a file of the host (CVE-2024-1753).

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::MsFlags;
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use serde_json::{Value, json};

use super::stubs;
use crate::bundle::overlay::{self, ROOTFS, Upper};
use crate::layer::lower;
use crate::rooted::{self, Symlinks};

/// One mount with all that it takes.
pub(crate) struct Mounted {
    /// From the root of the container.
    pub(crate) target: String,
    pub(crate) source: Source,
    pub(crate) writable: bool,
}

pub(crate) enum Source {
    /// A path of a tree that was taken by [`clone_tree`].
    Tree {
        tree: OwnedFd,
        path: Vec<u8>,
        is_directory: bool,
        /// Made for this step: what is written there goes with it.
        is_copy: bool,
    },
    /// A path in what layers show together.
    Layers {
        layers: Vec<PathBuf>,
        path: Vec<u8>,
        is_directory: bool,
    },
    /// A directory or a socket of the host.
    Host {
        path: PathBuf,
        is_directory: bool,
    },
    Tmpfs {
        size: Option<u64>,
    },
    /// A file in memory.
    Secret {
        bytes: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

impl Mounted {
    /// What it is mounted on.
    pub(super) fn stub(&self) -> stubs::Kind {
        let is_directory = match self.source {
            Source::Tree { is_directory, .. }
            | Source::Layers { is_directory, .. }
            | Source::Host { is_directory, .. } => is_directory,
            Source::Tmpfs { .. } => true,
            Source::Secret { .. } => false,
        };
        if is_directory { stubs::Kind::Directory } else { stubs::Kind::File }
    }
}

/// Takes a tree so that it can be attached in another mount namespace.
pub(crate) fn clone_tree(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(root, "", flags) {
        // It was opened before we entered the namespace that we make mounts in. What is mounted
        // beneath it can't be left out there.
        Err(Errno::INVAL) => {
            let flags = flags | OpenTreeFlags::AT_RECURSIVE;
            rustix::mount::open_tree(reached_anew(root)?, "", flags)
        }
        tree => tree,
    }
    .context("take the tree of the build context")
}

/// The same directory, by the mounts of the namespace that we are in now.
fn reached_anew(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd()))
        .context("find the path of the build context")?;
    let found = lower::open_directory(&path)?;
    let (before, now) = (rustix::fs::fstat(root)?, rustix::fs::fstat(&found)?);
    ensure!(
        (before.st_dev, before.st_ino) == (now.st_dev, now.st_ino),
        "{} was replaced while it was used",
        path.display()
    );
    Ok(found)
}

/// Prepares all in the bundle; gives their entries for config.json.
pub(super) fn prepare(home: &Path, mounts: &[Mounted]) -> Result<Vec<Value>> {
    let mut secrets = None;
    let mut entries = Vec::new();
    for (number, mount) in mounts.iter().enumerate() {
        let entry = one(home, number, mount, &mut secrets);
        entries.push(entry.with_context(|| format!("mount on {}", mount.target))?);
    }
    Ok(entries)
}

fn one(
    home: &Path,
    number: usize,
    mount: &Mounted,
    secrets: &mut Option<PathBuf>,
) -> Result<Value> {
    let place = home.join(format!("mount-{number}"));
    let mut writable = mount.writable;
    let source = match &mount.source {
        Source::Tmpfs { size } => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
            options.extend(size.map(|size| format!("size={size}")));
            return Ok(json!({
                "destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options,
            }));
        }
        Source::Host { path, .. } => path.clone(),
        Source::Secret { bytes, mode, uid, gid } => {
            writable = false;
            let directory = match secrets {
                Some(directory) => directory.clone(),
                None => secrets.insert(memory(home)?).clone(),
            };
            let path = directory.join(number.to_string());
            let mut file =
                fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            chown(&path, Some(*uid), Some(*gid))?;
            super::set_mode(&path, *mode)?;
            path
        }
        Source::Tree { tree, path, is_directory, is_copy } => {
            fs::create_dir(&place)?;
            attach(tree.as_fd(), &place)?;
            part(home, number, &place, path, *is_directory, mount.writable && !is_copy)?
        }
        Source::Layers { layers, path, is_directory } => {
            let whole = overlay_of(home, &format!("layers-{number}"), layers)?;
            // What is written goes into an upper directory that is thrown away.
            part(home, number, &whole, path, *is_directory, false)?
        }
    };
    let access = if writable { "rw" } else { "ro" };
    Ok(json!({
        "destination": mount.target, "type": "bind", "source": source,
        "options": ["rbind", access, "rprivate", "nosuid", "nodev"],
    }))
}

fn memory(home: &Path) -> Result<PathBuf> {
    let directory = home.join("secrets");
    fs::create_dir(&directory)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("tmpfs"), &directory, Some("tmpfs"), flags, Some("mode=0711"))
        .context("mount a tmpfs for secrets")?;
    Ok(directory)
}

fn attach(tree: BorrowedFd<'_>, place: &Path) -> Result<()> {
    rustix::mount::move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("attach to {}", place.display()))
}

/// Attaches one path of the tree that is mounted on `whole`, and gives where.
fn part(
    home: &Path,
    number: usize,
    whole: &Path,
    path: &[u8],
    is_directory: bool,
    writable: bool,
) -> Result<PathBuf> {
    let root = lower::open_directory(whole)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let found = rooted::open(root.as_fd(), path, flags, Symlinks::Refuse)
        .with_context(|| format!("open the source {:?}", String::from_utf8_lossy(path)))?;
    let tree = clone_tree(found.as_fd())?;
    let place = home.join(format!("part-{number}"));
    match is_directory {
        true => fs::create_dir(&place)?,
        false => drop(fs::File::create_new(&place)?),
    }
    attach(tree.as_fd(), &place)?;
    match (writable, is_directory) {
        (false, _) => Ok(place),
        (true, true) => overlay_of(home, &format!("written-{number}"), &[place]),
        (true, false) => {
            let copy = home.join(format!("written-{number}"));
            fs::copy(&place, &copy)?;
            Ok(copy)
        }
    }
}

/// Layers with an upper directory of their own that goes with the step.
fn overlay_of(home: &Path, name: &str, layers: &[PathBuf]) -> Result<PathBuf> {
    let bundle = home.join(name);
    fs::create_dir_all(bundle.join(ROOTFS))?;
    overlay::prepare(&bundle, layers.last().context("there are no layers")?)?;
    overlay::mount_as(&bundle, layers, Upper::Volatile)?;
    Ok(bundle.join(ROOTFS))
}
