//! Mounts that come to a container that is there, or go from it: what is bound is opened here, with
//! the host's paths and rights; a process that joins the container puts it into place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::mount::MountPropagationFlags;

use super::child::Child;
use super::{cgroup_view, join_pids, own_pid_namespace, set_undumpable, sources};
use crate::apply::mounts::detached;
use crate::channel::{Channel, Message};
use crate::host::Host;
use crate::init::mounts as inside;
use crate::plan;
use crate::plan::mounts::{Kind as MountKind, MountPlan};
use crate::plan::namespaces::{Kind, Namespaces};
use crate::spec::{Linux, Spec};
use crate::state::{Claim, Record};
use crate::sys::{self, Cloned, Parent};

/// What is to change, and where.
pub(crate) struct Request<'a> {
    pub(crate) host: &'a Host,
    /// With a live init.
    pub(crate) record: &'a Record,
    /// The container's own config.json.
    pub(crate) spec: &'a Spec,
    /// Held until all is done.
    pub(crate) claim: &'a Claim,
    /// The container's init.
    pub(crate) init: BorrowedFd<'a>,
    pub(crate) mounts: &'a [MountPlan],
    pub(crate) remove: bool,
}

/// Makes all of the mounts or none; or removes them, the last one first.
pub(crate) fn change(request: &Request) -> Result<()> {
    let empty = Linux::default();
    let linux = request.spec.linux.as_ref().unwrap_or(&empty);
    let namespaces = Namespaces::plan(linux)?;
    if !namespaces.has(Kind::Mount) {
        bail!("the container has no mounts of its own: it shares the host's mount namespace");
    }
    // Seen in the container, and not to be looked into (CVE-2016-9962).
    set_undumpable()?;
    let sources = if request.remove { Vec::new() } else { open(request, &namespaces, linux)? };
    let cgroup = request.record.cgroup();
    let view = cgroup_view(cgroup.mode(), cgroup.record(), &namespaces);
    let flags = namespaces.all_flags();
    let own = own_pid_namespace()?;
    // A procfs shows the processes of whoever makes it.
    let relayed = join_pids(request.init, flags)?;
    let (ours, theirs) = Channel::pair()?;
    let cloned = sys::clone3(0, None, Parent::Caller);
    if let Ok(Cloned::Child) = cloned {
        sys::close_inherited(request.claim.as_fd());
        drop(ours);
        inside::change(inside::Change {
            init: request.init,
            relayed,
            namespaces: flags & !Kind::Pid.flag() & !relayed,
            mounts: request.mounts,
            remove: request.remove,
            sources,
            mount_label: &linux.mount_label,
            cgroups: &view,
            channel: theirs,
        })
    }
    drop(theirs);
    if flags & Kind::Pid.flag() != 0 && relayed == 0 {
        own.enter().context("return to our pid namespace")?;
    }
    let Cloned::Parent { pid, pidfd } = cloned.context("clone3")? else {
        bail!("the child has come back")
    };
    let mut child = Child { pid, pidfd, channel: ours };
    if relayed != 0 {
        child.follow_relay()?;
    }
    let done = child.channel.receive().and_then(|message| match message {
        Some(Message::Ready) => Ok(()),
        Some(Message::Failed(text)) => bail!(text),
        Some(other) => bail!("unexpected message {other:?}"),
        None => bail!("the process that entered the container was killed"),
    });
    child.kill()?;
    done
}

/// What has to come from the host, mount by mount.
fn open(request: &Request, namespaces: &Namespaces, linux: &Linux) -> Result<Vec<Option<OwnedFd>>> {
    let user = namespaces.has(Kind::User);
    let binds = |mount: &MountPlan| matches!(mount.kind, MountKind::Bind { .. }) && !mount.remount;
    let (propagation, _) = plan::propagation(&linux.rootfs_propagation)?;
    let window = if user && request.mounts.iter().any(binds) {
        Some(open_window(request, propagation)?)
    } else {
        None
    };
    let one = |(index, mount): (usize, &MountPlan)| -> Result<Option<OwnedFd>> {
        match mount.kind {
            MountKind::Other if user => bail!(
                "a {} can't be mounted in a user namespace: mount it on the host and bind it",
                mount.filesystem
            ),
            MountKind::Other => detached(mount).map(Some),
            MountKind::Bind { .. } if !mount.remount => {
                if let Some(window) = &window
                    && request.host.euid != 0
                {
                    return ask(window, index).map(Some);
                }
                let init = request.record.init_process_pid;
                let tree = sources::tree(mount, window.as_ref(), init)?;
                inside::propagate(tree.as_fd(), propagation)?;
                Ok(Some(tree))
            }
            _ => Ok(None),
        }
    };
    let opened = request
        .mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            one((index, mount)).with_context(|| format!("mounts[{index}]")).with_context(|| {
                format!("error mounting {:?} to rootfs at {:?}", mount.source, mount.destination)
            })
        })
        .collect();
    if let Some(window) = window {
        window.kill()?;
    }
    opened
}

/// A process that sees the host's mounts with the rights of the container's user namespace, so
/// that what is taken from there is locked as what the container got when it was made.
fn open_window(request: &Request, propagation: MountPropagationFlags) -> Result<Child> {
    let (ours, theirs) = Channel::pair()?;
    match sys::clone3(0, None, Parent::Caller).context("clone3")? {
        Cloned::Child => {
            sys::close_inherited(request.claim.as_fd());
            drop(ours);
            inside::window(request.init, request.mounts, propagation, theirs)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let window = Child { pid, pidfd, channel: ours };
            match window.channel.receive()? {
                Some(Message::Ready) => Ok(window),
                Some(Message::Failed(text)) => bail!(text),
                Some(other) => bail!("unexpected message {other:?}"),
                None => bail!("the process in the container's user namespace was killed"),
            }
        }
    }
}

/// Without root's rights only a process in there can open it.
fn ask(window: &Child, index: usize) -> Result<OwnedFd> {
    window.tell(&Message::Source(u32::try_from(index).context("number of a mount")?))?;
    match window.channel.receive()? {
        Some(Message::Tree(tree)) => Ok(tree),
        Some(Message::Failed(text)) => bail!(text),
        Some(other) => bail!("waited for the source of a mount, got {other:?}"),
        None => bail!("the process in the container's user namespace was killed"),
    }
}
