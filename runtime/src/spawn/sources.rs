//! What is bound, opened by the runtime for a container that can't do so itself: the root of a user
//! namespace may lack the right to reach it, and nobody in there may map the owners of files. And what
//! is mounted by us: a disk that the container's cgroup may not open, a server that its network does not
//! reach.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};

use super::child::Child;
use super::idmap;
use crate::apply::mounts::{clone_tree, detached};
use crate::channel::Channel;
use crate::plan::Plan;
use crate::plan::mounts::{IdMap, Kind as MountKind, MountPlan};
use crate::plan::namespaces::Kind;
use crate::sys::{self, Cloned, Depth, Parent};

/// The source of one mount as a detached tree.
pub(super) fn open(child: &Child, plan: &Plan, index: u32) -> Result<OwnedFd> {
    let position = usize::try_from(index).context("number of a mount")?;
    let mount = plan.mounts.get(position).context("there is no such mount")?;
    open_one(child, plan, mount).with_context(|| format!("mounts[{index}]")).with_context(|| {
        format!(
            "error during container init: error mounting {:?} to rootfs at {:?}",
            mount.source, mount.destination
        )
    })
}

fn open_one(child: &Child, plan: &Plan, mount: &MountPlan) -> Result<OwnedFd> {
    if mount.kind == MountKind::Other {
        let mut mount = mount.clone();
        if !plan.root.mount_label.is_empty() {
            mount.data.push(format!("context={}", plan.root.mount_label));
        }
        return detached(&mount);
    }
    // Where the mounts are that came before: this one may be of a part of them, and it is to be
    // locked like all that the container's namespace got from the host.
    let among = plan.namespaces.has(Kind::Mount).then_some(child);
    tree(mount, among, child.pid)
}

/// The source of a bind, among the mounts that another process sees if one is given; ids may be
/// mapped as in the user namespace of `owner`.
pub(super) fn tree(mount: &MountPlan, among: Option<&Child>, owner: i32) -> Result<OwnedFd> {
    let MountKind::Bind { recursive } = mount.kind else { bail!("only binds have a source") };
    let clone = || clone_tree(&mount.source, recursive);
    let tree = match among {
        Some(child) => in_mount_namespace(child, clone)?,
        None => clone()?,
    };
    if let Some(map) = &mount.id_map {
        let depth = if map.recursive { Depth::Recursive } else { Depth::This };
        let namespace = user_namespace(owner, map)?;
        sys::mount_setattr_idmap(tree.as_fd(), depth, namespace.as_fd())
            .context("map the owners (can the file system do that?)")?;
    }
    Ok(tree)
}

/// Looks at the container's mounts with our own rights, and returns.
fn in_mount_namespace<T>(child: &Child, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let handle = |path: &str| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let own =
        rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context("open our mount namespace")?;
    // Joining changes both.
    let (root, directory) = (handle("/").context("open /")?, handle(".").context("open .")?);
    sys::join_namespaces(child.as_fd(), Kind::Mount.flag())
        .context("join the container's mount namespace")?;
    let seen = look();
    let back = || -> Result<()> {
        rustix::thread::move_into_link_name_space(
            own.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Mount),
        )?;
        rustix::process::fchdir(&root)?;
        rustix::process::chroot(".")?;
        rustix::process::fchdir(&directory)?;
        Ok(())
    };
    back().context("return to our mount namespace")?;
    seen
}

/// The namespace whose maps are meant; given ones need one made for them, which nobody lives in.
fn user_namespace(owner: i32, map: &IdMap) -> Result<OwnedFd> {
    let Some((uids, gids)) = &map.maps else { return open_user_namespace(owner) };
    let (ours, theirs) = Channel::pair()?;
    match sys::clone3(Kind::User.flag(), None, Parent::Caller).context("clone3")? {
        Cloned::Child => {
            drop(ours);
            // Until the other end is closed, or we are killed.
            let _ = theirs.receive();
            sys::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let holder = Child { pid, pidfd, channel: ours };
            let made = idmap::write_maps(pid, uids, gids).and_then(|()| open_user_namespace(pid));
            holder.kill()?;
            made
        }
    }
}

fn open_user_namespace(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/user");
    File::open(&path).map(OwnedFd::from).with_context(|| format!("open {path}"))
}
