//! Signals to us are signals to the container: blocked, read from a signalfd, sent on by pidfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys::pidfd::pidfd_send_signal;

pub(crate) struct Signals(SignalFd);

impl Signals {
    pub(crate) fn block() -> Result<Self> {
        let all = SigSet::all();
        all.thread_block().context("block signals")?;
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("signalfd")?;
        Ok(Signals(fd))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The signals that have arrived, but for those that are none of the container's business.
    pub(crate) fn take(&self) -> Result<Vec<i32>> {
        let own = std::process::id();
        let mut signals = Vec::new();
        while let Some(info) = self.0.read_signal().context("read signalfd")? {
            let signal = i32::try_from(info.ssi_signo).context("signal number")?;
            // Our own write to a closed pipe raised it.
            let own_pipe = signal == libc::SIGPIPE && info.ssi_pid == own;
            if signal != libc::SIGURG && !own_pipe {
                signals.push(signal);
            }
        }
        Ok(signals)
    }
}

/// A process that is gone already is told nothing.
pub(crate) fn forward(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("forward signal {signal}")),
    }
}
