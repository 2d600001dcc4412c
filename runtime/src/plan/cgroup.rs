//! `linux.resources` -> an ordered list of writes to cgroup files, with runc's orders and
//! conversions. Pure: what depends on the cgroup's present state is a named step.

pub(crate) mod devices;
pub(crate) mod update;
mod v1;
mod v2;

use anyhow::{Result, bail};

pub(crate) use self::devices::DevicePlan;
pub(crate) use self::v2::{io_weight, swap_max, weight_from_shares};
use crate::spec::resources::{BlockIo, Memory, Resources, ThrottleDevice};

/// How the host mounts cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies with the limits, and the unified one beside them.
    Hybrid,
    /// Only the unified hierarchy.
    V2,
}

/// What the kernel will let us do with cgroups and devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// Root of the host: every failure counts.
    Root,
    /// Not root, or root of a user namespace only: without limits and without a path in the
    /// spec the container may stay in our own cgroup, and devices are not ours to restrict.
    Rootless,
}

/// The writes that bring a cgroup to what the spec asks, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CgroupPlan {
    pub(crate) steps: Vec<Step>,
    /// What is asked for and has no counterpart here.
    pub(crate) warnings: Vec<String>,
}

/// One step of a [`CgroupPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Write(Setting),
    /// Values that the kernel checks against each other: one that is refused with EINVAL is
    /// written again after the last.
    Together(Vec<Setting>),
    /// v1: which of the two goes first depends on the limit in force. 0 is unset.
    MemoryV1 {
        limit: i64,
        memory_and_swap: i64,
    },
    /// v2: refuse limits below the present use. 0 is unset.
    CheckMemory {
        limit: i64,
        memory_and_swap: i64,
    },
    Devices(DevicePlan),
    /// v2: a file named by the user, one write per line of the value.
    Unified {
        file: String,
        value: String,
    },
}

/// One value for one cgroup file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Where it comes from, beneath `linux.resources`.
    pub(crate) field: String,
    pub(crate) controller: &'static str,
    /// File and value; the first file that exists is written.
    pub(crate) choices: Vec<(String, String)>,
    pub(crate) missing: Missing,
    pub(crate) check: Check,
}

/// What a file that does not exist means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Fail,
    /// The kernel lacks the feature, and the value asks for no more than that.
    Skip,
}

/// What is done after the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    None,
    /// The kernel clamps cpu.shares without a word: read them back.
    Shares(u64),
}

/// Plans `resources` (absent: only the default device rules) for hosts of `mode`.
pub(crate) fn plan(resources: Option<&Resources>, mode: Mode) -> Result<CgroupPlan> {
    let absent = Resources::default();
    let resources = resources.unwrap_or(&absent);
    let devices = DevicePlan::for_container(&resources.devices)?;
    limits(resources, Some(devices), mode)
}

/// As [`plan`] for a running container: devices are left as they are.
pub(crate) fn plan_update(resources: &Resources, mode: Mode) -> Result<CgroupPlan> {
    limits(resources, None, mode)
}

fn limits(resources: &Resources, devices: Option<DevicePlan>, mode: Mode) -> Result<CgroupPlan> {
    if let Some(swappiness) = resources.memory.as_ref().and_then(|memory| memory.swappiness)
        && swappiness > 100
        && mode != Mode::V2
    {
        bail!(
            "linux.resources.memory.swappiness: invalid memory swappiness value: {swappiness} \
             (valid range is 0-100)"
        );
    }
    check_rdma(resources)?;
    let steps = match mode {
        Mode::V1 | Mode::Hybrid => v1::steps(resources, devices)?,
        Mode::V2 => v2::steps(resources, devices)?,
    };
    let warnings = if mode == Mode::V2 { v2::warnings(resources) } else { Vec::new() };
    Ok(CgroupPlan { steps, warnings })
}

/// The kernel takes the first word for the device and the others for limits.
fn check_rdma(resources: &Resources) -> Result<()> {
    for (device, limits) in &resources.rdma {
        if device.is_empty() || device.contains(char::is_whitespace) {
            bail!("linux.resources.rdma: {device:?} is no name of a device");
        }
        if limits.hca_handles.is_none() && limits.hca_objects.is_none() {
            bail!("linux.resources.rdma.{device}: neither hcaHandles nor hcaObjects is given");
        }
    }
    Ok(())
}

