//! Mounts, each made detached and moved by descriptor onto a target that was resolved beneath the
//! root, so that nothing in the container's tree can redirect it (CVE-2021-30465).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
};

use super::lsm;
use crate::plan::mounts::{Attributes, Kind, MountPlan};
use crate::procfs::is_procfs;
use crate::rooted::Root;
use crate::sys::{self, Depth};

mod cgroup;
mod copy_up;

pub(crate) use cgroup::{CgroupView, HierarchyView};

/// Mounts one after the other and remembers what later steps want of them.
pub(crate) struct Mounter<'a> {
    root: &'a Root,
    mount_label: &'a str,
    cgroups: &'a CgroupView,
    /// The root of the procfs on /proc, if we have mounted one.
    pub(crate) procfs: Option<OwnedFd>,
    /// The root of the sysfs on /sys, likewise.
    pub(crate) sysfs: Option<OwnedFd>,
    /// The root of the devpts on /dev/pts, if we have mounted one.
    pub(crate) devpts: Option<OwnedFd>,
    /// To be made read-only once they are filled.
    filling: Vec<OwnedFd>,
}

impl<'a> Mounter<'a> {
    /// Starts with nothing mounted beneath `root`.
    pub(crate) fn new(root: &'a Root, mount_label: &'a str, cgroups: &'a CgroupView) -> Self {
        Mounter {
            root,
            mount_label,
            cgroups,
            procfs: None,
            sysfs: None,
            devpts: None,
            filling: Vec::new(),
        }
    }

    /// Makes the mount of this place in the list. `source` is what is bound, or a file system of a
    /// kind that is not ours to know, where it had to be opened from outside.
    pub(crate) fn mount(
        &mut self,
        index: usize,
        plan: &MountPlan,
        source: Option<OwnedFd>,
    ) -> Result<()> {
        // What comes on top of one of ours hides it.
        if !plan.remount && plan.target == Path::new("proc") {
            self.procfs = None;
        }
        if !plan.remount && plan.target == Path::new("sys") {
            self.sysfs = None;
        }
        match plan.kind {
            Kind::Bind { recursive } if plan.remount => self.remount(plan, recursive),
            Kind::Bind { recursive } => self.bind(plan, recursive, source),
            Kind::Cgroup => self.cgroup(plan),
            _ => self.filesystem(plan, source),
        }
        .with_context(|| format!("mounts[{index}]"))
        .with_context(|| {
            format!("error mounting {:?} to rootfs at {:?}", plan.source, plan.destination)
        })
    }

    /// Makes read-only what had to be filled first.
    pub(crate) fn finish(&mut self) -> Result<()> {
        for mount in self.filling.drain(..) {
            let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
            let none = MountAttrFlags::empty();
            sys::mount_setattr(mount.as_fd(), Depth::This, read_only, none)
                .context("remount a tmpfs read-only")?;
        }
        Ok(())
    }

