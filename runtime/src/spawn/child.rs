//! The process that was cloned, as the parent half holds it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};

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
        let pidfd = match self.channel.receive()? {
            Some(Message::Relayed(pidfd)) => pidfd,
            Some(Message::Failed(text)) => bail!("error during container init: {text}"),
            Some(other) => bail!("waited for a relayed process, got {other:?}"),
            None => bail!("the process that joins namespaces died"),
        };
        self.wait()?;
        self.pid = pid_of(&pidfd)?;
        self.pidfd = pidfd;
        Ok(())
    }

    /// Sends a message; the child's own word on why it is gone comes first, if it is.
    pub(super) fn tell(&self, message: &Message) -> Result<()> {
        let Err(error) = self.channel.send(message) else { return Ok(()) };
        // One that is still there waits for us, and would say nothing.
        if error.downcast_ref() != Some(&rustix::io::Errno::PIPE) {
            return Err(error);
        }
        match self.channel.receive() {
            Ok(Some(Message::Failed(text))) => bail!("error during container init: {text}"),
            _ => Err(error),
        }
    }

    /// A copy of the child's descriptor `number`, without its doing.
    pub(super) fn take_descriptor(&self, number: i32) -> Result<OwnedFd, rustix::io::Errno> {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        rustix::process::pidfd_getfd(&self.pidfd, number, flags)
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

/// The pid by which we know the process.
fn pid_of(pidfd: &OwnedFd) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = crate::pseudo::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .context("the container's process is gone or not of our pid namespace")
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
