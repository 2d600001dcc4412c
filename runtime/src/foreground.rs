//! What `run` and `exec` do while they stay: forward signals, relay the terminal or the pipes,
//! reap what the container leaves to us, and end with the process's own status.
//!
//! One loop over poll(2), no thread; each direction has one bounded buffer, so that a reader that
//! stalls makes the container wait and nothing else.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid};
use rustix::process::{WaitOptions, WaitStatus};

use crate::spawn::{Spawned, Stdio, idmap};
use crate::spec::Spec;
use crate::{error, log};

pub(crate) mod relay;
pub(crate) mod signals;
pub(crate) mod terminal;

use relay::Relay;
use signals::Signals;
use terminal::RawMode;

/// Our ends of the process's stdio.
pub(crate) enum Ours {
    /// The master comes with the process.
    Terminal,
    /// Write to the first, read from the others.
    Pipes([OwnedFd; 3]),
}

/// Pipes that the container's root owns, unless there is to be a terminal. Our own stdio is not
/// given away: it may be the user's terminal.
pub(crate) fn stdio(terminal: bool, spec: &Spec) -> Result<(Ours, Stdio)> {
    if terminal {
        return Ok((Ours::Terminal, Stdio::Inherit));
    }
    let (stdin, to_stdin) = pipe()?;
    let (from_stdout, stdout) = pipe()?;
    let (from_stderr, stderr) = pipe()?;
    let theirs = [stdin, stdout, stderr];
    let (uid, gid) = idmap::container_root(spec);
    for end in &theirs {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match nix::unistd::fchown(end, owner.0, owner.1) {
            // Without root the pipes are ours, and so is the container's root.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(error) => return Err(error).context("chown the pipes"),
        }
    }
    Ok((Ours::Pipes([to_stdin, from_stdout, from_stderr]), Stdio::Fds(theirs)))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("pipe2")
}

/// The state of the terminal and of the signals, from before the process exists until it is gone.
pub(crate) struct Foreground {
    ours: Option<Ours>,
    signals: Signals,
    raw_mode: Option<RawMode>,
}

impl Foreground {
    /// From here on signals wait to be forwarded: none may be lost that comes early.
    pub(crate) fn new(ours: Ours, subreaper: bool) -> Result<Self> {
        if subreaper {
            nix::sys::prctl::set_child_subreaper(true).context("become a subreaper")?;
        }
        Ok(Foreground { ours: Some(ours), signals: Signals::block()?, raw_mode: None })
    }

    /// Serves the process until its end; its exit code, or 128 and the signal that killed it.
    pub(crate) fn wait(&mut self, spawned: Spawned) -> Result<u8> {
        let Spawned { pid, pidfd, console, .. } = spawned;
        let master = console.as_ref().map(OwnedFd::try_clone).transpose().context("dup console")?;
        if let Some(master) = &master {
            self.raw_mode = RawMode::enter()?;
            terminal::copy_size(master)?;
        }
        let mut relay = match (console, self.ours.take()) {
            (Some(console), _) => Relay::terminal(console)?,
            (None, Some(Ours::Pipes(pipes))) => Relay::pipes(pipes)?,
            (None, _) => Relay::nothing(),
        };
        let mut status = None;
        while status.is_none() {
            let exited = self.wait_for_event(&relay, &pidfd)?;
            // What is typed after the end is for whoever reads the terminal next.
            if !exited {
                relay.step();
            }
            for signal in self.signals.take()? {
                match signal {
                    libc::SIGWINCH => {
                        if let Some(master) = &master {
                            terminal::copy_size(master)?;
                        }
                    }
                    libc::SIGCHLD => status = status.or(reap(pid)?),
                    signal => signals::forward(&pidfd, signal)?,
                }
            }
            if exited && status.is_none() {
                status = Some(reap(pid)?.context("the process is not our child")?);
            }
        }
        let lost = relay.finish(&self.signals)?;
        self.raw_mode = None;
        match (lost, status.map_or(0, exit_code)) {
            (Some(error), 0) => Err(error),
            // How the process ended says more.
            (Some(error), code) => {
                log::warn(error::render(&error));
                Ok(code)
            }
            (None, code) => Ok(code),
        }
    }

    fn wait_for_event(&self, relay: &Relay, pidfd: &OwnedFd) -> Result<bool> {
        let mut fds = vec![
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.fd(), PollFlags::POLLIN),
        ];
        relay.add_to(&mut fds);
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => Ok(fds[0].any().unwrap_or(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error).context("poll"),
        }
    }
}

/// Collects every child that has ended; the status if ours is among them.
fn reap(pid: i32) -> Result<Option<WaitStatus>> {
    let mut found = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Ok(Some((child, status))) if child.as_raw_pid() == pid => found = Some(status),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}

/// The code that stands for this end: 128 and the signal, if one ended it.
pub(crate) fn exit_code(status: WaitStatus) -> u8 {
    let code = match status.terminating_signal() {
        Some(signal) => 128 + signal,
        None => status.exit_status().unwrap_or(0),
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
