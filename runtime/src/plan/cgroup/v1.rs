//! The writes for v1 hierarchies.

use anyhow::{Result, bail};

use super::{
    Check, DevicePlan, Setting, Step, hugetlb, memory_limits, pids, rdma, throttles, together,
};
use crate::spec::resources::{BlockIo, Cpu, Memory, Network, Resources};

/// Steps in runc's order of controllers.
pub(super) fn steps(resources: &Resources, devices: Option<DevicePlan>) -> Result<Vec<Step>> {
    if !resources.unified.is_empty() {
        bail!("linux.resources.unified: invalid configuration: cannot use unified on cgroup v1");
    }
    let mut steps = Vec::new();
    if let Some(cpu) = &resources.cpu {
        steps.extend(cpuset(cpu).map(Step::from));
    }
    steps.extend(devices.map(Step::Devices));
    if let Some(limits) = &resources.memory {
        steps.extend(memory(limits));
    }
    if let Some(limits) = &resources.cpu {
        steps.extend(cpu(limits));
    }
    steps.extend(pids(resources).map(Step::from));
    if let Some(limits) = &resources.block_io {
        steps.extend(block_io(limits).map(Step::from));
    }
    steps.extend(hugetlb(resources, "limit_in_bytes").map(Step::from));
    if let Some(limits) = &resources.network {
        steps.extend(network(limits).map(Step::from));
    }
    steps.extend(rdma(resources).map(Step::from));
    Ok(steps)
}

/// The hierarchy may be mounted with `noprefix`.
fn cpuset(cpu: &Cpu) -> impl Iterator<Item = Setting> {
    [("cpus", &cpu.cpus), ("mems", &cpu.mems)].into_iter().filter(|(_, list)| !list.is_empty()).map(
        |(file, list)| {
            let field = format!("cpu.{file}");
            Setting::new(field, "cpuset", format!("cpuset.{file}"), list).or(file, list)
        },
    )
}

fn memory(memory: &Memory) -> Vec<Step> {
    let mut steps = Vec::new();
    let (limit, memory_and_swap) = memory_limits(memory);
    if limit != 0 || memory_and_swap != 0 {
        steps.push(Step::MemoryV1 { limit, memory_and_swap });
    }
    if let Some(reservation) = memory.reservation.filter(|bytes| *bytes != 0) {
        steps.push(
            Setting::new("memory.reservation", "memory", "memory.soft_limit_in_bytes", reservation)
                .into(),
        );
    }
    // Not `kernel`: Linux refuses that limit since 5.16, and runc has stopped to set it.
    if let Some(limit) = memory.kernel_tcp.filter(|bytes| *bytes != 0) {
        let file = "memory.kmem.tcp.limit_in_bytes";
        let setting = Setting::new("memory.kernelTCP", "memory", file, limit);
        steps.push(setting.skip_if_missing().into());
    }
    if memory.disable_oom_killer == Some(true) {
        steps.push(
            Setting::new("memory.disableOOMKiller", "memory", "memory.oom_control", 1).into(),
        );
    }
    if let Some(swappiness) = memory.swappiness {
        steps.push(
            Setting::new("memory.swappiness", "memory", "memory.swappiness", swappiness).into(),
        );
    }
    steps
}

fn cpu(cpu: &Cpu) -> Vec<Step> {
    let mut steps = Vec::new();
    let idle = cpu.idle.map(|idle| Setting::new("cpu.idle", "cpu", "cpu.idle", idle));
    // An idle cgroup refuses shares, and forgets those it had.
    let (awake, asleep) = if cpu.idle == Some(0) { (idle, None) } else { (None, idle) };
    steps.extend(awake.map(Step::from));
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        let mut setting = Setting::new("cpu.shares", "cpu", "cpu.shares", shares);
        setting.check = Check::Shares(shares);
        steps.push(setting.into());
    }
    let period = cpu
        .period
        .filter(|period| *period != 0)
        .map(|period| Setting::new("cpu.period", "cpu", "cpu.cfs_period_us", period));
    let burst = cpu
        .burst
        .map(|burst| Setting::new("cpu.burst", "cpu", "cpu.cfs_burst_us", burst).skip_if_missing());
    let quota = cpu
        .quota
        .filter(|quota| *quota != 0)
        .map(|quota| Setting::new("cpu.quota", "cpu", "cpu.cfs_quota_us", quota));
    steps.extend(before(period.into_iter().chain(burst), quota));
    steps.extend(asleep.map(Step::from));
    let period = cpu
        .realtime_period
        .filter(|period| *period != 0)
        .map(|period| Setting::new("cpu.realtimePeriod", "cpu", "cpu.rt_period_us", period));
    let runtime = cpu
        .realtime_runtime
        .filter(|runtime| *runtime != 0)
        .map(|runtime| Setting::new("cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", runtime));
    steps.extend(before(period.into_iter(), runtime));
    steps
}

/// `settings` may have to wait for `last`; without it each stands for itself.
fn before(settings: impl Iterator<Item = Setting>, last: Option<Setting>) -> Vec<Step> {
    match last {
        Some(last) => together(settings.chain([last]).collect()),
        None => settings.map(Step::from).collect(),
    }
}

fn block_io(block_io: &BlockIo) -> impl Iterator<Item = Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        settings.push(
            Setting::new("blockIO.weight", "blkio", "blkio.weight", weight)
                .or("blkio.bfq.weight", weight),
        );
    }
    if let Some(weight) = block_io.leaf_weight.filter(|weight| *weight != 0) {
        settings.push(Setting::new("blockIO.leafWeight", "blkio", "blkio.leaf_weight", weight));
    }
    for (index, device) in block_io.weight_device.iter().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        let number = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            let line = format!("{number} {weight}");
            settings.push(
                Setting::new(&field, "blkio", "blkio.weight_device", &line)
                    .or("blkio.bfq.weight_device", &line),
            );
        }
        if let Some(weight) = device.leaf_weight.filter(|weight| *weight != 0) {
            let line = format!("{number} {weight}");
            settings.push(Setting::new(&field, "blkio", "blkio.leaf_weight_device", line));
        }
    }
    let files = ["read_bps", "write_bps", "read_iops", "write_iops"];
    for (file, (field, devices)) in files.into_iter().zip(throttles(block_io)) {
        let file = format!("blkio.throttle.{file}_device");
        settings.extend(devices.iter().enumerate().map(|(index, device)| {
            let line = format!("{}:{} {}", device.major, device.minor, device.rate);
            Setting::new(format!("blockIO.{field}[{index}]"), "blkio", &file, line)
        }));
    }
    settings.into_iter()
}

fn network(network: &Network) -> impl Iterator<Item = Setting> {
    let class = network
        .class_id
        .filter(|class| *class != 0)
        .map(|class| Setting::new("network.classID", "net_cls", "net_cls.classid", class));
    let priorities = network.priorities.iter().map(|interface| {
        let line = format!("{} {}", interface.name, interface.priority);
        Setting::new("network.priorities", "net_prio", "net_prio.ifpriomap", line)
    });
    class.into_iter().chain(priorities)
}
