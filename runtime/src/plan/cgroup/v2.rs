//! The writes for the unified hierarchy; the spec's v1 numbers are converted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::{DevicePlan, Setting, Step, hugetlb, memory_limits, pids, rdma, throttles, together};
use crate::spec::resources::{BlockIo, Cpu, Memory, Resources};

/// What v2 has no file for and is left out, as the other runtimes leave it out.
pub(super) fn warnings(resources: &Resources) -> Vec<String> {
    let mut fields = Vec::new();
    if let Some(cpu) = &resources.cpu {
        fields.extend(given(cpu.realtime_runtime).map(|()| "cpu.realtimeRuntime"));
        fields.extend(given(cpu.realtime_period).map(|()| "cpu.realtimePeriod"));
    }
    if let Some(memory) = &resources.memory {
        fields.extend(memory.swappiness.map(|_| "memory.swappiness"));
        let kept_alive = memory.disable_oom_killer == Some(true);
        fields.extend(kept_alive.then_some("memory.disableOOMKiller"));
    }
    if let Some(block_io) = &resources.block_io {
        fields.extend(given(block_io.leaf_weight).map(|()| "blockIO.leafWeight"));
    }
    if let Some(network) = &resources.network {
        fields.extend(given(network.class_id).map(|()| "network.classID"));
        fields.extend((!network.priorities.is_empty()).then_some("network.priorities"));
    }
    let idle =
        resources.cpu.as_ref().is_some_and(|cpu| is_idle(cpu) && given(cpu.shares).is_some());
    let idle = idle.then(|| {
        "linux.resources.cpu.shares is ignored: with linux.resources.cpu.idle a cgroup has no weight"
            .to_owned()
    });
    let file = weighs_what_is_idle(&resources.unified).then(|| {
        "linux.resources.unified: cpu.weight is ignored: with cpu.idle a cgroup has no weight"
            .to_owned()
    });
    fields
        .into_iter()
        .map(|field| format!("linux.resources.{field} is ignored: cgroup v2 has nothing like it"))
        .chain(idle)
        .chain(file)
        .collect()
}

/// Both files are given, and the kernel would take one alone.
fn weighs_what_is_idle(files: &BTreeMap<String, String>) -> bool {
    files.get("cpu.idle").is_some_and(|value| value.trim() == "1")
        && files.contains_key("cpu.weight")
}

fn is_idle(cpu: &Cpu) -> bool {
    cpu.idle == Some(1)
}

fn given<T: Default + PartialEq>(value: Option<T>) -> Option<()> {
    value.filter(|value| *value != T::default()).map(drop)
}

/// Steps in runc's order of controllers, the user's own files last.
pub(super) fn steps(resources: &Resources, devices: Option<DevicePlan>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    steps.extend(pids(resources).map(Step::from));
    if let Some(limits) = &resources.memory {
        steps.extend(memory(limits)?);
    }
    if let Some(limits) = &resources.block_io {
        steps.extend(block_io(limits).map(Step::from));
    }
    if let Some(limits) = &resources.cpu {
        steps.extend(cpu(limits));
    }
    steps.extend(devices.map(Step::Devices));
    if let Some(cpu) = &resources.cpu {
        for (name, list) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
            if !list.is_empty() {
                let field = format!("cpu.{name}");
                steps.push(Setting::new(field, "cpuset", format!("cpuset.{name}"), list).into());
            }
        }
    }
    steps.extend(hugetlb(resources, "max").map(Step::from));
    steps.extend(rdma(resources).map(Step::from));
    for (file, value) in &resources.unified {
        if file.contains('/') {
            bail!(
                "linux.resources.unified: unified resource {file:?} must be a file name \
                 (no slashes)"
            );
        }
        if !file.contains('.') {
            bail!(
                "linux.resources.unified: unified resource {file:?} must be in the form \
                 CONTROLLER.PARAMETER"
            );
        }
        if file == "cpu.weight" && weighs_what_is_idle(&resources.unified) {
            continue;
        }
        steps.push(Step::Unified { file: file.clone(), value: value.clone() });
    }
    Ok(steps)
}

fn memory(memory: &Memory) -> Result<Vec<Step>> {
    let (limit, memory_and_swap) = memory_limits(memory);
    let reservation = memory.reservation.unwrap_or(0);
    let mut steps = Vec::new();
    if memory.check_before_update == Some(true) && (limit > 0 || memory_and_swap > 0) {
        steps.push(Step::CheckMemory { limit, memory_and_swap });
    }
    let swap = swap_max(limit, memory_and_swap).context("linux.resources.memory.swap")?;
    if let Some(swap) = swap {
        let setting = Setting::new("memory.swap", "memory", "memory.swap.max", &swap);
        // Without swap accounting there is no swap to forbid or to grant.
        let without = swap == "max" || swap == "0";
        steps.push(if without { setting.skip_if_missing() } else { setting }.into());
    }
    for (field, file, bytes) in
        [("memory.limit", "memory.max", limit), ("memory.reservation", "memory.low", reservation)]
    {
        match bytes {
            0 => {}
            -1 => steps.push(Setting::new(field, "memory", file, "max").into()),
            _ => steps.push(Setting::new(field, "memory", file, bytes).into()),
        }
    }
    Ok(steps)
}

