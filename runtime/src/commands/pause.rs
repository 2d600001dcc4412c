//! `pause` and `resume`: the cgroup's freezer.

use anyhow::Result;

use crate::args::OneId;
use crate::error::Sentinel;
use crate::host::Host;
use crate::log;
use crate::state::{self, StateStore, Status};

pub(super) fn pause(args: &OneId, host: &Host, store: &StateStore) -> Result<u8> {
    let record = store.load(&args.id)?;
    warn_rootless(host, "pause");
    match state::status(store, &record)? {
        Status::Running | Status::Created => {}
        _ => return Err(Sentinel::NotRunning.into()),
    }
    record.cgroup().freeze()?;
    Ok(0)
}

pub(super) fn resume(args: &OneId, host: &Host, store: &StateStore) -> Result<u8> {
    let record = store.load(&args.id)?;
    warn_rootless(host, "resume");
    if state::status(store, &record)? != Status::Paused {
        return Err(Sentinel::NotPaused.into());
    }
    record.cgroup().thaw()?;
    Ok(0)
}

fn warn_rootless(host: &Host, verb: &str) {
    if host.rootless {
        log::warn(format_args!(
            "{} {verb} may fail if you don't have the full access to cgroups",
            host.program.name()
        ));
    }
}