    fn filesystem(&mut self, plan: &MountPlan, source: Option<OwnedFd>) -> Result<()> {
        let existing = match plan.kind {
            // A symlink there would put the true /proc elsewhere (CVE-2019-19921).
            Kind::Proc | Kind::Sysfs => self.ordinary_directory(plan)?,
            _ => optional(self.root.open(&plan.target, OFlags::PATH | OFlags::DIRECTORY))
                .with_context(|| format!("open {}", plan.destination.display()))?,
        };
        let existed = existing.is_some();
        let target = match existing {
            Some(target) => target,
            None => self.root.directory(&plan.target)?,
        };
        check_target(plan, target.as_fd(), plan.kind == Kind::Proc)?;
        if let Some(mount) = source {
            attach(mount.as_fd(), target.as_fd()).with_context(|| describe(plan))?;
            return settle(plan, mount.as_fd());
        }
        if plan.kind == Kind::Other {
            return self.by_mount_call(plan, target.as_fd());
        }
        let fills =
            plan.read_only() && (plan.kind == Kind::Tmpfs || plan.target == Path::new("dev"));
        let context = self.context(plan, existed.then_some(target.as_fd()), fills)?;
        let mut attributes = plan.attributes.set.0;
        if fills {
            attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
        }
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .with_context(|| describe(plan))?;
        // The one file system that has labels and no option for them.
        if plan.kind == Kind::Mqueue && !self.mount_label.is_empty() {
            lsm::label_root(mount.as_fd(), self.mount_label)?;
        }
        if plan.copy_up && existed {
            copy_up::copy(self.root, &plan.target, mount.as_fd())?;
        }
        attach(mount.as_fd(), target.as_fd()).with_context(|| describe(plan))?;
        settle(plan, mount.as_fd())?;
        if fills {
            self.filling.push(mount);
        } else if plan.kind == Kind::Proc && plan.target == Path::new("proc") {
            self.procfs = Some(mount);
        } else if plan.kind == Kind::Sysfs && plan.target == Path::new("sys") {
            self.sysfs = Some(mount);
        } else if plan.filesystem == "devpts" && plan.target == Path::new("dev/pts") {
            self.devpts = Some(mount);
        }
        Ok(())
    }

    fn ordinary_directory(&self, plan: &MountPlan) -> Result<Option<OwnedFd>> {
        match self.root.open_no_symlinks(&plan.target, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                bail!("filesystem {:?} must be mounted on ordinary directory", plan.filesystem)
            }
            opened => {
                optional(opened).with_context(|| format!("open {}", plan.destination.display()))
            }
        }
    }

    /// A file system ready to be mounted.
    fn context(
        &self,
        plan: &MountPlan,
        existing: Option<BorrowedFd>,
        fills: bool,
    ) -> Result<OwnedFd> {
        let configure = || -> rustix::io::Result<OwnedFd> {
            let context =
                rustix::mount::fsopen(plan.filesystem.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
            set_words(&context, plan)?;
            if plan.read_only() && !fills {
                rustix::mount::fsconfig_set_flag(&context, "ro")?;
            }
            if plan.kind == Kind::Tmpfs
                && let Some(existing) = existing
            {
                like_the_hidden(&context, plan, existing)?;
            }
            let labelled = matches!(plan.kind, Kind::Tmpfs | Kind::Virtual);
            if labelled && !self.mount_label.is_empty() {
                rustix::mount::fsconfig_set_string(&context, "context", self.mount_label)?;
            }
            rustix::mount::fsconfig_create(&context)?;
            Ok(context)
        };
        configure().with_context(|| describe(plan)).map_err(|error| match error.downcast_ref() {
            Some(&Errno::PERM) if plan.kind == Kind::Sysfs => error.context(
                "the container's user namespace owns no network namespace, which a sysfs shows \
                 (bind /sys instead)",
            ),
            _ => error,
        })
    }

    /// For file systems whose data only they understand: the old call, on the current directory,
    /// which is the one way to name a descriptor to it without a /proc.
    fn by_mount_call(&self, plan: &MountPlan, target: BorrowedFd) -> Result<()> {
        rustix::process::fchdir(target).context("enter the mount's target")?;
        let mut data = plan.data.clone();
        if !self.mount_label.is_empty() {
            // In quotes, since a label may have commas.
            data.push(format!("context=\"{}\"", self.mount_label));
        }
        let data = std::ffi::CString::new(data.join(","))?;
        let filesystem = plan.filesystem.as_str();
        rustix::mount::mount(&plan.source, ".", filesystem, old_flags(plan), Some(data.as_c_str()))
            .with_context(|| format!("{}, type={filesystem}", describe(plan)))?;
        let mount = self
            .root
            .open(&plan.target, OFlags::PATH)
            .with_context(|| format!("open {}", plan.destination.display()))?;
        settle(plan, mount.as_fd())
    }

    fn bind(&mut self, plan: &MountPlan, recursive: bool, source: Option<OwnedFd>) -> Result<()> {
        let tree = match source {
            Some(tree) => tree,
            None => clone_tree(&plan.source, recursive)?,
        };
        let stat = rustix::fs::fstat(&tree).context("stat the source")?;
        let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.root.directory(&plan.target)?
        } else {
            self.root.file(&plan.target)?
        };
        check_target(plan, target.as_fd(), is_procfs(tree.as_fd())?)?;
        let fills = plan.read_only() && plan.target == Path::new("dev");
        let mut attributes = plan.attributes;
        if fills {
            attributes.set.0.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
        }
        if !plan.attributes.is_empty() {
            replace_attributes(tree.as_fd(), attributes).with_context(|| describe(plan))?;
        }
        attach(tree.as_fd(), target.as_fd()).with_context(|| describe(plan))?;
        settle(plan, tree.as_fd())?;
        if fills {
            self.filling.push(tree);
        }
        Ok(())
    }

    fn remount(&self, plan: &MountPlan, recursive: bool) -> Result<()> {
        let mount = self
            .root
            .open(&plan.target, OFlags::PATH)
            .with_context(|| format!("open {}", plan.destination.display()))?;
        let depth = if recursive { Depth::Recursive } else { Depth::This };
        let Attributes { set, clear, .. } = plan.attributes;
        sys::mount_setattr(mount.as_fd(), depth, set.0, clear.0).with_context(|| describe(plan))?;
        settle(plan, mount.as_fd())
    }
}

