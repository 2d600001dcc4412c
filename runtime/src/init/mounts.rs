//! The child half of `mounts`: joins the container and changes its mounts from within, by
//! descriptors resolved beneath its root.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use super::{fail, joining, open_root, own_process};
use crate::apply::identity;
use crate::apply::mounts::{CgroupView, Mounter, clone_tree};
use crate::channel::{Channel, Message};
use crate::plan::mounts::{Kind as MountKind, MountPlan};
use crate::plan::namespaces::Kind;
use crate::procfs::{Descriptors, Procfs};
use crate::rooted::Root;
use crate::sys::{self, Depth};

/// What the parent half gives.
pub(crate) struct Change<'a> {
    pub(crate) init: BorrowedFd<'a>,
    /// To be joined by a process in between, as for `exec`.
    pub(crate) relayed: u64,
    /// The others to join, without that of the pids.
    pub(crate) namespaces: u64,
    pub(crate) mounts: &'a [MountPlan],
    pub(crate) remove: bool,
    /// One place per mount to add; filled where it is the host's.
    pub(crate) sources: Vec<Option<OwnedFd>>,
    pub(crate) mount_label: &'a str,
    pub(crate) cgroups: &'a CgroupView,
    pub(crate) channel: Channel,
}

/// Changes the container's mounts, tells how that went, and ends.
pub(crate) fn change(mut change: Change) -> ! {
    let sources = std::mem::take(&mut change.sources);
    match steps(&change, sources).and_then(|()| change.channel.send(&Message::Ready)) {
        Ok(()) => sys::exit_now(0),
        Err(error) => fail(Some(change.channel), &error),
    }
}

fn steps(change: &Change, sources: Vec<Option<OwnedFd>>) -> Result<()> {
    own_process(None, 0)?;
    // The container's may be missing, or not what it seems.
    let outside = Procfs::of_host()?;
    if change.relayed != 0 {
        joining::relay_into(change.init, change.relayed, &change.channel)?;
    }
    sys::join_namespaces(change.init, change.namespaces)
        .context("join the namespaces of the container's init")?;
    if (change.namespaces | change.relayed) & Kind::User.flag() != 0 {
        identity::set_ids(0, 0)?;
    }
    let root = open_root(Path::new("/"))?;
    let descriptors = Procfs::private_or(outside).descriptors()?;
    if change.remove {
        return remove_all(change.mounts, &root, &descriptors);
    }
    let mut mounter = Mounter::new(&root, change.mount_label, change.cgroups);
    for (index, (mount, source)) in change.mounts.iter().zip(sources).enumerate() {
        if let Err(error) = mounter.mount(index, mount, source) {
            let made: Vec<MountPlan> =
                change.mounts[..index].iter().filter(|mount| !mount.remount).cloned().collect();
            return Err(match remove_all(&made, &root, &descriptors) {
                Ok(()) => error,
                Err(also) => error.context(format!("remove the mounts before it: {also:#}")),
            });
        }
    }
    mounter.finish()
}

/// The last one first, as it may lie in one before it.
fn remove_all(mounts: &[MountPlan], root: &Root, descriptors: &Descriptors) -> Result<()> {
    for (index, mount) in mounts.iter().enumerate().rev() {
        remove(&mount.target, root, descriptors)
            .with_context(|| format!("mounts[{index}]: remove {}", mount.destination.display()))?;
    }
    Ok(())
}

fn remove(target: &Path, root: &Root, descriptors: &Descriptors) -> Result<()> {
    // Through a symlink the container could have us unmount what keeps it in.
    let handle = match root.open_no_symlinks(target, OFlags::PATH) {
        Err(Errno::LOOP) => bail!("there is a symlink in its path"),
        opened => opened?,
    };
    let stat = rustix::fs::statx(&handle, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .context("statx")?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        bail!("nothing is mounted there");
    }
    descriptors.unmount(handle.as_fd())
}

/// Stays among the host's mounts, as the container's user namespace sees them, until the parent
/// half is done with it, and opens what it asks for.
pub(crate) fn window(
    init: BorrowedFd,
    mounts: &[MountPlan],
    propagation: MountPropagationFlags,
    channel: Channel,
) -> ! {
    let Err(error) = look(init, mounts, propagation, &channel);
    fail(Some(channel), &error)
}

/// As with all of the container's mounts when it was made: its own do not reach the host. Only
/// somebody with rights over the mount namespace that the tree is from can do this.
pub(crate) fn propagate(tree: BorrowedFd, propagation: MountPropagationFlags) -> Result<()> {
    if propagation == MountPropagationFlags::SHARED {
        return Ok(());
    }
    sys::mount_setattr_propagation(tree, Depth::Recursive, propagation)
        .context("set the propagation")
}

fn look(
    init: BorrowedFd,
    mounts: &[MountPlan],
    propagation: MountPropagationFlags,
    channel: &Channel,
) -> Result<Infallible> {
    own_process(None, 0)?;
    sys::join_namespaces(init, Kind::User.flag()).context("join the user namespace")?;
    sys::unshare(Kind::Mount.flag()).context("unshare the mount namespace")?;
    channel.send(&Message::Ready)?;
    loop {
        let Some(Message::Source(index)) = channel.receive()? else { sys::exit_now(0) };
        let mount = usize::try_from(index).ok().and_then(|index| mounts.get(index));
        match mount.map(|mount| (mount, mount.kind)) {
            Some((mount, MountKind::Bind { .. })) if mount.id_map.is_some() => {
                bail!("only root can map the owners of files")
            }
            Some((mount, MountKind::Bind { recursive })) => {
                let tree = clone_tree(&mount.source, recursive)?;
                propagate(tree.as_fd(), propagation)?;
                channel.send(&Message::Tree(tree))?;
            }
            _ => bail!("there is no such bind"),
        }
    }
}
