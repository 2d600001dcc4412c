//! What has been made on the host so far, and its undoing in reverse order.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, anyhow};

use super::child::Child;
use crate::cgroup::Cgroup;
use crate::error::render;
use crate::hooks;
use crate::plan::Plan;
use crate::resctrl;
use crate::state::{self, Claim, Record, StateStore, Status};

/// Grows with every effect.
#[derive(Default)]
pub(crate) struct Made<'a> {
    record: Option<Recorded<'a>>,
    /// It was found unused and is ours to clear.
    pub(crate) cgroup: bool,
    /// Groups of resctrl, in the order they were made.
    pub(crate) groups: Vec<PathBuf>,
    pub(super) child: Option<Child>,
    /// Hooks that allot something on the host count on those that return it.
    pub(crate) hooks_ran: bool,
}

struct Recorded<'a> {
    store: &'a StateStore,
    plan: &'a Plan,
    record: Record,
}

impl<'a> Made<'a> {
    /// Takes the id.
    pub(crate) fn record(
        &mut self,
        store: &'a StateStore,
        plan: &'a Plan,
        record: &Record,
        config: &[u8],
    ) -> Result<Claim> {
        let claim = store.create_record(record, config)?;
        self.record = Some(Recorded { store, plan, record: record.clone() });
        Ok(claim)
    }

    /// All went well: everything stays.
    pub(super) fn keep(&mut self) -> Result<(i32, OwnedFd)> {
        let child = self.child.take().context("no process was made")?;
        Ok((child.pid, child.pidfd))
    }

    /// Undoes everything and returns `error`, with what would not be undone behind it.
    pub(crate) fn unmake(self, cgroup: &Cgroup, error: Error) -> Error {
        let mut failures: Vec<Error> = Vec::new();
        if let Some(child) = &self.child {
            failures.extend(child.kill().err());
        }
        if self.cgroup {
            failures.extend(clear(cgroup).err());
        }
        failures.extend(resctrl::remove(&self.groups).err());
        if let Some(Recorded { store, plan, record }) = &self.record {
            failures.extend(store.remove(&record.id).err());
            if self.hooks_ran {
                failures.extend(poststop(plan, record));
            }
        }
        if failures.is_empty() {
            return error;
        }
        let also: Vec<String> = failures.iter().map(render).collect();
        anyhow!("{}; and then: {}", render(&error), also.join("; "))
    }
}

/// Without a pid namespace processes of the container's may have outlived its first one.
fn clear(cgroup: &Cgroup) -> Result<()> {
    if cgroup.exists()? {
        cgroup.kill(libc::SIGKILL).context("kill what is left in the cgroup")?;
    }
    cgroup.remove().context("remove the cgroup")
}

fn poststop(plan: &Plan, record: &Record) -> Vec<Error> {
    match state::hook_document(record, Status::Stopped, 0) {
        Ok(state) => hooks::run_all("poststop", &plan.hooks.poststop, &state, &plan.bundle),
        Err(error) => vec![error],
    }
}