/// A file system that is mounted nowhere yet, by what our own namespace calls its source.
pub(crate) fn detached(plan: &MountPlan) -> Result<OwnedFd> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let filesystem = plan.filesystem.as_str();
        let context = rustix::mount::fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
        set_words(&context, plan)?;
        if plan.read_only() {
            rustix::mount::fsconfig_set_flag(&context, "ro")?;
        }
        rustix::mount::fsconfig_create(&context)?;
        let attributes = plan.attributes.set.0;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make()
        .map_err(|errno| match errno {
            Errno::NODEV => anyhow!("the kernel knows no file system of this type: {errno}"),
            errno => errno.into(),
        })
        .with_context(|| format!("{}, type={}", describe(plan), plan.filesystem))
}

/// Tells a file system its source and its options.
fn set_words(context: &OwnedFd, plan: &MountPlan) -> rustix::io::Result<()> {
    if !plan.source.as_os_str().is_empty() {
        rustix::mount::fsconfig_set_string(context, "source", &plan.source)?;
    }
    for word in &plan.data {
        match word.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context, key, value)?,
            None => rustix::mount::fsconfig_set_flag(context, word.as_str())?,
        }
    }
    for word in &plan.superblock {
        rustix::mount::fsconfig_set_flag(context, *word)?;
    }
    Ok(())
}

/// `None` where there is nothing.
fn optional(opened: Result<OwnedFd, Errno>) -> Result<Option<OwnedFd>, Errno> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A detached copy of a mount of the host, with all beneath it if `recursive`.
pub(crate) fn clone_tree(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, source, flags)
        .with_context(|| format!("stat {}", source.display()))
}

/// A detached copy of the mount that `handle` names a part of.
pub(super) fn clone_handle(handle: BorrowedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(handle, c"", flags)
}

