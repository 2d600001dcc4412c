//! The root file system as CRIU wants it: in a mount namespace of its own, so that nothing is left on
//! the host whenever somebody is killed.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::FileType;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::apply::mounts::{attach, clone_tree};
use crate::apply::rootfs;
use crate::plan::criu::lies_in_another;
use crate::plan::mounts::{Kind, MountPlan};
use crate::rooted::Root;
use crate::sys::{self, Depth};

/// What is done in the process that becomes CRIU.
pub(super) struct Preparation<'a> {
    pub(super) rootfs: &'a Path,
    /// The directory where the root is bound: CRIU insists on a mount point.
    pub(super) place: &'a Path,
    pub(super) mounts: &'a [MountPlan],
}

impl Preparation<'_> {
    pub(super) fn carry_out(&self) -> Result<()> {
        let all = File::open("/").context("open /")?;
        // Or what is mounted here would appear on the host.
        let downstream = MountPropagationFlags::DOWNSTREAM;
        sys::mount_setattr_propagation(all.as_fd(), Depth::Recursive, downstream)
            .context("set the propagation of /")?;
        // The places of the mounts may be missing in the root, as in that of a new bundle, and of
        // some only what is bound before shows where they are.
        let root = rootfs::bind(self.rootfs, self.place)?;
        for mount in self.mounts.iter().filter(|mount| !lies_in_another(mount, self.mounts)) {
            make_place(&root, mount)
                .with_context(|| format!("make the mount point {}", mount.destination.display()))?;
        }
        drop(root);
        rustix::mount::unmount(self.place, UnmountFlags::DETACH)
            .context("unmount the prepared root")?;
        rootfs::bind(self.rootfs, self.place)?;
        Ok(())
    }
}

fn make_place(root: &Root, mount: &MountPlan) -> Result<()> {
    match mount.kind {
        // v1: saved as part of a tmpfs; v2: there with /sys.
        Kind::Cgroup => Ok(()),
        Kind::Bind { .. } if mount.remount => Ok(()),
        Kind::Bind { recursive } => {
            let tree = clone_tree(&mount.source, recursive)?;
            let mode = rustix::fs::fstat(&tree).context("stat the source")?.st_mode;
            let place = if FileType::from_raw_mode(mode) == FileType::Directory {
                root.directory(&mount.target)?
            } else {
                root.file(&mount.target)?
            };
            attach(tree.as_fd(), place.as_fd()).context("bind")
        }
        _ => root.directory(&mount.target).map(drop),
    }
}
