//! What the layers beneath one show together: looked up without a mount, or mounted for a layer
//! that can't be unpacked alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::extract::Summary;
use super::metadata::{self, Place};
use super::whiteout::{is_whiteout, opaque_xattr};
use crate::rooted::{self, Symlinks};
use crate::userns;

/// Options that keep the upper directory a plain one: no redirects, no data left below, no index.
pub(crate) fn overlay_options() -> &'static str {
    if userns::is_inner() {
        // "off" would follow redirects, which "userxattr" forbids.
        "redirect_dir=nofollow,metacopy=off,index=off,xino=off,userxattr"
    } else {
        "redirect_dir=off,metacopy=off,index=off,xino=off"
    }
}

/// Unpacked layers, top first.
pub(crate) struct Lowers {
    layers: Vec<OwnedFd>,
}

/// What is found at a path.
pub(crate) enum Found {
    /// Nothing, or something that the layer above hides.
    Nothing,
    /// A directory, by its topmost part.
    Directory(OwnedFd),
    /// Something else: its metadata, directory and name.
    Other(Stat, OwnedFd, Vec<u8>),
}

impl Lowers {
    /// Opens unpacked layers, given bottom first.
    pub(crate) fn open(layers: &[PathBuf]) -> Result<Self> {
        let layers = layers.iter().rev().map(|path| open_directory(path));
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// Looks a path up as overlayfs would, one component at a time. Symbolic links are not
    /// followed.
    pub(crate) fn find(&self, path: &[u8]) -> Result<Found> {
        Ok(match self.walk(path)? {
            Ok(parts) => parts.into_iter().next().map_or(Found::Nothing, Found::Directory),
            Err(other) => other,
        })
    }

    /// The names in the directory at `path`, none where there is no directory.
    pub(crate) fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        // The topmost part that has a name decides what it is.
        let mut names = BTreeMap::new();
        for part in self.walk(path)?.unwrap_or_default() {
            let part = rooted::reopen(part.as_fd()).context("open directory of a lower layer")?;
            for name in rooted::names(&part)? {
                let hides = is_whiteout(&rooted::stat(part.as_fd(), name.to_bytes())?);
                names.entry(name.into_bytes()).or_insert(hides);
            }
        }
        Ok(names.into_iter().filter(|(_, hidden)| !hidden).map(|(name, _)| name).collect())
    }

    /// The parts of the directory at `path`, top first, or what is there instead.
    fn walk(&self, path: &[u8]) -> Result<Result<Vec<OwnedFd>, Found>> {
        let mut parts: Vec<OwnedFd> = Vec::new();
        for layer in &self.layers {
            parts.push(layer.try_clone()?);
            if is_opaque(layer.as_fd())? {
                break;
            }
        }
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let mut next = Vec::new();
            for part in &parts {
                let Some(stat) = rooted::try_stat(part.as_fd(), name)? else { continue };
                if rooted::file_type(&stat) != FileType::Directory {
                    if !next.is_empty() || is_whiteout(&stat) {
                        break;
                    }
                    return Ok(Err(Found::Other(stat, part.try_clone()?, name.to_vec())));
                }
                let directory = rooted::open_child(part.as_fd(), name)?;
                let opaque = is_opaque(directory.as_fd())?;
                next.push(directory);
                if opaque {
                    break;
                }
            }
            if next.is_empty() {
                return Ok(Err(Found::Nothing));
            }
            parts = next;
        }
        Ok(Ok(parts))
    }

    /// Completes a layer that was unpacked alone: directories that it does not describe get the
    /// metadata they have below, whiteouts of nothing go. `false` means that it must be unpacked
    /// with the lower layers in view, as one of those directories is a link there.
    pub(crate) fn complete(&self, layer: BorrowedFd<'_>, summary: &Summary) -> Result<bool> {
        let mut described = Vec::new();
        let mut new = Vec::new();
        for path in &summary.implicit {
            match rooted::open_directory(layer, path, Symlinks::Refuse) {
                Ok(directory) => match self.find(path)? {
                    Found::Directory(lower) => described.push((lower, directory)),
                    Found::Other(stat, ..) if rooted::file_type(&stat) == FileType::Symlink => {
                        return Ok(false);
                    }
                    Found::Nothing | Found::Other(..) => new.push(path),
                },
                // Replaced later in the archive.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno).context("open directory"),
            }
        }
        for path in &summary.whiteouts {
            self.check_whiteout(layer, path)?;
        }
        for path in new.iter().rev() {
            remove_if_empty(layer, path)?;
        }
        for (lower, directory) in described.iter().rev() {
            metadata::copy_directory(lower.as_fd(), directory.as_fd())?;
        }
        Ok(true)
    }

    /// overlayfs shows a whiteout in a directory that is in one layer only.
    fn check_whiteout(&self, layer: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let (parent, name) = super::extract::split(path);
        if matches!(self.find(parent)?, Found::Directory(_)) {
            return Ok(());
        }
        let directory = match rooted::open_directory(layer, parent, Symlinks::Refuse) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            directory => directory.context("open directory")?,
        };
        if rooted::try_stat(directory.as_fd(), name)?.is_some_and(|stat| is_whiteout(&stat)) {
            keeping_time(directory.as_fd(), || {
                rooted::remove(directory.as_fd(), name).context("remove whiteout")
            })?;
        }
        Ok(())
    }
}

