//! How the kernel is to treat the process: CPU, I/O, memory nodes, execution domain.

use std::ffi::{c_int, c_ulong};

use anyhow::{Context, Result, bail};

use crate::spec::{ExecCpuAffinity, IoPriority, Linux, MemoryPolicy, Process, Scheduler};

/// Absent is as inherited.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scheduling {
    pub(crate) policy: Option<Policy>,
    /// The container's cpuset is narrower than the host: some policies refuse that.
    pub(crate) confined: bool,
    pub(crate) io_priority: Option<c_int>,
    pub(crate) memory: Option<MemoryNodes>,
    pub(crate) personality: Option<c_ulong>,
    pub(crate) affinity: Affinity,
}

/// How the CPU is shared out; the numbers are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) number: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Mode with its flags, and one bit per node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryNodes {
    pub(crate) mode: c_int,
    pub(crate) nodes: Vec<c_ulong>,
}

/// The CPUs before and after the process is in the cgroup, one bit per CPU. By default the
/// runtime's own are not passed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Affinity {
    pub(crate) initial: Option<Vec<c_ulong>>,
    pub(crate) last: Option<Vec<c_ulong>>,
}

/// More than any kernel can be built for.
const MOST_CPUS: usize = 65536;
const MOST_NODES: usize = 1024;

/// Decides from the process and from what is set for the container as a whole.
pub(crate) fn plan(
    process: &Process,
    linux: &Linux,
    warnings: &mut Vec<String>,
) -> Result<Scheduling> {
    let cpu = linux.resources.as_ref().and_then(|resources| resources.cpu.as_ref());
    let personality = linux.personality.as_ref();
    if let Some(flags) = personality.map(|it| &it.flags).filter(|flags| !flags.is_empty()) {
        warnings.push(format!("ignoring unsupported personality flags: {flags:?}"));
    }
    Ok(Scheduling {
        policy: process
            .scheduler
            .as_ref()
            .map(scheduler)
            .transpose()
            .context("process.scheduler")?,
        confined: cpu.is_some_and(|cpu| !cpu.cpus.is_empty()),
        io_priority: process
            .io_priority
            .as_ref()
            .map(io_priority)
            .transpose()
            .context("process.ioPriority")?,
        memory: linux
            .memory_policy
            .as_ref()
            .map(memory_policy)
            .transpose()
            .context("linux.memoryPolicy")?,
        personality: personality
            .map(|personality| domain(&personality.domain))
            .transpose()
            .context("linux.personality")?,
        affinity: process
            .exec_cpu_affinity
            .as_ref()
            .map(affinity)
            .transpose()
            .context("process.execCPUAffinity")?
            .unwrap_or_default(),
    })
}

fn scheduler(scheduler: &Scheduler) -> Result<Policy> {
    const POLICIES: [(&str, u32); 7] = [
        ("SCHED_OTHER", 0),
        ("SCHED_FIFO", 1),
        ("SCHED_RR", 2),
        ("SCHED_BATCH", 3),
        ("SCHED_ISO", 4),
        ("SCHED_IDLE", 5),
        ("SCHED_DEADLINE", 6),
    ];
    const FLAGS: [(&str, u64); 7] = [
        ("SCHED_FLAG_RESET_ON_FORK", 0x01),
        ("SCHED_FLAG_RECLAIM", 0x02),
        ("SCHED_FLAG_DL_OVERRUN", 0x04),
        ("SCHED_FLAG_KEEP_POLICY", 0x08),
        ("SCHED_FLAG_KEEP_PARAMS", 0x10),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ];
    let name = scheduler.policy.as_str();
    let Some(policy) = number(&POLICIES, name) else { bail!("invalid scheduler policy {name:?}") };
    if !(-20..=19).contains(&scheduler.nice) {
        bail!("invalid scheduler nice {}", scheduler.nice);
    }
    let realtime = matches!(name, "SCHED_FIFO" | "SCHED_RR");
    if scheduler.priority != 0 && !realtime {
        bail!("scheduler priority is for SCHED_FIFO and SCHED_RR only");
    }
    let timed = scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0;
    if timed && name != "SCHED_DEADLINE" {
        bail!("scheduler runtime, deadline and period are for SCHED_DEADLINE only");
    }
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |=
            number(&FLAGS, flag).with_context(|| format!("invalid scheduler flag {flag:?}"))?;
    }
    Ok(Policy {
        number: policy,
        flags,
        nice: scheduler.nice,
        priority: u32::try_from(scheduler.priority).context("invalid scheduler priority")?,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    })
}

