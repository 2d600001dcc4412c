//! The mount of type `cgroup`: on v1 a tmpfs with one mount per hierarchy and a link per
//! controller that shares one, on v2 the one file system.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags};

use super::{Mounter, attach, clone_tree, describe, settle};
use crate::plan::mounts::MountPlan;
use crate::sys::{self, Depth};

/// Where the host mounts the unified hierarchy, if that is all it has.
const HOST_MOUNT: &str = "/sys/fs/cgroup";

/// What a container's mount of type `cgroup` shows.
#[derive(Debug)]
pub(crate) enum CgroupView {
    V1 {
        hierarchies: Vec<HierarchyView>,
        /// The hierarchies are mounted anew, rooted where the namespace is; else the container's
        /// own directories are bound.
        namespaced: bool,
    },
    V2 {
        /// The container's own directory, for where the file system can't be mounted.
        own: PathBuf,
        /// As for v1; else the host's mount is bound.
        namespaced: bool,
    },
    /// The host has none, or to a container that is there, none of its own was given.
    Absent,
}

/// One v1 hierarchy.
#[derive(Debug)]
pub(crate) struct HierarchyView {
    /// `name=...` for one without controllers.
    pub(crate) controllers: Vec<String>,
    /// The container's own directory.
    pub(crate) own: PathBuf,
}

impl HierarchyView {
    /// The directory's name beneath /sys/fs/cgroup.
    pub(crate) fn name(&self) -> String {
        let names: Vec<&str> = self
            .controllers
            .iter()
            .map(|controller| controller.strip_prefix("name=").unwrap_or(controller))
            .collect();
        names.join(",")
    }
}

impl Mounter<'_> {
    pub(super) fn cgroup(&mut self, plan: &MountPlan) -> Result<()> {
        match self.cgroups {
            CgroupView::V1 { hierarchies, namespaced } => self.v1(plan, hierarchies, *namespaced),
            CgroupView::V2 { own, namespaced } => self.v2(plan, own, *namespaced),
            CgroupView::Absent => {
                bail!(
                    "neither does the host show a cgroup file system nor has the container a cgroup"
                )
            }
        }
    }

    fn v1(&self, plan: &MountPlan, hierarchies: &[HierarchyView], namespaced: bool) -> Result<()> {
        let target = self.root.directory(&plan.target)?;
        let mut attributes = plan.attributes.set.0;
        attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
        let tmpfs = tmpfs(attributes, self.mount_label).with_context(|| describe(plan))?;
        for hierarchy in hierarchies {
            let name = hierarchy.name();
            rustix::fs::mkdirat(&tmpfs, &name, Mode::from_raw_mode(0o755))
                .with_context(|| format!("mkdir {name}"))?;
            for controller in hierarchy.controllers.iter().filter(|own| **own != name) {
                // `name=systemd` is no controller that anybody looks for.
                if !controller.contains('=') {
                    rustix::fs::symlinkat(&name, &tmpfs, controller)
                        .with_context(|| format!("symlink {controller}"))?;
                }
            }
        }
        attach(tmpfs.as_fd(), target.as_fd()).with_context(|| describe(plan))?;
        for hierarchy in hierarchies {
            let name = hierarchy.name();
            let mount = if namespaced {
                fresh_v1(&hierarchy.controllers, plan.attributes.set.0)
                    .with_context(|| format!("mount the cgroup hierarchy {name}"))?
            } else {
                bound(&hierarchy.own, plan)?
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = rustix::fs::openat(&tmpfs, &name, flags, Mode::empty())
                .with_context(|| format!("open {name}"))?;
            attach(mount.as_fd(), place.as_fd())
                .with_context(|| format!("attach the cgroup hierarchy {name}"))?;
        }
        if plan.read_only() {
            let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
            let none = MountAttrFlags::empty();
            sys::mount_setattr(tmpfs.as_fd(), Depth::This, read_only, none)
                .context("remount the cgroup directory read-only")?;
        }
        settle(plan, tmpfs.as_fd())
    }

    fn v2(&self, plan: &MountPlan, own: &Path, namespaced: bool) -> Result<()> {
        let target = self.root.directory(&plan.target)?;
        let mount = if namespaced {
            match fresh_v2(plan) {
                // The user namespace does not own the cgroup namespace: show the own cgroup alone.
                Err(Errno::PERM | Errno::BUSY) => bound(own, plan)?,
                made => made.with_context(|| describe(plan))?,
            }
        } else {
            // A new mount in the host's cgroup namespace would set the options of the host's too,
            // nsdelegate among them, and wait for an RCU grace period over it.
            bound(Path::new(HOST_MOUNT), plan)?
        };
        attach(mount.as_fd(), target.as_fd()).with_context(|| describe(plan))?;
        settle(plan, mount.as_fd())
    }
}

/// A copy of a mount of the host's, with the attributes asked for on top of its own. It does not
/// follow the host's, as one mounted anew would not: CRIU saves no mount that follows another's.
fn bound(source: &Path, plan: &MountPlan) -> Result<OwnedFd> {
    let mount = clone_tree(source, true)?;
    let private = MountPropagationFlags::PRIVATE;
    sys::mount_setattr_propagation(mount.as_fd(), Depth::Recursive, private)
        .context("make the copy of a cgroup mount private")?;
    let none = MountAttrFlags::empty();
    sys::mount_setattr(mount.as_fd(), Depth::This, plan.attributes.set.0, none)
        .with_context(|| describe(plan))?;
    Ok(mount)
}

fn tmpfs(attributes: MountAttrFlags, label: &str) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "tmpfs")?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755")?;
    if !label.is_empty() {
        rustix::mount::fsconfig_set_string(&context, "context", label)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn fresh_v1(controllers: &[String], attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "cgroup")?;
    for controller in controllers {
        match controller.strip_prefix("name=") {
            Some(name) => {
                rustix::mount::fsconfig_set_flag(&context, "none")?;
                rustix::mount::fsconfig_set_string(&context, "name", name)?;
            }
            None => rustix::mount::fsconfig_set_flag(&context, controller.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn fresh_v2(plan: &MountPlan) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "cgroup")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = plan.attributes.set.0;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
