//! Resource limits. With CAP_SYS_RESOURCE the parent half sets them, at the very end, so that none
//! of the child's own steps meets them. Without it the kernel lets nobody touch the limits of a
//! process that runs as another user: then the child lowers its own before it becomes that user.

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit};

use crate::plan::process::LimitPlan;

/// Which half sets the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setter {
    Parent,
    Child,
}

impl Setter {
    /// Decides by the rights of the runtime.
    pub(crate) fn choose() -> Result<Self> {
        let capability = caps::Capability::CAP_SYS_RESOURCE;
        let able = caps::has_cap(None, caps::CapSet::Effective, capability)
            .context("read our capabilities")?;
        Ok(if able { Setter::Parent } else { Setter::Child })
    }
}

/// Sets the limits of another process.
pub(crate) fn set(pid: i32, limits: &[LimitPlan]) -> Result<()> {
    each(limits, |resource, limit| {
        rustix::process::prlimit(Pid::from_raw(pid), resource, limit).map(|_| ())
    })
}

/// Sets our own limits.
pub(crate) fn set_own(limits: &[LimitPlan]) -> Result<()> {
    each(limits, rustix::process::setrlimit)
}

fn each(
    limits: &[LimitPlan],
    set: impl Fn(Resource, Rlimit) -> rustix::io::Result<()>,
) -> Result<()> {
    let unlimited = |value: u64| (value != u64::MAX).then_some(value);
    for limit in limits {
        let number = limit.resource;
        let resource = resource(number).with_context(|| format!("unknown rlimit {number}"))?;
        let new = Rlimit { current: unlimited(limit.soft), maximum: unlimited(limit.hard) };
        set(resource, new)
            .with_context(|| format!("error setting rlimit type {number}"))
            .context("error setting rlimits for ready process")?;
    }
    Ok(())
}

fn resource(number: u32) -> Option<Resource> {
    Some(match number {
        libc::RLIMIT_CPU => Resource::Cpu,
        libc::RLIMIT_FSIZE => Resource::Fsize,
        libc::RLIMIT_DATA => Resource::Data,
        libc::RLIMIT_STACK => Resource::Stack,
        libc::RLIMIT_CORE => Resource::Core,
        libc::RLIMIT_RSS => Resource::Rss,
        libc::RLIMIT_NPROC => Resource::Nproc,
        libc::RLIMIT_NOFILE => Resource::Nofile,
        libc::RLIMIT_MEMLOCK => Resource::Memlock,
        libc::RLIMIT_AS => Resource::As,
        libc::RLIMIT_LOCKS => Resource::Locks,
        libc::RLIMIT_SIGPENDING => Resource::Sigpending,
        libc::RLIMIT_MSGQUEUE => Resource::Msgqueue,
        libc::RLIMIT_NICE => Resource::Nice,
        libc::RLIMIT_RTPRIO => Resource::Rtprio,
        libc::RLIMIT_RTTIME => Resource::Rttime,
        _ => return None,
    })
}
