//! `delete`: unmakes a container, whole or half made, in one order: processes, cgroup, record,
//! poststop hooks.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{for_each_id, for_each_match, supervised};
use crate::args::Delete;
use crate::cgroup::Cgroup;
use crate::error::{self, Sentinel};
use crate::hooks;
use crate::log;
use crate::records::Records;
use crate::resctrl;
use crate::state::{self, Record, StateStore, Status};
use crate::sys::pidfd::pidfd_send_signal;

/// runc's patience with a process that was sent SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(args: &Delete, store: &StateStore, records: &Records) -> Result<u8> {
    let delete = |id: &str| match records.find(id) {
        Ok(Some(record)) => supervised::delete(&record, args.force, store, records),
        Ok(None) => delete(id, args.force, store),
        // A record that can't be read: with force what is there goes all the same.
        Err(_) if args.force => {
            destroy_by_id(id, store)?;
            records.remove(id)
        }
        Err(error) => Err(error),
    };
    if args.regex {
        return for_each_match(&args.ids, store, records, delete);
    }
    for_each_id(&args.ids, |id| match delete(id) {
        // Gone is what was wanted.
        Err(error) if args.force && error::is(&error, Sentinel::NotExist) => Ok(()),
        other => other,
    })
}

fn delete(id: &str, force: bool, store: &StateStore) -> Result<()> {
    let record = match store.load(id) {
        Ok(record) => record,
        Err(error) if error::is(&error, Sentinel::NotExist) => {
            // A directory without a record holds nothing that could be asked for.
            store.remove(id)?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    // Whoever makes it at this moment is waited for; with force it gets no chance to end.
    let _claim = if force { store.try_claim(id)? } else { Some(store.claim(id)?) };
    if !force {
        let status = state::status(store, &record)?;
        if !matches!(status, Status::Stopped | Status::Created) {
            bail!("cannot delete container {id} that is not stopped: {status}");
        }
    }
    destroy(&record, store)
}

/// Destroys by id; a container that is gone already is no error.
pub(crate) fn destroy_by_id(id: &str, store: &StateStore) -> Result<()> {
    match store.load(id) {
        Ok(record) => destroy(&record, store),
        Err(error) if error::is(&error, Sentinel::NotExist) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what a container has left that ended unseen; one that is alive is in the way.
pub(crate) fn clear_dead(id: &str, store: &StateStore) -> Result<()> {
    let Some(record) = store.find(id)? else { return Ok(()) };
    let _claim = store.claim(id)?;
    match state::status(store, &record)? {
        Status::Stopped => destroy(&record, store),
        _ => Err(Sentinel::AlreadyExists.into()),
    }
}

/// Ends what runs, then removes all that the record names. A step that fails keeps the record,
/// so that the next delete can go on.
fn destroy(record: &Record, store: &StateStore) -> Result<()> {
    let outline = store.load_outline(&record.id);
    let cgroup = record.cgroup();
    kill_init(record, &cgroup)?;
    if !cgroup.remove_at_once().context("remove the cgroup")? {
        if !cgroup.pids()?.is_empty() {
            cgroup.kill(libc::SIGKILL).context("kill what is left in the cgroup")?;
        }
        cgroup.remove().context("remove the cgroup")?;
    }
    resctrl::remove(&record.resctrl_groups).context("remove the class of service")?;
    store.remove(&record.id)?;
    let poststop = match outline {
        Ok(outline) => outline.hooks.map(|hooks| hooks.poststop).unwrap_or_default(),
        Err(error) => {
            log::warn(format_args!("no poststop hooks: {}", error::render(&error)));
            Vec::new()
        }
    };
    if poststop.is_empty() {
        return Ok(());
    }
    let document = state::hook_document(record, Status::Stopped, 0)?;
    // The spec: a poststop hook that fails is logged, and the others run.
    for failure in hooks::run_all("poststop", &poststop, &document, &record.bundle()) {
        log::warn(error::render(&failure));
    }
    Ok(())
}

pub(super) fn kill_init(record: &Record, cgroup: &Cgroup) -> Result<()> {
    let Some(pidfd) = record.pidfd()? else { return Ok(()) };
    match pidfd_send_signal(&pidfd, libc::SIGKILL) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) => return Err(error).context("kill the container's init"),
    }
    if cgroup.is_frozen()? {
        cgroup.thaw()?;
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => bail!("container init still running"),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the container's init"),
        }
    }
}
