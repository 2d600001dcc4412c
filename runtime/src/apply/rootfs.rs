//! The root file system: bound, entered, and closed to writing where it is to be.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::mounts::{attach, clone_handle};
use crate::plan::RootPlan;
use crate::rooted::Root;
use crate::sys::{self, Depth};

/// The directory that is to become the root, found with the rights that we have now.
pub(crate) fn open(plan: &RootPlan) -> Result<OwnedFd> {
    handle(&plan.path)
}

fn handle(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("invalid rootfs: open {}", path.display()))
}

/// Cuts the namespace off from the host's, and makes the root a mount that can be moved.
pub(crate) fn prepare(plan: &RootPlan, place: &OwnedFd) -> Result<Root> {
    let all = open_directory(Path::new("/")).context("open /")?;
    sys::mount_setattr_propagation(all.as_fd(), Depth::Recursive, plan.prepare)
        .context("set the propagation of /")?;
    let path = plan.path.as_path();
    let tree = copy(place, path)?;
    // pivot_root refuses a shared mount, as parent and as new root; with a container that shares
    // its mounts only the root itself is cut off here, and shared again at the end.
    if plan.prepare == MountPropagationFlags::SHARED {
        let private = MountPropagationFlags::PRIVATE;
        sys::mount_setattr_propagation(tree.as_fd(), Depth::This, private)
            .context("make the root private")?;
        make_parent_private(path)?;
    }
    put(tree, place, path)
}

/// Makes the root a mount in the host's own namespace, so that all that is mounted beneath goes
/// with it when its user unmounts it.
pub(crate) fn prepare_among_the_hosts(plan: &RootPlan, place: &OwnedFd) -> Result<Root> {
    put(copy(place, &plan.path)?, place, &plan.path)
}

/// Makes all of `path` appear at `place` as well.
pub(crate) fn bind(path: &Path, place: &Path) -> Result<Root> {
    put(copy(&handle(path)?, path)?, &handle(place)?, place)
}

fn copy(place: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(place, c"", flags)
        .with_context(|| format!("invalid rootfs: clone the mount of {}", path.display()))
}

fn put(tree: OwnedFd, place: &OwnedFd, path: &Path) -> Result<Root> {
    let into = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", place, c"", into)
        .with_context(|| format!("bind rootfs {}", path.display()))?;
    Ok(Root::new(tree))
}

/// The mount that holds the root directory: found by going up to where a mount begins.
fn make_parent_private(path: &Path) -> Result<()> {
    for ancestor in path.ancestors() {
        let handle = open_directory(ancestor).context("open the root's parents")?;
        let private = MountPropagationFlags::PRIVATE;
        match sys::mount_setattr_propagation(handle.as_fd(), Depth::This, private) {
            // Not the root of a mount.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => return other.context("make the root's parent mount private"),
        }
    }
    Ok(())
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes `root` the root directory and lets go of everything of the host's.
pub(crate) fn enter(root: &Root, no_pivot: bool) -> Result<()> {
    if no_pivot {
        return move_to_root(root);
    }
    let old = open_directory(Path::new("/")).context("open /")?;
    rustix::process::fchdir(root).context("enter the root")?;
    // With both arguments the same the old root ends up on top of the new one, so that no
    // directory for it is needed within the container.
    rustix::process::pivot_root(".", ".").context("pivot_root")?;
    rustix::process::fchdir(&old).context("enter the old root")?;
    // Or the unmount below would reach the host.
    let downstream = MountPropagationFlags::DOWNSTREAM;
    sys::mount_setattr_propagation(old.as_fd(), Depth::Recursive, downstream)
        .context("cut off the old root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("unmount the old root")?;
    rustix::process::chdir("/").context("chdir /")
}

/// `--no-pivot`, for roots on the initial ramfs, which can't be pivoted away from.
fn move_to_root(root: &Root) -> Result<()> {
    // Whoever breaks out of the chroot is not to find these.
    for path in ["/proc", "/sys"] {
        match rustix::mount::unmount(path, UnmountFlags::DETACH) {
            // Nothing is mounted there.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("unmount {path}")),
        }
    }
    rustix::process::fchdir(root).context("enter the root")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root, c"", CWD, "/", flags).context("move the root to /")?;
    change_root()
}

/// Makes the root's directory the root directory, where there is no mount namespace.
pub(crate) fn change_root_to(root: &Root) -> Result<()> {
    rustix::process::fchdir(root).context("enter the root")?;
    change_root()
}

fn change_root() -> Result<()> {
    rustix::process::chroot(".").context("chroot")?;
    rustix::process::chdir("/").context("chdir /")
}

/// Gives the root the propagation that config.json asks for, and takes away writing.
pub(crate) fn settle(plan: &RootPlan, root: &Root) -> Result<()> {
    if let Some((propagation, recursive)) = plan.settle {
        let depth = if recursive { Depth::Recursive } else { Depth::This };
        sys::mount_setattr_propagation(root.as_fd(), depth, propagation)
            .context("set the propagation of the root")?;
    }
    if plan.read_only {
        let none = MountAttrFlags::empty();
        sys::mount_setattr(root.as_fd(), Depth::This, MountAttrFlags::MOUNT_ATTR_RDONLY, none)
            .context("error setting rootfs as readonly")?;
    }
    Ok(())
}

/// The root, and the mounts on /proc and /sys by their own roots: whoever can rename their places,
/// because the rootfs is shared with others, is not to have something else closed in their stead.
pub(crate) struct Views<'a> {
    pub(crate) root: &'a Root,
    pub(crate) procfs: Option<Root>,
    pub(crate) sysfs: Option<Root>,
}

