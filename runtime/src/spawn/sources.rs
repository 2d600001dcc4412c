//! What has to be opened outside a user namespace, whose root may lack the right to reach it.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use crate::apply::mounts::clone_tree;
use crate::plan::Plan;
use crate::plan::mounts::Kind as MountKind;
use crate::plan::namespaces::Kind;
use crate::sys::{self, Depth};

/// For each mount its source as a detached tree, or `None` where the child can open it itself.
pub(super) fn open(plan: &Plan) -> Result<Vec<Option<OwnedFd>>> {
    if !plan.namespaces.has(Kind::User) {
        return Ok(plan.mounts.iter().map(|_| None).collect());
    }
    let source = |mount: &crate::plan::mounts::MountPlan| -> Result<Option<OwnedFd>> {
        let MountKind::Bind { recursive } = mount.kind else { return Ok(None) };
        if mount.remount {
            return Ok(None);
        }
        let tree = clone_tree(&mount.source, recursive)?;
        // What the child would have found: its namespace is cut off from the host's before.
        sys::mount_setattr_propagation(tree.as_fd(), Depth::Recursive, plan.root.prepare)
            .context("set the propagation of the source")?;
        Ok(Some(tree))
    };
    plan.mounts
        .iter()
        .map(|mount| {
            source(mount).with_context(|| {
                format!("error mounting {:?} to rootfs at {:?}", mount.source, mount.destination)
            })
        })
        .collect()
}
