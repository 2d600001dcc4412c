//! Entering namespaces: those of others by descriptor, and a new time namespace.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::thread::LinkNameSpaceType;

use crate::channel::{Channel, Message};
use crate::plan::namespaces::Kind;
use crate::sys::{self, Cloned, Parent};

/// A namespace to join, opened on the host.
pub(crate) struct Join {
    pub(crate) kind: Kind,
    pub(crate) namespace: OwnedFd,
}

impl Join {
    pub(crate) fn enter(&self) -> Result<(), Errno> {
        let kind = match self.kind {
            Kind::Pid => LinkNameSpaceType::ProcessID,
            Kind::Network => LinkNameSpaceType::Network,
            Kind::Mount => LinkNameSpaceType::Mount,
            Kind::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Kind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            Kind::User => LinkNameSpaceType::User,
            Kind::Cgroup => LinkNameSpaceType::ControlGroup,
            Kind::Time => LinkNameSpaceType::Time,
        };
        rustix::thread::move_into_link_name_space(self.namespace.as_fd(), Some(kind))
    }
}

/// Joins all but the pid namespace, which the parent enters for us. Some may be entered only with
/// the host's rights, some only with those that the user namespace gives: so it comes in the
/// middle, and what was refused before it is tried again.
pub(crate) fn join_all(joins: &[Join]) -> Result<()> {
    let mut refused = Vec::new();
    let others = joins.iter().filter(|join| !matches!(join.kind, Kind::User | Kind::Pid));
    let has_user = joins.iter().any(|join| join.kind == Kind::User);
    for join in others {
        match join.enter() {
            Err(Errno::PERM) if has_user => refused.push(join),
            other => other.with_context(|| format!("join the {} namespace", join.kind.name()))?,
        }
    }
    let user = joins.iter().filter(|join| join.kind == Kind::User);
    for join in user.chain(refused) {
        join.enter().with_context(|| format!("join the {} namespace", join.kind.name()))?;
    }
    Ok(())
}

/// Makes a time namespace, sets its clocks, and enters it, for which unshare alone is not enough.
pub(crate) fn enter_new_time_namespace(offsets: &str) -> Result<()> {
    sys::unshare(Kind::Time.flag()).context("unshare the time namespace")?;
    // The root has not changed yet: this is the host's /proc.
    if !offsets.is_empty() {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/proc/self/timens_offsets")
            .and_then(|mut file| file.write_all(offsets.as_bytes()))
            .context("write /proc/self/timens_offsets")?;
    }
    let namespace = std::fs::File::open("/proc/self/ns/time_for_children")
        .context("open the new time namespace")?;
    Join { kind: Kind::Time, namespace: namespace.into() }
        .enter()
        .context("enter the new time namespace")
}

/// What is to be made only after joining, by a process in between.
pub(crate) struct Relay {
    pub(crate) new: u64,
    /// The parent half could not enter the pid namespace, which only those of its user namespace may.
    pub(crate) enters_pids: bool,
}

/// Where new namespaces are to belong to a user namespace that has to be joined or made after
/// others were joined: a process in between does that, makes the container's as its sibling, tells
/// the parent half, and leaves. Returns in the container's process.
pub(crate) fn relay(joins: &[Join], relay: &Relay, channel: &Channel) -> Result<()> {
    join_all(joins)?;
    for pids in joins.iter().filter(|join| relay.enters_pids && join.kind == Kind::Pid) {
        pids.enter().context("join the pid namespace")?;
    }
    make_sibling(relay.new, channel)
}

/// The same to come into a container: `namespaces` of its first process are joined before.
pub(crate) fn relay_into(init: BorrowedFd, namespaces: u64, channel: &Channel) -> Result<()> {
    sys::join_namespaces(init, namespaces).context("join the container's user namespace")?;
    make_sibling(0, channel)
}

fn make_sibling(new: u64, channel: &Channel) -> Result<()> {
    let (told, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("pipe2")?;
    match sys::clone3(new, None, Parent::Grandparent).context("clone3")? {
        Cloned::Child => {
            // Nothing of ours may come before the word that we are there. The end of who says it is the sign.
            drop(tell);
            rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut [0]))
                .context("wait for the relay")?;
            Ok(())
        }
        Cloned::Parent { pidfd, .. } => {
            channel.send(&Message::Relayed(pidfd))?;
            sys::exit_now(0)
        }
    }
}
