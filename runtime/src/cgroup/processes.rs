//! The processes of a cgroup and of those beneath it, and signals to all of them.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::files::{Dir, is_gone};
use super::{Cgroup, Mode, tree};
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
            tree::walk(dir, |dir| collect(dir, &mut pids), |_, _| Ok(()))?;
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
            match dir.write("cgroup.kill", "1") {
                Ok(()) if self.mode == Mode::V2 => return Ok(()),
                Ok(()) => {}
                // A threaded cgroup does not take it.
                Err(error) if error.errno == Errno::OPNOTSUPP => {}
                Err(error) if is_gone(error.errno) => return Ok(()),
                Err(error) => return Err(error.into()),
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

/// The processes of this very cgroup.
fn collect(dir: &Dir, pids: &mut Vec<i32>) -> Result<()> {
    let text = match dir.read("cgroup.procs") {
        Ok(text) => text,
        Err(error) if is_gone(error.errno) => return Ok(()),
        // The processes of a threaded cgroup are listed at the root of its domain only, which may
        // be above the container.
        Err(error) if error.errno == Errno::OPNOTSUPP => return collect_threads(dir, pids),
        Err(error) => return Err(error.into()),
    };
    for line in text.lines() {
        pids.push(parse(line)?);
    }
    Ok(())
}

fn collect_threads(dir: &Dir, pids: &mut Vec<i32>) -> Result<()> {
    let known: BTreeSet<i32> = pids.iter().copied().collect();
    let mut new = BTreeSet::new();
    for line in dir.read_if_exists("cgroup.threads")?.unwrap_or_default().lines() {
        // A thread that has ended meanwhile, or one outside our pid namespace.
        let Some(process) = process_of(parse(line)?)? else { continue };
        new.insert(process);
    }
    pids.extend(new.difference(&known));
    Ok(())
}

fn parse(line: &str) -> Result<i32> {
    line.parse().with_context(|| format!("parse pid {line:?}"))
}

/// The process that a thread belongs to; `None` if there is no such thread any more.
fn process_of(thread: i32) -> Result<Option<i32>> {
    let path = format!("/proc/{thread}/status");
    match crate::pseudo::read_to_string(&path) {
        Ok(text) => {
            Ok(text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {path}")),
    }
}
