//! Carrying out a plan: the writes, and the steps that depend on what the cgroup is like now.

use anyhow::{Context, Result, anyhow, bail};
use rustix::io::Errno;

use super::files::{Dir, FileError};
use super::{Cgroup, Mode, Privilege, devices_bpf};
use crate::plan::cgroup::{CgroupPlan, Check, DevicePlan, Missing, Setting, Step};

impl Cgroup {
    /// Brings the cgroup to what the plan says. Device rules are tried but not insisted on where
    /// the privilege is not ours to begin with; every other failure is one.
    pub(crate) fn apply(&self, plan: &CgroupPlan) -> Result<()> {
        for step in &plan.steps {
            match step {
                Step::Write(setting) => self.write(setting)?,
                Step::Together(settings) => self.write_together(settings)?,
                Step::MemoryV1 { limit, memory_and_swap } => {
                    set_memory_v1(&self.dir("memory")?, *limit, *memory_and_swap)?;
                }
                Step::CheckMemory { limit, memory_and_swap } => {
                    check_memory(&self.dir("memory")?, *limit, *memory_and_swap)?;
                }
                Step::Devices(devices) => match self.set_devices(devices) {
                    Err(error) if self.privilege == Privilege::Root => return Err(error),
                    _ => {}
                },
                Step::Unified { file, value } => set_unified(&self.dir(file)?, file, value)?,
            }
        }
        Ok(())
    }

    fn dir(&self, controller: &str) -> Result<Dir> {
        match self.hierarchy(controller) {
            Some(hierarchy) => Ok(Dir::open(&hierarchy.path)?),
            None => {
                bail!("cannot set {controller} limit: container could not join or create cgroup")
            }
        }
    }

    fn write(&self, setting: &Setting) -> Result<()> {
        let dir = self.dir(setting.controller)?;
        write_first(&dir, setting)?;
        match setting.check {
            Check::None => Ok(()),
            Check::Shares(wanted) => check_shares(&dir, wanted),
        }
    }

    fn write_together(&self, settings: &[Setting]) -> Result<()> {
        let Some((last, before)) = settings.split_last() else { return Ok(()) };
        let mut refused = Vec::new();
        for setting in before {
            match write_first(&self.dir(setting.controller)?, setting) {
                Err(error) if error.errno == Errno::INVAL => refused.push(setting),
                other => other?,
            }
        }
        self.write(last)?;
        for setting in refused {
            self.write(setting)?;
        }
        Ok(())
    }

    fn set_devices(&self, devices: &DevicePlan) -> Result<()> {
        let dir = self.dir("devices")?;
        match self.mode {
            Mode::V2 => devices_bpf::attach(&dir, devices),
            Mode::V1 | Mode::Hybrid => set_devices_v1(&dir, devices),
        }
    }
}

/// Writes the first of the files that exists.
fn write_first(dir: &Dir, setting: &Setting) -> Result<(), FileError> {
    let mut missing = Ok(());
    for (file, value) in &setting.choices {
        match dir.write(file, value) {
            Err(error) if error.errno == Errno::NOENT => {
                if missing.is_ok() {
                    missing = Err(error);
                }
            }
            other => return other,
        }
    }
    if setting.missing == Missing::Skip { Ok(()) } else { missing }
}

fn check_shares(dir: &Dir, wanted: u64) -> Result<()> {
    let got = number(dir, "cpu.shares")?;
    if wanted > got {
        bail!("the maximum allowed cpu-shares is {got}");
    }
    if wanted < got {
        bail!("the minimum allowed cpu-shares is {got}");
    }
    Ok(())
}

/// The kernel insists on memory <= memory + swap at every moment, so a growing sum goes first.
fn set_memory_v1(dir: &Dir, limit: i64, memory_and_swap: i64) -> Result<()> {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let swap =
        if limit == -1 && memory_and_swap == 0 && dir.exists(SWAP)? { -1 } else { memory_and_swap };
    let set_swap = || match swap {
        0 => Ok(()),
        _ => dir.write(SWAP, &swap.to_string()),
    };
    let swap_first = limit != 0
        && swap != 0
        && match u64::try_from(swap) {
            Ok(sum) => number(dir, "memory.limit_in_bytes")? < sum,
            Err(_) => true,
        };
    if swap_first {
        set_swap()?;
        return set_memory_limit_v1(dir, limit);
    }
    set_memory_limit_v1(dir, limit)?;
    Ok(set_swap()?)
}

fn set_memory_limit_v1(dir: &Dir, limit: i64) -> Result<()> {
    if limit == 0 {
        return Ok(());
    }
    match dir.write("memory.limit_in_bytes", &limit.to_string()) {
        Err(error) if error.errno == Errno::BUSY => {
            let usage = number(dir, "memory.usage_in_bytes")?;
            let peak = number(dir, "memory.max_usage_in_bytes")?;
            Err(anyhow!(
                "unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})"
            ))
        }
        other => Ok(other?),
    }
}

/// v2 takes a limit below the usage and kills; who asks for the check wants an error instead.
fn check_memory(dir: &Dir, limit: i64, memory_and_swap: i64) -> Result<()> {
    let Some(usage) = dir.read_if_exists("memory.current")? else { return Ok(()) };
    let usage: i64 = usage.trim().parse().context("parse memory.current")?;
    if memory_and_swap > 0 && memory_and_swap <= usage {
        bail!("rejecting memory+swap limit {memory_and_swap} <= usage {usage}");
    }
    if limit > 0 && limit <= usage {
        bail!("rejecting memory limit {limit} <= usage {usage}");
    }
    Ok(())
}

/// Device by device, so that a running container never loses what it keeps.
fn set_devices_v1(dir: &Dir, target: &DevicePlan) -> Result<()> {
    let current = DevicePlan::from_list(&dir.read("devices.list")?)?;
    for change in current.transitions(target) {
        let file = if change.allow { "devices.allow" } else { "devices.deny" };
        dir.write(file, &change.line)?;
    }
    let result = DevicePlan::from_list(&dir.read("devices.list")?)?;
    if result.default_allow != target.default_allow {
        bail!("resulting devices cgroup doesn't match target mode");
    }
    // A deny list can't be read back.
    if !target.default_allow && result != *target {
        bail!("resulting devices cgroup doesn't precisely match target");
    }
    Ok(())
}

/// Files such as `io.max` take one device a write.
fn set_unified(dir: &Dir, file: &str, value: &str) -> Result<()> {
    let lines = value.lines().filter(|line| !line.is_empty());
    let result = if value.contains('\n') {
        lines.into_iter().try_for_each(|line| dir.write(file, line))
    } else {
        dir.write(file, value)
    };
    let Err(error) = result else { return Ok(()) };
    let controller = file.split_once('.').map_or(file, |(controller, _)| controller);
    if matches!(error.errno, Errno::NOENT | Errno::PERM | Errno::ACCESS) && controller != "cgroup" {
        let available = dir.read("cgroup.controllers")?;
        if !available.split_whitespace().any(|known| known == controller) {
            bail!(
                "unified resource {file:?} can't be set: controller {controller:?} not available"
            );
        }
    }
    Err(error).with_context(|| format!("unable to set unified resource {file:?}"))
}

fn number(dir: &Dir, file: &str) -> Result<u64> {
    let text = dir.read(file)?;
    text.trim().parse().with_context(|| format!("parse {file} of {}", dir.path.display()))
}
