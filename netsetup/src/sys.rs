//! The calls that have no safe wrapper.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Processes of ours that may have ended without anybody asking how.
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Does something in a process of its own that nobody waits for. Of what is open here only `kept`
/// is open there: not the lock, which others wait for, nor the output, whose end our caller does.
pub(crate) fn aside(kept: &[BorrowedFd], work: impl FnOnce()) -> Result<()> {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_alive = |pid: &Pid| {
        waitpid(*pid, Some(WaitPidFlag::WNOHANG)).is_ok_and(|it| it == WaitStatus::StillAlive)
    };
    children.retain(is_alive);
    // SAFETY: this process has one thread, so that no lock is held by one that is missing there.
    match unsafe { fork() }.context("start a process")? {
        ForkResult::Parent { child } => {
            children.push(child);
            Ok(())
        }
        ForkResult::Child => {
            if close_all_but(kept).is_ok() {
                work();
            }
            // SAFETY: ends the process at once; what it shares with its parent is not cleaned up.
            unsafe { libc::_exit(0) }
        }
    }
}

fn close_all_but(kept: &[BorrowedFd]) -> Result<()> {
    let numbers = kept.iter().map(|it| u32::try_from(it.as_raw_fd()));
    let mut numbers: Vec<u32> = numbers.collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    let mut next = 0;
    for number in numbers {
        if next < number {
            close_range(next, number - 1)?;
        }
        next = number + 1;
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: nothing uses the descriptors again: this process does one thing more and ends
    // without cleaning up.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
        bail!("close what is open: {}", std::io::Error::last_os_error());
    }
    Ok(())
}