impl CgroupPlan {
    /// For the second time: what had to hold before the first need not hold any more.
    pub(crate) fn unconditional(&self) -> Self {
        let mut plan = self.clone();
        plan.steps.retain(|step| !matches!(step, Step::CheckMemory { .. }));
        plan
    }

    /// The controllers whose files the plan needs, in the plan's order.
    pub(crate) fn controllers(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Write(setting) => Some(setting.controller),
            Step::Together(settings) => settings.first().map(|setting| setting.controller),
            Step::MemoryV1 { .. } | Step::CheckMemory { .. } => Some("memory"),
            Step::Devices(_) => None,
            Step::Unified { file, .. } => file.split_once('.').map(|(controller, _)| controller),
        })
    }

    /// True if the plan writes `file` itself.
    pub(crate) fn sets(&self, file: &str) -> bool {
        self.steps.iter().any(|step| {
            matches!(step, Step::Write(setting)
                if setting.choices.iter().any(|(choice, _)| choice == file))
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "values are numbers or fresh strings")]
impl Setting {
    fn new(
        field: impl Into<String>,
        controller: &'static str,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Self {
        Self {
            field: field.into(),
            controller,
            choices: vec![(file.into(), value.to_string())],
            missing: Missing::Fail,
            check: Check::None,
        }
    }

    fn or(mut self, file: impl Into<String>, value: impl ToString) -> Self {
        self.choices.push((file.into(), value.to_string()));
        self
    }

    fn skip_if_missing(mut self) -> Self {
        self.missing = Missing::Skip;
        self
    }
}

impl From<Setting> for Step {
    fn from(setting: Setting) -> Self {
        Step::Write(setting)
    }
}

/// `pids.max` has the same values in both versions. 0 becomes 1 since systemd knows no 0, and
/// a cgroup with one task can't fork either.
fn pids(resources: &Resources) -> Option<Setting> {
    let limit = resources.pids.as_ref()?.limit?;
    let value = match limit {
        ..0 => "max".to_owned(),
        0 => "1".to_owned(),
        1.. => limit.to_string(),
    };
    Some(Setting::new("pids.limit", "pids", "pids.max", value))
}

/// One write per size; the reservation limit, where the kernel has it (5.7), gets the same.
fn hugetlb(resources: &Resources, suffix: &str) -> impl Iterator<Item = Setting> {
    resources.hugepage_limits.iter().enumerate().flat_map(move |(index, size)| {
        let field = format!("hugepageLimits[{index}]");
        let prefix = format!("hugetlb.{}", size.page_size);
        [
            Setting::new(&field, "hugetlb", format!("{prefix}.{suffix}"), size.limit),
            Setting::new(&field, "hugetlb", format!("{prefix}.rsvd.{suffix}"), size.limit)
                .skip_if_missing(),
        ]
    })
}

fn rdma(resources: &Resources) -> impl Iterator<Item = Setting> {
    resources.rdma.iter().map(|(device, limits)| {
        let mut line = device.clone();
        if let Some(handles) = limits.hca_handles {
            line.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = limits.hca_objects {
            line.push_str(&format!(" hca_object={objects}"));
        }
        Setting::new(format!("rdma.{device}"), "rdma", "rdma.max", line)
    })
}

/// Limit, and memory + swap; 0 for what is absent, as engines write both.
fn memory_limits(memory: &Memory) -> (i64, i64) {
    (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0))
}

/// The lists of rates, by the name of their field: read and write bytes, read and write operations.
fn throttles(block_io: &BlockIo) -> [(&'static str, &[ThrottleDevice]); 4] {
    [
        ("throttleReadBpsDevice", &block_io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", &block_io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", &block_io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", &block_io.throttle_write_iops_device),
    ]
}

/// Groups values that depend on each other; a single one stands alone.
fn together(settings: Vec<Setting>) -> Vec<Step> {
    if settings.len() > 1 {
        vec![Step::Together(settings)]
    } else {
        settings.into_iter().map(Step::from).collect()
    }
}

#[cfg(test)]
mod tests;
