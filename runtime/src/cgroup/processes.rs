//! The processes of a cgroup and of those beneath it, and signals to all of them.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Cgroup;
use super::files::{Dir, is_gone};
use crate::sys::pidfd::pidfd_send_signal;

/// Processes may fork between the list and the signal; without a freezer several rounds are
/// needed. What is left after these is `remove`'s to report.
const KILL_ROUNDS: u32 = 100;

impl Cgroup {
    /// All processes, those in cgroups beneath included. None if the cgroup is gone.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(hierarchy) = self.principal()
            && let Some(dir) = Dir::open_if_exists(&hierarchy.path)?
        {
            collect(&dir, &mut pids)?;
        }
        Ok(pids)
    }

    /// Sends a signal to every process. After SIGKILL nothing in the cgroup stays frozen.
    pub(crate) fn kill(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.kill_all();
        }
        self.signal_all(signal).map(drop)
    }

    fn kill_all(&self) -> Result<()> {
        // One write that also catches whoever is just being forked (5.14).
        if let Some(unified) = self.unified()
            && let Some(dir) = Dir::open_if_exists(&unified.path)?
            && dir.exists("cgroup.kill")?
        {
            dir.write("cgroup.kill", "1")?;
            if self.mode == super::Mode::V2 {
                return Ok(());
            }
        }
        // A failed freeze (a task in uninterruptible sleep) only means that more rounds are due.
        let frozen = self.freeze();
        let mut result = Ok(());
        for _ in 0..KILL_ROUNDS {
            match self.signal_all(libc::SIGKILL) {
                Ok(0) => break,
                Ok(_) if frozen.is_ok() => break,
                Ok(_) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        // The dead of a frozen v1 cgroup die when it thaws.
        if self.exists()? && (frozen.is_ok() || self.is_frozen()?) {
            self.thaw()?;
        }
        result
    }

    /// Signals every process once; how many there were.
    fn signal_all(&self, signal: i32) -> Result<usize> {
        let mut targets: Vec<(i32, OwnedFd)> = Vec::new();
        for pid in self.pids()? {
            // 0 stands for a process outside our pid namespace, and as a target for ourselves.
            let Some(target) = Pid::from_raw(pid) else { continue };
            match pidfd_open(target, PidfdFlags::empty()) {
                Ok(pidfd) => targets.push((pid, pidfd)),
                Err(Errno::SRCH) => {}
                // A thread's id, in a threaded cgroup: its leader is listed at the root.
                Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(errno).with_context(|| format!("open process {pid}")),
            }
        }
        // Whoever is still listed now is the process that the descriptor stands for: its number
        // can't have gone to another one outside.
        let still = self.pids()?;
        targets.retain(|(pid, _)| still.contains(pid));
        for (pid, pidfd) in &targets {
            match pidfd_send_signal(pidfd, signal) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("signal process {pid}"));
                }
            }
        }
        Ok(targets.len())
    }
}

fn collect(dir: &Dir, pids: &mut Vec<i32>) -> Result<()> {
    let text = match dir.read("cgroup.procs") {
        Ok(text) => text,
        Err(error) if is_gone(error.errno) => return Ok(()),
        // The processes of a threaded cgroup are listed at the root of its domain.
        Err(error) if error.errno == Errno::OPNOTSUPP => String::new(),
        Err(error) => return Err(error.into()),
    };
    for line in text.lines() {
        pids.push(line.parse().with_context(|| format!("parse pid {line:?}"))?);
    }
    let children = match dir.children() {
        Ok(names) => names,
        Err(error) if is_gone(error.errno) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in children {
        match dir.child(&name) {
            Ok(child) => collect(&child, pids)?,
            Err(error) if is_gone(error.errno) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
