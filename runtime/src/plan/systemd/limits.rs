//! `linux.resources` -> properties of the unit, so that systemd, which writes cgroup files again
//! whenever it sees fit, writes the same values as we do.

use anyhow::{Context, Result};

use super::{Property, cpus, devices, unified};
use crate::dbus::value::Value;
use crate::plan::cgroup::{self, DevicePlan, Mode};
use crate::spec::resources::{Cpu, Memory, Resources};

/// `CPUQuotaPeriodUSec`
const KNOWS_PERIOD: u32 = 242;
/// `AllowedCPUs`, `AllowedMemoryNodes`
pub(super) const KNOWS_CPUSET: u32 = 244;
/// `CPUWeight=0` for `cpu.idle`
const KNOWS_IDLE: u32 = 252;
/// `OOMPolicy` of scopes
const KNOWS_OOM_POLICY: u32 = 253;
const INFINITY: u64 = u64::MAX;
const SECOND_US: u64 = 1_000_000;
/// systemd keeps a quota in whole percents of one CPU.
const PERCENT_US: u64 = SECOND_US / 100;
pub(super) const DEFAULT_PERIOD_US: u64 = 100_000;

/// Properties, and what could not be said in them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Limits {
    pub(crate) properties: Vec<Property>,
    pub(crate) warnings: Vec<String>,
}

impl Limits {
    pub(super) fn push(&mut self, name: &str, value: Value) {
        self.properties.push(Property::new(name, value));
    }

    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.push(name, Value::Uint64(number));
    }

    /// `quota` of every `period`, in microseconds; no quota is no limit.
    pub(super) fn quota(&mut self, quota: Option<u64>, period: Option<u64>, version: u32) {
        if let Some(period) = period
            && version >= KNOWS_PERIOD
        {
            self.number("CPUQuotaPeriodUSec", period);
        }
        let period = period.unwrap_or(DEFAULT_PERIOD_US);
        let share = quota.map_or(INFINITY, |quota| per_second(quota, period));
        self.number("CPUQuotaPerSecUSec", share);
    }
}

/// The properties for a unit that is to be started, device rules included.
pub(crate) fn at_start(resources: &Resources, mode: Mode, version: u32) -> Result<Limits> {
    let devices = DevicePlan::for_container(&resources.devices)?;
    let (properties, warning) = devices::properties(&devices, mode);
    let mut limits = Limits { properties, warnings: warning.into_iter().collect() };
    add(&mut limits, resources, mode, version)?;
    if version >= KNOWS_OOM_POLICY && mode == Mode::V2 {
        // Can't be changed later.
        let policy = match resources.unified.get("memory.oom.group").map(|value| value.trim()) {
            Some("0") => Some("continue"),
            Some("1") => Some("kill"),
            _ => None,
        };
        limits.properties.extend(policy.map(|it| Property::new("OOMPolicy", Value::string(it))));
    }
    Ok(limits)
}

/// The properties for a unit that is there.
pub(crate) fn of_update(resources: &Resources, mode: Mode, version: u32) -> Result<Limits> {
    let mut limits = Limits::default();
    add(&mut limits, resources, mode, version)?;
    Ok(limits)
}

/// `resources` with the quota that systemd makes of theirs, for us to write the same.
pub(crate) fn rounded(mut resources: Resources) -> Resources {
    if let Some(cpu) = &mut resources.cpu
        && let Some(quota) = positive(cpu.quota)
    {
        let period = cpu.period.filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD_US);
        let share = u128::from(per_second(quota, period));
        let rounded = share * u128::from(period) / u128::from(SECOND_US);
        // Whole percents need no change; a quota that is out of range is the kernel's to refuse.
        cpu.quota = i64::try_from(rounded).ok().filter(|it| *it > 0).or(cpu.quota);
    }
    resources
}

fn per_second(quota: u64, period: u64) -> u64 {
    let share = u128::from(quota) * u128::from(SECOND_US) / u128::from(period.max(1));
    let share = share.next_multiple_of(u128::from(PERCENT_US));
    u64::try_from(share).unwrap_or(INFINITY)
}

fn positive(number: Option<i64>) -> Option<u64> {
    number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number != 0)
}

/// The spec's -1 is systemd's infinity.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(INFINITY)
}

fn add(limits: &mut Limits, resources: &Resources, mode: Mode, version: u32) -> Result<()> {
    let unified = mode == Mode::V2;
    if let Some(memory) = &resources.memory {
        add_memory(limits, memory, mode)?;
    }
    if let Some(cpu) = &resources.cpu {
        add_weight(limits, cpu, mode, version);
        let period = cpu.period.filter(|period| *period != 0);
        let quota = cpu.quota.filter(|quota| *quota != 0);
        if quota.is_some() || period.is_some() {
            limits.quota(positive(quota), period, version);
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        // systemd knows no 0, and one task can't fork either.
        limits.number("TasksMax", unsigned(limit).max(1));
    }
    if let Some(cpu) = &resources.cpu
        && version >= KNOWS_CPUSET
    {
        for (name, field, list) in
            [("AllowedCPUs", "cpus", &cpu.cpus), ("AllowedMemoryNodes", "mems", &cpu.mems)]
        {
            if !list.is_empty() {
                let mask = cpus::mask(list).with_context(|| format!("resources.cpu.{field}"))?;
                limits.push(name, mask);
            }
        }
    }
    let weight = resources.block_io.as_ref().and_then(|block_io| block_io.weight);
    if let Some(weight) = weight.filter(|weight| *weight != 0) {
        match unified {
            true => limits.number("IOWeight", cgroup::io_weight(weight)),
            false => limits.number("BlockIOWeight", weight.into()),
        }
    }
    if unified {
        unified::add(limits, &resources.unified, version)?;
    }
    Ok(())
}

fn add_memory(limits: &mut Limits, memory: &Memory, mode: Mode) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    if mode != Mode::V2 {
        if limit != 0 {
            limits.number("MemoryLimit", unsigned(limit));
        }
        return Ok(());
    }
    if limit != 0 {
        limits.number("MemoryMax", unsigned(limit));
    }
    if let Some(reservation) = memory.reservation.filter(|bytes| *bytes != 0) {
        limits.number("MemoryLow", unsigned(reservation));
    }
    match cgroup::swap_max(limit, memory.swap.unwrap_or(0))?.as_deref() {
        None => {}
        Some("max") => limits.number("MemorySwapMax", INFINITY),
        Some(bytes) => limits.number("MemorySwapMax", bytes.parse().context("memory.swap")?),
    }
    Ok(())
}

fn add_weight(limits: &mut Limits, cpu: &Cpu, mode: Mode, version: u32) {
    let shares = cpu.shares.filter(|shares| *shares != 0);
    if mode != Mode::V2 {
        if let Some(shares) = shares {
            limits.number("CPUShares", shares);
        }
        return;
    }
    if idle(cpu.idle == Some(1), version) {
        limits.number("CPUWeight", 0);
        if shares.is_some() {
            // In the words that runc's suite looks for.
            let text = "unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight";
            limits.warnings.push(text.to_owned());
        }
        return;
    }
    match shares.and_then(cgroup::weight_from_shares) {
        Some(weight) => limits.number("CPUWeight", weight),
        // No weight is the opposite of idle.
        None if idle(cpu.idle == Some(0), version) => limits.number("CPUWeight", INFINITY),
        None => {}
    }
}

/// A weight of 0 makes systemd set `cpu.idle`.
pub(super) fn idle(wanted: bool, version: u32) -> bool {
    wanted && version >= KNOWS_IDLE
}

#[cfg(test)]
mod tests;
