//! The first process of a container that asks for one (`imgtool bundle --init`): our binary by the
//! name below. It starts the program, hands signals on to it, reaps whoever lost its parent, which
//! most programs do not, and ends as the program does.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::{log, sys};

/// The file name that makes us this.
const NAME: &str = "container-init";
/// A shell's codes for a program that can't be executed, and for one that is not there.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Whether we were called by that name.
pub(crate) fn is_meant(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name() == Some(OsStr::new(NAME))
}

/// Runs the program of `words`, which a `--` may stand before; returns the exit code.
pub(crate) fn main(words: impl Iterator<Item = OsString>) -> Result<u8> {
    let mut words = words.peekable();
    words.next_if(|word| word == "--");
    let program = words.next().context("usage: container-init [--] PROGRAM [ARGUMENT...]")?;
    // Where somebody else is process 1, orphans come to us all the same. Old kernels' refusal
    // leaves them to that one.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // Blocked before there is a child, so that none is missed.
    let all = SigSet::all();
    all.thread_block().context("block signals")?;
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).context("signalfd")?;
    let mut command = Command::new(&program);
    command.args(words);
    // A terminal's keys are meant for the program; in our group their signals would come twice.
    sys::lead_a_group(&mut command);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            log::error(format!("exec {}: {error}", program.display()));
            let absent = error.kind() == ErrorKind::NotFound;
            return Ok(if absent { NOT_FOUND } else { CANNOT_EXECUTE });
        }
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("pid of the child")?;
    attend(&signals, pid)
}

/// Until the program ends.
fn attend(signals: &SignalFd, program: Pid) -> Result<u8> {
    loop {
        let Some(info) = signals.read_signal().context("read signalfd")? else { continue };
        let signal = i32::try_from(info.ssi_signo).context("signal number")?;
        if signal != libc::SIGCHLD {
            // Not reaped yet, so the number is still its own. A program that took other rights
            // may be beyond ours: nothing is to be done about it.
            let _ = sys::kill(program, signal);
            continue;
        }
        if let Some(status) = reap(program)? {
            return Ok(exit_code(status));
        }
    }
}

/// Takes leave of all children that have ended; the status of `program` if it is among them.
fn reap(program: Pid) -> Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => ended = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for children"),
        }
    }
}

/// As a shell says it: 128 and the signal that ended the program.
fn exit_code(status: WaitStatus) -> u8 {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signalled).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_makes_it() {
        assert!(is_meant(OsStr::new("/run/container-init")));
        assert!(is_meant(OsStr::new("container-init")));
        assert!(!is_meant(OsStr::new("/run/container-init/runtime")));
        assert!(!is_meant(OsStr::new("")));
    }
}