/// Puts a detached mount onto what `target` is a handle of.
pub(crate) fn attach(mount: BorrowedFd, target: BorrowedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

/// Nothing but a procfs comes onto /proc, and nothing at all into it but the few files that
/// validation lets through: what we write there later must reach the kernel (CVE-2019-16884).
fn check_target(plan: &MountPlan, target: BorrowedFd, source_is_procfs: bool) -> Result<()> {
    if plan.target == Path::new("proc") {
        if !source_is_procfs {
            bail!("\"/proc\" cannot be mounted because it is not of type proc");
        }
        return Ok(());
    }
    if !plan.target.starts_with("proc") && is_procfs(target)? {
        bail!("{:?} cannot be mounted because it is inside /proc", plan.destination);
    }
    Ok(())
}

/// A tmpfs looks like the directory that it hides, unless its options say otherwise.
fn like_the_hidden(
    context: &OwnedFd,
    plan: &MountPlan,
    existing: BorrowedFd,
) -> rustix::io::Result<()> {
    let given = |key: &str| plan.data.iter().any(|word| word.starts_with(key));
    let stat = rustix::fs::fstat(existing)?;
    if !given("mode=") {
        let mode = format!("{:04o}", stat.st_mode & 0o7777);
        rustix::mount::fsconfig_set_string(context, "mode", mode)?;
    }
    for (key, id) in [("uid", stat.st_uid), ("gid", stat.st_gid)] {
        if given(&format!("{key}=")) || id == 0 {
            continue;
        }
        match rustix::mount::fsconfig_set_string(context, key, id.to_string()) {
            // An owner that our user namespace does not know: then it is our root's.
            Err(Errno::INVAL) => {}
            other => other?,
        }
    }
    Ok(())
}

/// What all mounts can have on top: recursive attributes and propagation, in the order given.
fn settle(plan: &MountPlan, mount: BorrowedFd) -> Result<()> {
    if !plan.recursive.is_empty() {
        let Attributes { set, clear, .. } = plan.recursive;
        sys::mount_setattr(mount, Depth::Recursive, set.0, clear.0)
            .with_context(|| describe(plan))?;
    }
    for (propagation, recursive) in &plan.propagation {
        let depth = if *recursive { Depth::Recursive } else { Depth::This };
        sys::mount_setattr_propagation(mount, depth, *propagation)
            .with_context(|| describe(plan))?;
    }
    Ok(())
}

/// As a bind remount does: what is not asked for is cleared. In a user namespace the source may
/// have flags locked on it; those stay, unless clearing them is what was asked for.
fn replace_attributes(mount: BorrowedFd, attributes: Attributes) -> Result<()> {
    // All but the one that is never locked.
    let lockable = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let access_times = MountAttrFlags::MOUNT_ATTR__ATIME | MountAttrFlags::MOUNT_ATTR_NODIRATIME;
    let set = attributes.set.0;
    let mut clear = attributes.clear.0 | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW.difference(set);
    clear.remove(access_times);
    if attributes.changes_access_times() {
        clear |= MountAttrFlags::MOUNT_ATTR__ATIME
            | MountAttrFlags::MOUNT_ATTR_NODIRATIME.difference(set);
    }
    let change = |clear| sys::mount_setattr(mount, Depth::This, set, clear);
    match change(lockable.difference(set) | clear) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            change(clear).context("cannot clear locked flags")
        }
        other => Ok(other?),
    }
}

fn old_flags(plan: &MountPlan) -> MountFlags {
    let set = plan.attributes.set.0;
    let attributes = [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (MountAttrFlags::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
        (MountAttrFlags::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
        (MountAttrFlags::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
        (MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    let words = [
        ("sync", MountFlags::SYNCHRONOUS),
        ("dirsync", MountFlags::DIRSYNC),
        ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        ("lazytime", MountFlags::LAZYTIME),
    ];
    let from_attributes =
        attributes.into_iter().filter(|(flag, _)| set.contains(*flag)).map(|(_, flag)| flag);
    let from_words =
        words.into_iter().filter(|(word, _)| plan.superblock.contains(word)).map(|(_, flag)| flag);
    from_attributes.chain(from_words).collect()
}

fn describe(plan: &MountPlan) -> String {
    let mut text = format!(
        "mount src={}, dst={}, dstFd=-, flags={}",
        plan.source.display(),
        plan.destination.display(),
        if plan.flag_names.is_empty() { "0".to_owned() } else { plan.flag_names.join("|") },
    );
    if !plan.data.is_empty() {
        text.push_str(", data=");
        text.push_str(&plan.data.join(","));
    }
    text
}