/// Memory and swap counted together -> swap alone; `None` leaves it as it is.
pub(crate) fn swap_max(limit: i64, memory_and_swap: i64) -> Result<Option<String>> {
    Ok(match (limit, memory_and_swap) {
        // v1 lifts both when memory is unlimited and swap is not spoken of.
        (-1, 0) | (_, -1) => Some("max".to_owned()),
        (_, 0) => None,
        (-1, swap) => Some(swap.to_string()),
        (0, _) => bail!("unable to set swap limit without memory limit"),
        (..0, _) => bail!("invalid memory value: {limit}"),
        (1.., sum) if sum < limit => bail!("memory+swap limit should be >= memory limit"),
        (1.., sum) => Some((sum - limit).to_string()),
    })
}

fn cpu(cpu: &Cpu) -> Vec<Step> {
    let mut steps = Vec::new();
    // Before the weight: an idle cgroup refuses weights, and one that is so no more starts anew.
    if let Some(idle) = cpu.idle {
        steps.push(Setting::new("cpu.idle", "cpu", "cpu.idle", idle).into());
    }
    if let Some(weight) = cpu.shares.filter(|_| !is_idle(cpu)).and_then(weight_from_shares) {
        steps.push(Setting::new("cpu.shares", "cpu", "cpu.weight", weight).into());
    }
    let burst = cpu.burst.map(|burst| Setting::new("cpu.burst", "cpu", "cpu.max.burst", burst));
    let quota = cpu.quota.unwrap_or(0);
    let period = cpu.period.unwrap_or(0);
    let max = (quota != 0 || period != 0).then(|| {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period == 0 { DEFAULT_PERIOD_US } else { period };
        let field = if quota == "max" { "cpu.period" } else { "cpu.quota" };
        Setting::new(field, "cpu", "cpu.max", format!("{quota} {period}"))
    });
    if quota == 0 {
        steps.extend(burst.into_iter().chain(max).map(Step::from));
    } else {
        // A burst above the old quota fits the new one.
        steps.extend(together(burst.into_iter().chain(max).collect()));
    }
    steps
}

const DEFAULT_PERIOD_US: u64 = 100_000;

/// 2..262144 with default 1024 -> 1..10000 with default 100: the quadratic curve through these
/// three points on the logarithms. 0 is unset.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the curve stays within 1..10000"
)]
pub(crate) fn weight_from_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10f64.powf(exponent).ceil() as u64)
        }
    }
}

fn block_io(block_io: &BlockIo) -> impl Iterator<Item = Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        settings.push(
            Setting::new("blockIO.weight", "io", "io.bfq.weight", weight)
                .or("io.weight", io_weight(weight)),
        );
    }
    for (index, device) in block_io.weight_device.iter().enumerate() {
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            // Only bfq knows weights per device; without it there is nothing to weigh.
            let line = format!("{}:{} {weight}", device.major, device.minor);
            let field = format!("blockIO.weightDevice[{index}]");
            settings.push(Setting::new(field, "io", "io.bfq.weight", line).skip_if_missing());
        }
    }
    for (key, (field, devices)) in
        ["rbps", "wbps", "riops", "wiops"].into_iter().zip(throttles(block_io))
    {
        settings.extend(devices.iter().enumerate().map(|(index, device)| {
            // No rate is no limit; the kernel refuses a limit of 0.
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            let line = format!("{}:{} {key}={rate}", device.major, device.minor);
            Setting::new(format!("blockIO.{field}[{index}]"), "io", "io.max", line)
        }));
    }
    settings.into_iter()
}

/// 10..1000 -> 1..10000, linear.
pub(crate) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_curve() {
        let cases = [(0, None), (2, Some(1)), (1024, Some(100)), (262_144, Some(10_000))];
        for (shares, weight) in cases {
            assert_eq!(weight_from_shares(shares), weight, "{shares}");
        }
        assert_eq!(weight_from_shares(u64::MAX), Some(10_000));
        assert_eq!(io_weight(750), 7475);
        assert_eq!((io_weight(10), io_weight(1000), io_weight(1)), (1, 10_000, 1));
    }

    #[test]
    fn swap_is_what_is_left_of_the_sum() {
        for ((limit, sum), swap) in [
            ((0, 0), None),
            ((100, 0), None),
            ((100, 150), Some("50")),
            ((100, 100), Some("0")),
            ((100, -1), Some("max")),
            ((-1, 0), Some("max")),
            ((-1, 70), Some("70")),
            ((0, -1), Some("max")),
        ] {
            assert_eq!(swap_max(limit, sum).unwrap().as_deref(), swap, "{limit} {sum}");
        }
        for ((limit, sum), text) in [
            ((0, 5), "unable to set swap limit without memory limit"),
            ((10, 5), "memory+swap limit should be >= memory limit"),
            ((-5, 5), "invalid memory value: -5"),
        ] {
            assert_eq!(swap_max(limit, sum).unwrap_err().to_string(), text);
        }
    }
}