fn io_priority(priority: &IoPriority) -> Result<c_int> {
    const CLASSES: [(&str, c_int); 3] =
        [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
    const CLASS_SHIFT: c_int = 13;
    let class = number(&CLASSES, &priority.class)
        .with_context(|| format!("invalid ioPriority.Class: {:?}", priority.class))?;
    if !(0..=7).contains(&priority.priority) {
        bail!("invalid ioPriority.Priority: {}", priority.priority);
    }
    Ok(class << CLASS_SHIFT | priority.priority)
}

fn memory_policy(policy: &MemoryPolicy) -> Result<MemoryNodes> {
    const MODES: [(&str, c_int); 7] = [
        ("MPOL_DEFAULT", 0),
        ("MPOL_PREFERRED", 1),
        ("MPOL_BIND", 2),
        ("MPOL_INTERLEAVE", 3),
        ("MPOL_LOCAL", 4),
        ("MPOL_PREFERRED_MANY", 5),
        ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ];
    const FLAGS: [(&str, c_int); 3] = [
        ("MPOL_F_STATIC_NODES", 1 << 15),
        ("MPOL_F_RELATIVE_NODES", 1 << 14),
        ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ];
    let mut mode = number(&MODES, &policy.mode)
        .with_context(|| format!("invalid memory policy mode {:?}", policy.mode))?;
    for flag in &policy.flags {
        mode |=
            number(&FLAGS, flag).with_context(|| format!("invalid memory policy flag {flag:?}"))?;
    }
    let nodes = mask(&policy.nodes, MOST_NODES)
        .with_context(|| format!("invalid memory policy nodes {:?}", policy.nodes))?;
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    match policy.mode.as_str() {
        "MPOL_DEFAULT" | "MPOL_LOCAL" if count > 0 => {
            bail!("invalid memory policy: mode requires 0 nodes but got {count}")
        }
        "MPOL_BIND" | "MPOL_INTERLEAVE" | "MPOL_PREFERRED_MANY" | "MPOL_WEIGHTED_INTERLEAVE"
            if count == 0 =>
        {
            bail!("invalid memory policy: mode requires at least 1 node but got 0")
        }
        _ => Ok(MemoryNodes { mode, nodes }),
    }
}

fn domain(name: &str) -> Result<c_ulong> {
    const DOMAINS: [(&str, c_ulong); 2] = [("LINUX", 0), ("LINUX32", 8)];
    number(&DOMAINS, name).with_context(|| format!("invalid personality domain {name:?}"))
}

fn affinity(affinity: &ExecCpuAffinity) -> Result<Affinity> {
    let cpus = |list: &str, name: &str| {
        let list = (!list.is_empty()).then_some(list);
        list.map(|list| mask(list, MOST_CPUS))
            .transpose()
            .with_context(|| format!("bad CPUAffinity.{name}"))
    };
    Ok(Affinity {
        initial: cpus(&affinity.initial, "Initial")?,
        last: cpus(&affinity.last, "Final")?,
    })
}

/// All CPUs there could ever be.
pub(crate) fn all_cpus() -> Vec<c_ulong> {
    vec![c_ulong::MAX; MOST_CPUS / c_ulong::BITS as usize]
}

/// A list such as `0-3,7`, one bit per number.
fn mask(list: &str, most: usize) -> Result<Vec<c_ulong>> {
    let bits = c_ulong::BITS as usize;
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().with_context(|| format!("{text:?}"));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= most {
            bail!("bad range {part:?}");
        }
        if mask.len() <= last / bits {
            mask.resize(last / bits + 1, 0);
        }
        for bit in first..=last {
            mask[bit / bits] |= 1 << (bit % bits);
        }
    }
    Ok(mask)
}

fn number<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_bits() {
        assert_eq!(mask("0-3,7", 100).unwrap(), [0x8f]);
        assert_eq!(mask("64", 100).unwrap(), [0, 1]);
        assert_eq!(mask("", 100).unwrap(), [0; 0]);
        for list in ["3-1", "x", "100", "0-9876543210", "-1"] {
            assert!(mask(list, 100).is_err(), "{list}");
        }
    }

    #[test]
    fn a_policy_of_memory_counts_its_nodes() {
        let plan = |text: &str| memory_policy(&serde_json::from_str(text).unwrap());
        let refusal = |text: &str| format!("{:#}", plan(text).unwrap_err());
        assert_eq!(plan(r#"{"mode":"MPOL_BIND","nodes":"0"}"#).unwrap().mode, 2);
        assert!(plan(r#"{"mode":"MPOL_DEFAULT"}"#).is_ok());
        assert_eq!(refusal("{}"), "invalid memory policy mode \"\"");
        assert_eq!(
            refusal(r#"{"mode":"MPOL_DEFAULT","nodes":"0-7"}"#),
            "invalid memory policy: mode requires 0 nodes but got 8"
        );
    }

    #[test]
    fn a_scheduler_takes_what_its_policy_knows() {
        let plan = |text: &str| scheduler(&serde_json::from_str(text).unwrap());
        assert_eq!(plan(r#"{"policy":"SCHED_BATCH","nice":19}"#).unwrap().number, 3);
        for text in [
            r#"{"policy":""}"#,
            r#"{"policy":"SCHED_BATCH","nice":20}"#,
            r#"{"policy":"SCHED_BATCH","priority":1}"#,
            r#"{"policy":"SCHED_FIFO","runtime":1}"#,
            r#"{"policy":"SCHED_FIFO","flags":["X"]}"#,
        ] {
            assert!(plan(text).is_err(), "{text}");
        }
    }
}
