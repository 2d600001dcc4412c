//! `rootfs/` as an overlay mount: the store's layers below, the bundle's `upper/` above.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::layer::lower::{self, open_directory, overlay_options};
use crate::layer::metadata;
use crate::sys;
use crate::userns::{Maps, shift};

/// The directories of an overlay bundle.
pub(crate) const UPPER: &str = "upper";
const WORK: &str = "work";
/// Where the mount, or the tree, is.
pub(crate) const ROOTFS: &str = "rootfs";

/// Makes `upper/` and `work/`. The upper's own metadata is what the container sees of `/`, so
/// it is taken from the topmost layer.
pub(crate) fn prepare(bundle: &Path, top: &Path) -> Result<()> {
    for name in [UPPER, WORK] {
        let path = bundle.join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let upper = bundle.join(UPPER);
    let (from, to) = (open_directory(top)?, open_directory(&upper)?);
    metadata::copy_directory(from.as_fd(), to.as_fd())
        .with_context(|| format!("give {} the metadata of {}", upper.display(), top.display()))
}

/// Mounts `layers` (bottom first) with the bundle's upper on its `rootfs/`. All files belong to the
/// container's ids, if it has other ones; on the disk they keep those that the image names.
pub(crate) fn mount(bundle: &Path, layers: &[PathBuf], ids: Option<&Maps>) -> Result<()> {
    match ids {
        None => mount_as(bundle, layers, Upper::Kept),
        Some(ids) => mount_mapped(bundle, layers, ids),
    }
}

/// The kernel maps the owners of mounts, and of an overlay only those of the mounts it is made of (5.19).
/// They are put on their own places in a namespace of a thread that ends, so that the host never sees
/// them.
fn mount_mapped(bundle: &Path, layers: &[PathBuf], ids: &Maps) -> Result<()> {
    let namespace = ids.namespace()?;
    let rootfs = bundle.join(ROOTFS);
    let overlay = lower::in_own_namespace(|| {
        // The upper directory and the one it works with have to be on one mount.
        for place in layers.iter().map(PathBuf::as_path).chain([bundle]) {
            let tree = clone(place)?;
            sys::map_mount(tree.as_fd(), namespace.as_fd())
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
                .with_context(|| format!("map the owners in {}", place.display()))?;
            put(&tree, place)?;
        }
        // The kernel makes files in the upper directory as whoever mounts: the host's root has no name
        // there.
        shift::become_root(ids)?;
        mount_as(bundle, layers, Upper::Kept)?;
        clone(&rootfs)
    })?;
    put(&overlay, &rootfs)
}

fn clone(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, path, flags)
        .with_context(|| format!("clone the mount of {}", path.display()))
}

fn put(tree: &OwnedFd, path: &Path) -> Result<()> {
    rustix::mount::move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("mount on {}", path.display()))
}

/// What an upper directory is worth after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upper {
    Kept,
    /// Nothing: it is never waited for to reach the disk.
    Volatile,
}

/// The same for an upper directory that may be lost.
pub(crate) fn mount_as(bundle: &Path, layers: &[PathBuf], kind: Upper) -> Result<()> {
    // The kernel wants the topmost first.
    let lowers =
        layers.iter().rev().map(|path| open_directory(path)).collect::<Result<Vec<_>>>()?;
    let (upper, work) = (open_directory(&bundle.join(UPPER))?, open_directory(&bundle.join(WORK))?);
    let rootfs = bundle.join(ROOTFS);
    let mounted = match mount_by_fd(&lowers, &upper, &work, &rootfs, kind) {
        // Linux before 6.13 takes no layers by fd.
        Err(Errno::INVAL | Errno::NOSYS) => mount_by_option(&lowers, bundle, &rootfs),
        other => other,
    };
    mounted.with_context(|| format!("mount overlay on {}", rootfs.display()))
}

