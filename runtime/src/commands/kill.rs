//! `kill`: a signal to the init process, or to every process of the container.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};

use super::{for_each_id, for_each_match, supervised};
use crate::args::Kill;
use crate::error::Sentinel;
use crate::host::{Host, Program};
use crate::records::Records;
use crate::signals;
use crate::state::{self, Record, StateStore, Status};
use crate::sys::pidfd::pidfd_send_signal;

pub(super) fn run(args: Kill, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    let kill = |id: &str, signal: i32| {
        supervised::note_kill(id, signal, records)?;
        kill(id, signal, args.all, store)
    };
    if args.regex {
        let signal = match args.rest.as_slice() {
            [] => libc::SIGTERM,
            [signal] => signals::parse(signal)?,
            _ => bail!("kill --regex takes one expression and a signal"),
        };
        return for_each_match(&[args.id], store, records, |id| kill(id, signal));
    }
    let (ids, signal) = split(args.id, args.rest, host.program, |id| store.directory(id).exists())?;
    for_each_id(&ids, |id| kill(id, signal))
}

/// The last of several words is the signal if it can be one. `runtime` takes several ids, so
/// there a word that is neither a signal nor a container is an error about the signal.
fn split(
    id: String,
    mut rest: Vec<String>,
    program: Program,
    exists: impl Fn(&str) -> bool,
) -> Result<(Vec<String>, i32)> {
    let signal = match rest.last().map(|word| signals::parse(word)) {
        None => libc::SIGTERM,
        Some(Ok(signal)) => {
            rest.pop();
            signal
        }
        Some(Err(error)) => {
            if program == Program::Runc || !rest.last().is_some_and(|word| exists(word)) {
                return Err(error);
            }
            libc::SIGTERM
        }
    };
    rest.insert(0, id);
    Ok((rest, signal))
}

fn kill(id: &str, signal: i32, all: bool, store: &StateStore) -> Result<()> {
    let record = store.load(id)?;
    if all {
        return record.cgroup().kill(signal);
    }
    if signal == libc::SIGKILL
        && !record.private_pid_namespace()
        && !record.cgroup().pids()?.is_empty()
    {
        // No init's death ends the others, who may outlive it.
        return kill_all(&record);
    }
    let status = state::status(store, &record)?;
    let pidfd = match record.pidfd()? {
        Some(pidfd) if status != Status::Stopped => pidfd,
        _ => return Err(Sentinel::NotRunning.into()),
    };
    send(&pidfd, signal)?;
    if signal == libc::SIGKILL && status == Status::Paused {
        // A frozen process of cgroup v1 dies when it is thawed.
        record.cgroup().thaw()?;
    }
    Ok(())
}

fn send(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(Sentinel::NotRunning.into()),
        other => other.context("send the signal"),
    }
}

/// The end of a container, whatever its processes think of it.
pub(super) fn kill_all_or_init(record: &Record) -> Result<()> {
    if !record.private_pid_namespace() && !record.cgroup().pids()?.is_empty() {
        return kill_all(record);
    }
    super::delete::kill_init(record, &record.cgroup())
}

/// SIGKILL to all that the container's cgroup holds.
pub(super) fn kill_all(record: &Record) -> Result<()> {
    record.cgroup().kill(libc::SIGKILL)
}
