//! Scheduling of the process, set while it still has the runtime's rights.

use std::ffi::c_ulong;

use anyhow::{Context, Result, bail};

use crate::plan::scheduling::{Policy, Scheduling, all_cpus};
use crate::sys::scheduling::{self as sys, SchedulerAttributes};

/// Applies to ourselves what was planned, once we are in the cgroup; returns a warning for what
/// would not be done and can be done without.
pub(crate) fn set(plan: &Scheduling) -> Result<Option<String>> {
    let mut warning = None;
    if let Some(cpus) = &plan.affinity.last {
        sys::sched_setaffinity(cpus).context("error setting final CPU affinity")?;
    } else if plan.affinity.initial.is_none()
        && let Err(error) = sys::sched_setaffinity(&all_cpus())
    {
        let error = crate::error::render(&error.into());
        warning = Some(format!("resetting the CPU affinity failed: {error}"));
    }
    if let Some(domain) = plan.personality {
        sys::personality(domain).context("set personality")?;
    }
    if let Some(policy) = &plan.policy {
        match sys::sched_setattr(&attributes(policy)) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && plan.confined => {
                bail!("process scheduler can't be used together with AllowedCPUs")
            }
            other => other.context("error setting scheduler")?,
        }
    }
    if let Some(priority) = plan.io_priority {
        sys::ioprio_set(priority).context("ioprio_set")?;
    }
    if let Some(memory) = &plan.memory {
        sys::set_mempolicy(memory.mode, &memory.nodes).context("set memory policy")?;
    }
    Ok(warning)
}

fn attributes(policy: &Policy) -> SchedulerAttributes {
    SchedulerAttributes {
        policy: policy.number,
        flags: policy.flags,
        nice: policy.nice,
        priority: policy.priority,
        runtime: policy.runtime,
        deadline: policy.deadline,
        period: policy.period,
        ..SchedulerAttributes::default()
    }
}

/// The CPUs of the runtime itself, changed for what is cloned meanwhile.
pub(crate) struct Borrowed(Vec<c_ulong>);

impl Borrowed {
    /// From here on children start on these CPUs.
    pub(crate) fn take(cpus: &[c_ulong]) -> Result<Self> {
        let mut before = vec![0; all_cpus().len()];
        sys::sched_getaffinity(&mut before).context("sched_getaffinity")?;
        sys::sched_setaffinity(cpus).context("error setting initial CPU affinity")?;
        Ok(Borrowed(before))
    }

    /// Ours again.
    pub(crate) fn give_back(self) -> Result<()> {
        sys::sched_setaffinity(&self.0).context("return to our CPUs")
    }
}
