//! `start`: lets the program of a created container begin.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{for_each_id, supervised};
use crate::args::Start;
use crate::hooks;
use crate::records::Records;
use crate::spec::Hooks;
use crate::state::{self, EXEC_FIFO, Record, StateStore, Status};

pub(super) fn run(args: &Start, store: &StateStore, records: &Records) -> Result<u8> {
    let ids = if args.boot {
        supervised::wanted_at_boot(&args.ids, store, records)?
    } else if args.ids.is_empty() {
        bail!("\"start\" requires a minimum of 1 argument(s)");
    } else {
        args.ids.clone()
    };
    for_each_id(&ids, |id| match records.find(id)? {
        Some(record) => supervised::start(&record, store, records),
        None => start(id, store),
    })
}

/// Starts one container; returns when its program has begun.
pub(super) fn start(id: &str, store: &StateStore) -> Result<()> {
    let record = store.load(id)?;
    let claim = store.claim(id)?;
    match state::status(store, &record)? {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        other => bail!("cannot start a container in the {other} state"),
    }
    let outline = store.load_outline(id)?;
    if outline.process.is_none() {
        // It stays as it is: an operation that is refused changes nothing.
        bail!(
            "cannot start a container that was created without a process: process property must \
             not be empty in config.json"
        );
    }
    let pidfd = record.pidfd()?.context("cannot start a container that has stopped")?;
    release(store, id, &pidfd)?;
    drop(claim);
    poststart(outline.hooks.as_ref(), &record)
}

/// Starts what this process itself has just created, of which nothing has to be found out anew.
pub(super) fn start_own(
    id: &str,
    pidfd: &OwnedFd,
    hooks: Option<&Hooks>,
    store: &StateStore,
) -> Result<()> {
    let claim = store.claim(id)?;
    let hooks = hooks.filter(|hooks| !hooks.poststart.is_empty());
    // Before another may delete what has ended already.
    let record = hooks.map(|_| store.load(id)).transpose()?;
    release(store, id, pidfd)?;
    drop(claim);
    record.map_or(Ok(()), |record| poststart(hooks, &record))
}

/// Opens the pipe that init waits on. Init may be dead already, or die at any moment: its pidfd
/// is watched alongside, and what it wrote before it died still counts.
fn release(store: &StateStore, id: &str, pidfd: &OwnedFd) -> Result<()> {
    let path = store.directory(id).join(EXEC_FIFO);
    let mut fifo = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(&path)
        .context("open exec fifo")?;
    await_begin(&mut fifo, pidfd)?;
    remove_fifo(&path)
}

fn await_begin(fifo: &mut File, pidfd: &OwnedFd) -> Result<()> {
    loop {
        let mut fds = [
            PollFd::new(fifo.as_fd(), PollFlags::POLLIN),
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll exec fifo"),
        }
        let dead = fds[1].any().unwrap_or(false);
        let mut byte = [0];
        match fifo.read(&mut byte) {
            Ok(1) => return Ok(()),
            // No writer (yet), or a writer that has not written (yet).
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("read exec fifo"),
        }
        if dead {
            bail!("cannot start a container that has stopped");
        }
    }
}

fn remove_fifo(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The program runs already: a hook that fails ends it.
fn poststart(hooks: Option<&Hooks>, record: &Record) -> Result<()> {
    let Some(hooks) = hooks.filter(|hooks| !hooks.poststart.is_empty()) else {
        return Ok(());
    };
    let document = state::hook_document(record, Status::Running, record.init_process_pid)?;
    let Err(error) = hooks::run("poststart", &hooks.poststart, &document, &record.bundle()) else {
        return Ok(());
    };
    match super::kill::kill_all(record) {
        Ok(()) => Err(error),
        Err(also) => Err(error.context(format!("kill the container: {also:#}"))),
    }
}