fn mount_by_fd(
    lowers: &[OwnedFd],
    upper: &OwnedFd,
    work: &OwnedFd,
    rootfs: &Path,
    kind: Upper,
) -> rustix::io::Result<()> {
    use rustix::mount::{fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string};
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", "overlay")?;
    for option in overlay_options().split(',') {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context, key, value)?,
            None => fsconfig_set_flag(context, option)?,
        }
    }
    // One parameter per layer: no page to fit them all in.
    for lower in lowers {
        fsconfig_set_fd(context, "lowerdir+", lower)?;
    }
    fsconfig_set_fd(context, "upperdir", upper)?;
    fsconfig_set_fd(context, "workdir", work)?;
    if kind == Upper::Volatile {
        fsconfig_set_flag(context, "volatile")?;
    }
    fsconfig_create(context)?;
    let mount =
        rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    rustix::mount::move_mount(&mount, "", CWD, rootfs, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// The layers by the short names that their descriptors have in /proc, so that well over a hundred
/// fit in the page that mount(2) takes.
fn mount_by_option(lowers: &[OwnedFd], bundle: &Path, rootfs: &Path) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    let lowers: Vec<String> =
        lowers.iter().map(|lower| format!("/proc/self/fd/{}", lower.as_raw_fd())).collect();
    let mut data = format!("lowerdir={}", lowers.join(":")).into_bytes();
    for (key, name) in [("upperdir", UPPER), ("workdir", WORK)] {
        data.extend_from_slice(format!(",{key}=").as_bytes());
        for byte in bundle.join(name).as_os_str().as_encoded_bytes() {
            if matches!(byte, b',' | b'\\') {
                data.push(b'\\');
            }
            data.push(*byte);
        }
    }
    data.extend_from_slice(format!(",{}", overlay_options()).as_bytes());
    let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", rootfs, "overlay", MountFlags::empty(), data.as_c_str())
}

/// Finds out in an empty directory whether an overlay can be mounted; the mount is gone afterwards.
pub(crate) fn probe(home: &Path) -> Result<()> {
    let (below, bundle) = (home.join("below"), home.join("bundle"));
    fs::create_dir_all(bundle.join(ROOTFS)).context("make a place for an overlay")?;
    drop(lower::make_root(&below)?);
    prepare(&bundle, &below)?;
    lower::in_own_namespace(|| mount_as(&bundle, &[below], Upper::Volatile))
}

/// Whether a failed mount means that there can be no overlay here: no privilege, no such file
/// system, or layers and upper on a file system that can't hold them.
pub(crate) fn is_unsupported(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Errno>().is_some_and(|errno| {
        [Errno::PERM, Errno::INVAL, Errno::NODEV, Errno::OPNOTSUPP, Errno::NOSYS].contains(errno)
    })
}

/// Whether the directory lies on an overlay: there, neither whiteouts nor an upper can be made.
pub(crate) fn is_overlay(directory: &Path) -> Result<bool> {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    let found = rustix::fs::statfs(directory)
        .with_context(|| format!("look at the file system of {}", directory.display()))?;
    Ok(u64::try_from(found.f_type).is_ok_and(|kind| kind == OVERLAYFS_SUPER_MAGIC))
}

/// Whether something is mounted on `path` itself.
pub(crate) fn is_mounted(path: &Path) -> Result<bool> {
    match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

/// Takes off whatever is mounted on the bundle's `rootfs/`.
pub(crate) fn unmount(bundle: &Path) -> Result<()> {
    unmount_all(&bundle.join(ROOTFS))
}

/// Takes off whatever is mounted on `place`.
pub(super) fn unmount_all(place: &Path) -> Result<()> {
    while is_mounted(place)? {
        rustix::mount::unmount(place, UnmountFlags::NOFOLLOW)
            .with_context(|| format!("unmount {}", place.display()))?;
    }
    Ok(())
}

/// Removes `upper/` and `work/` where no overlay came about.
pub(crate) fn discard(bundle: &Path) -> Result<()> {
    for name in [UPPER, WORK] {
        let path = bundle.join(name);
        fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}