/// A directory that was made for markers alone is none: they make nothing.
fn remove_if_empty(layer: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    let (parent, name) = super::extract::split(path);
    if path.is_empty() {
        return Ok(());
    }
    let directory = rooted::open_directory(layer, parent, Symlinks::Refuse);
    let directory = directory.context("open directory")?;
    keeping_time(directory.as_fd(), || {
        match rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY) => Ok(()),
            Err(errno) => Err(errno).context("remove directory"),
        }
    })
}

/// Changes what is in a directory, but not its time.
fn keeping_time(directory: BorrowedFd<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let place = Place::itself(directory);
    let mtime = metadata::mtime(&place.stat()?);
    change()?;
    metadata::set_mtime(place, mtime)
}

/// Mounts `lowers` (bottom first) under the empty directory `upper` and gives the root of the
/// result, which no mount table shows: the mount is made in a namespace of a thread that ends.
pub(crate) fn mount_writable(lowers: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd> {
    in_own_namespace(|| mount_in_namespace(lowers, upper, work))
}

/// Does it in a thread with a mount namespace of its own, with which the mounts it makes go.
pub(crate) fn in_own_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let mounted = std::thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
                .context("unshare the mount namespace")?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                .context("make mounts private")?;
            work()
        });
        mounted.context("start a thread")?.join().map_err(|_| anyhow!("mounting stopped"))?
    })
}

fn mount_in_namespace(lowers: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd> {
    let open = |path: &Path| open_directory(path);
    let lowers: Vec<OwnedFd> = lowers.iter().rev().map(|path| open(path)).collect::<Result<_>>()?;
    let (upper, work_fd) = (open(upper)?, open(work)?);
    let name = |fd: &OwnedFd| rooted::proc_path(fd.as_fd(), b"");
    let lower_names = lowers.iter().map(name).collect::<Vec<_>>().join(&b':');
    let options = [
        b"lowerdir=",
        &lower_names[..],
        b",upperdir=",
        &name(&upper),
        b",workdir=",
        &name(&work_fd),
        b",",
        overlay_options().as_bytes(),
    ]
    .concat();
    ensure!(options.len() < 4096, "too many layers to mount at once");
    let options = std::ffi::OsStr::from_bytes(&options);
    mount(Some("overlay"), work, Some("overlay"), MsFlags::empty(), Some(options))
        .context("mount overlay of the lower layers")?;
    let root = open(work)?;
    umount2(work, MntFlags::MNT_DETACH).context("detach overlay")?;
    Ok(root)
}

fn is_opaque(directory: BorrowedFd<'_>) -> Result<bool> {
    Ok(Place::itself(directory).xattr(opaque_xattr())?.as_deref() == Some(b"y"))
}

/// Whether overlayfs must not look below this layer. It does not heed the mark on a layer's root.
pub(crate) fn hides_all_below(layer: &Path) -> Result<bool> {
    is_opaque(open_directory(layer)?.as_fd())
}

/// Opens a directory of the store.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("open directory {}", path.display()))
}

/// Makes an empty directory with the metadata of a root that no layer describes.
pub(crate) fn make_root(path: &Path) -> Result<OwnedFd> {
    fs::create_dir(path).with_context(|| format!("create {}", path.display()))?;
    let root = open_directory(path)?;
    reset_root(root.as_fd())?;
    Ok(root)
}

/// Gives a root the metadata it has if no layer describes it.
pub(crate) fn reset_root(root: BorrowedFd<'_>) -> Result<()> {
    metadata::set_mode(Place::itself(root), 0o755)?;
    metadata::set_mtime(Place::itself(root), super::tar::Time::default())
}