impl Views<'_> {
    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        for (place, view) in [("proc", &self.procfs), ("sys", &self.sysfs)] {
            if let Some(view) = view
                && let Ok(rest) = path.strip_prefix(place)
            {
                let rest = if rest == Path::new("") { Path::new(".") } else { rest };
                return view.open(rest, OFlags::PATH);
            }
        }
        self.root.open(path, OFlags::PATH)
    }
}

/// Binds each path onto itself without writing.
pub(crate) fn read_only_paths(views: &Views, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let target = match views.open(path) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(error).with_context(|| format!("open /{}", path.display())),
        };
        bind_read_only(target.as_fd())
            .with_context(|| format!("error setting /{} as readonly", path.display()))?;
    }
    Ok(())
}

fn bind_read_only(target: BorrowedFd) -> Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(target, c"", flags)?;
    let none = MountAttrFlags::empty();
    sys::mount_setattr(tree.as_fd(), Depth::This, MountAttrFlags::MOUNT_ATTR_RDONLY, none)?;
    attach(tree.as_fd(), target)?;
    Ok(())
}

/// Hides each path: a file behind /dev/null, a directory behind an empty one that all share.
pub(crate) fn mask_paths(views: &Views, paths: &[PathBuf], mount_label: &str) -> Result<()> {
    let mut masks = Masks { mount_label, null: None, empty: None };
    for path in paths {
        let target = match views.open(path) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(error).with_context(|| format!("open /{}", path.display())),
        };
        masks
            .put_over(views.root, target.as_fd())
            .with_context(|| format!("can't mask path \"/{}\"", path.display()))?;
    }
    Ok(())
}

/// What stands for the hidden, opened when first wanted.
struct Masks<'a> {
    mount_label: &'a str,
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Masks<'_> {
    fn put_over(&mut self, root: &Root, target: BorrowedFd) -> Result<()> {
        let stat = rustix::fs::fstat(target)?;
        let mask = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            match &self.empty {
                Some(empty) => clone_handle(empty.as_fd())?,
                None => {
                    let empty = self.empty.insert(empty_directory(self.mount_label)?);
                    return Ok(attach(empty.as_fd(), target)?);
                }
            }
        } else {
            let null = match &self.null {
                Some(null) => null,
                None => self.null.insert(verified_null(root)?),
            };
            clone_handle(null.as_fd())?
        };
        Ok(attach(mask.as_fd(), target)?)
    }
}

fn empty_directory(label: &str) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "tmpfs")?;
    rustix::mount::fsconfig_set_string(&context, "nr_inodes", "1")?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755")?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    if !label.is_empty() {
        rustix::mount::fsconfig_set_string(&context, "context", label)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, read_only)
}

/// The container's /dev/null, if it is that device and no link to something writable
/// (CVE-2025-31133).
pub(super) fn verified_null(root: &Root) -> Result<OwnedFd> {
    let null = root
        .open_no_symlinks(Path::new("dev/null"), OFlags::PATH | OFlags::NOFOLLOW)
        .context("open /dev/null")?;
    let stat = rustix::fs::fstat(&null).context("stat /dev/null")?;
    if !super::terminal::is_null(&stat) {
        bail!("/dev/null of the container is not the null device");
    }
    Ok(null)
}
