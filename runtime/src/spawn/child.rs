//! The process that was cloned, as the parent half holds it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use crate::channel::{Channel, Message};

/// A child and the line to it.
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) channel: Channel,
}

impl Child {
    /// Waits until the relay has made the container's process, which takes its place here.
    pub(super) fn follow_relay(&mut self) -> Result<()> {
        let pid = match self.channel.receive()? {
            Some(Message::Relayed(pid)) => pid,
            Some(Message::Failed(text)) => bail!("error during container init: {text}"),
            Some(other) => bail!("waited for a relayed process, got {other:?}"),
            None => bail!("the process that joins namespaces died"),
        };
        let process = Pid::from_raw(pid).context("relayed pid 0")?;
        let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty())
            .context("pidfd_open of the relayed process")?;
        self.wait()?;
        self.pid = pid;
        self.pidfd = pidfd;
        Ok(())
    }

    /// Sends a message; the child's own word on why it is gone comes first, if it is.
    pub(super) fn tell(&self, message: &Message) -> Result<()> {
        let Err(error) = self.channel.send(message) else { return Ok(()) };
        match self.channel.receive() {
            Ok(Some(Message::Failed(text))) => bail!("error during container init: {text}"),
            _ => Err(error),
        }
    }

    /// Ends it and waits for that.
    pub(super) fn kill(&self) -> Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("kill the child"),
        }
        self.wait().map(|_| ())
    }

    /// Waits for its end; `None` if somebody else has.
    pub(super) fn wait(&self) -> Result<Option<WaitIdStatus>> {
        let waited = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        });
        match waited {
            Err(rustix::io::Errno::CHILD) => Ok(None),
            other => other.context("wait for the child"),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
