//! Carrying out a plan: the writes, and the steps that depend on what the cgroup is like now.

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::io::Errno;

use super::files::{Dir, FileError};
use super::journal::Journal;
use super::{Cgroup, Mode, Privilege, controllers, devices_bpf};
use crate::plan::cgroup::{CgroupPlan, Check, DevicePlan, Missing, Setting, Step};

impl Cgroup {
    /// Brings a new cgroup to what the plan says. Device rules are tried but not insisted on where
    /// the privilege is not ours to begin with; every other failure is one, with the field of
    /// config.json that asked for it.
    pub(crate) fn apply(&self, plan: &CgroupPlan) -> Result<()> {
        self.change(plan, &mut Journal::none())
    }

    /// As [`Cgroup::apply`]; the journal can put everything back.
    pub(crate) fn change(&self, plan: &CgroupPlan, journal: &mut Journal) -> Result<()> {
        for step in &plan.steps {
            match step {
                Step::Write(setting) => self.write(setting, journal)?,
                Step::Together(settings) => self.write_together(settings, journal)?,
                Step::MemoryV1 { limit, memory_and_swap } => {
                    let dir = self.dir("memory").map_err(|error| of_field("memory", error))?;
                    set_memory_v1(&dir, *limit, *memory_and_swap, journal)?;
                }
                Step::CheckMemory { limit, memory_and_swap } => {
                    let dir = self.dir("memory").map_err(|error| of_field("memory", error))?;
                    check_memory(&dir, *limit, *memory_and_swap)?;
                }
                Step::Devices(devices) => match self.set_devices(devices) {
                    Err(error) if self.privilege == Privilege::Root => {
                        return Err(of_field("devices", error));
                    }
                    _ => {}
                },
                Step::Unified { file, value } => self
                    .dir(file)
                    .and_then(|dir| set_unified(&dir, file, value, journal))
                    .map_err(|error| of_field("unified", error))?,
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

    fn write(&self, setting: &Setting, journal: &mut Journal) -> Result<()> {
        self.try_write(setting, journal)
            .map_err(|refused| self.explain(setting, refused))
            .map_err(|error| of_field(&setting.field, error))
    }

    fn try_write(&self, setting: &Setting, journal: &mut Journal) -> Result<(), Refused> {
        let dir = self.dir(setting.controller)?;
        write_first(&dir, setting, journal)?;
        match setting.check {
            Check::None => Ok(()),
            Check::Shares(wanted) => Ok(check_shares(&dir, wanted)?),
        }
    }

    fn write_together(&self, settings: &[Setting], journal: &mut Journal) -> Result<()> {
        let Some((last, before)) = settings.split_last() else { return Ok(()) };
        let mut refused = Vec::new();
        for setting in before {
            match self.try_write(setting, journal) {
                Err(Refused::Write(error)) if error.errno == Errno::INVAL => refused.push(setting),
                Err(other) => {
                    return Err(of_field(&setting.field, self.explain(setting, other)));
                }
                Ok(()) => {}
            }
        }
        self.write(last, journal)?;
        for setting in refused {
            self.write(setting, journal)?;
        }
        Ok(())
    }

    /// A file that is missing says little; on v2 it is a controller's that was not handed down.
    fn explain(&self, setting: &Setting, refused: Refused) -> Error {
        let error = match refused {
            Refused::Write(error) => error,
            Refused::Other(error) => return error,
        };
        if self.mode != Mode::V2 || error.errno != Errno::NOENT {
            return error.into();
        }
        let why = self
            .dir(setting.controller)
            .and_then(|dir| controllers::why_missing(&dir, setting.controller));
        match why {
            Ok(Some(why)) => Error::new(error).context(why),
            // Without an explanation the plain error has to do.
            Ok(None) | Err(_) => error.into(),
        }
    }

    fn set_devices(&self, devices: &DevicePlan) -> Result<()> {
        let dir = self.dir("devices")?;
        match self.mode {
            Mode::V2 => devices_bpf::attach(&dir, devices),
            Mode::V1 | Mode::Hybrid => set_devices_v1(&dir, devices),
        }
    }
}

/// Why a setting is not in force: a write, whose errno may matter, or anything else.
enum Refused {
    Write(FileError),
    Other(Error),
}

impl From<FileError> for Refused {
    fn from(error: FileError) -> Self {
        Self::Write(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn of_field(field: &str, error: impl Into<Error>) -> Error {
    error.into().context(format!("linux.resources.{field}"))
}

/// Writes the first of the files that exists.
fn write_first(dir: &Dir, setting: &Setting, journal: &mut Journal) -> Result<(), FileError> {
    let mut missing = Ok(());
    for (file, value) in &setting.choices {
        match journal.write(dir, file, value) {
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
fn set_memory_v1(dir: &Dir, limit: i64, memory_and_swap: i64, journal: &mut Journal) -> Result<()> {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let swap =
        if limit == -1 && memory_and_swap == 0 && dir.exists(SWAP)? { -1 } else { memory_and_swap };
    let set_swap = |journal: &mut Journal| match swap {
        0 => Ok(()),
        _ => journal
            .write(dir, SWAP, &swap.to_string())
            .map_err(|error| of_field("memory.swap", error)),
    };
    let swap_first = limit != 0
        && swap != 0
        && match u64::try_from(swap) {
            Ok(sum) => number(dir, "memory.limit_in_bytes")? < sum,
            Err(_) => true,
        };
    if swap_first {
        set_swap(journal)?;
        return set_memory_limit_v1(dir, limit, journal);
    }
    set_memory_limit_v1(dir, limit, journal)?;
    set_swap(journal)
}

fn set_memory_limit_v1(dir: &Dir, limit: i64, journal: &mut Journal) -> Result<()> {
    if limit == 0 {
        return Ok(());
    }
    let error = match journal.write(dir, "memory.limit_in_bytes", &limit.to_string()) {
        Err(error) if error.errno == Errno::BUSY => {
            let usage = number(dir, "memory.usage_in_bytes")?;
            let peak = number(dir, "memory.max_usage_in_bytes")?;
            anyhow!(
                "unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})"
            )
        }
        Err(error) => error.into(),
        Ok(()) => return Ok(()),
    };
    Err(of_field("memory.limit", error))
}

/// v2 takes a limit below the usage and kills; who asks for the check wants an error instead.
fn check_memory(dir: &Dir, limit: i64, memory_and_swap: i64) -> Result<()> {
    let Some(usage) = dir.read_if_exists("memory.current")? else { return Ok(()) };
    let usage: i64 = usage.trim().parse().context("parse memory.current")?;
    if memory_and_swap > 0 && memory_and_swap <= usage {
        let error = anyhow!("rejecting memory+swap limit {memory_and_swap} <= usage {usage}");
        return Err(of_field("memory.swap", error));
    }
    if limit > 0 && limit <= usage {
        let error = anyhow!("rejecting memory limit {limit} <= usage {usage}");
        return Err(of_field("memory.limit", error));
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
fn set_unified(dir: &Dir, file: &str, value: &str, journal: &mut Journal) -> Result<()> {
    let result = if value.contains('\n') {
        let mut lines = value.lines().filter(|line| !line.is_empty());
        lines.try_for_each(|line| journal.write(dir, file, line))
    } else {
        journal.write(dir, file, value)
    };
    let Err(error) = result else { return Ok(()) };
    let controller = file.split_once('.').map_or(file, |(controller, _)| controller);
    if matches!(error.errno, Errno::NOENT | Errno::PERM | Errno::ACCESS)
        && controller != "cgroup"
        && let Some(why) = controllers::why_missing(dir, controller)?
    {
        return Err(anyhow!(why).context(format!(
            "unified resource {file:?} can't be set: controller {controller:?} not available"
        )));
    }
    Err(error).with_context(|| format!("unable to set unified resource {file:?}"))
}

fn number(dir: &Dir, file: &str) -> Result<u64> {
    let text = dir.read(file)?;
    text.trim().parse().with_context(|| format!("parse {file} of {}", dir.path.display()))
}
