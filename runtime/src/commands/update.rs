//! `update`: other limits for a container that is there. Those that are refused leave the old ones
//! in force.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};

use crate::args::Update;
use crate::cgroup::{Journal, Mode};
use crate::error::Sentinel;
use crate::log;
use crate::plan::cgroup::{CgroupPlan, plan_update, update};
use crate::plan::systemd::limits;
use crate::resctrl::{self, Class};
use crate::spec::IntelRdt;
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids, Resources};
use crate::state::{self, StateStore, Status};

pub(super) fn run(args: &Update, store: &StateStore) -> Result<u8> {
    store.load(&args.id)?;
    let change = match &args.resources {
        Some(path) => read(path)?,
        None => of_flags(args)?,
    };
    let schemata = schemata(args)?;
    let kernel = |memory: &Memory| memory.kernel.is_some() || memory.kernel_tcp.is_some();
    if change.memory.as_ref().is_some_and(kernel) {
        log::warn("Kernel memory settings are ignored and will be removed");
    }

    // What is in force must not change between our look at it and our record.
    let _claim = store.claim(&args.id)?;
    let record = store.load(&args.id)?;
    if state::status(store, &record)? == Status::Stopped {
        return Err(Sentinel::NotRunning.into());
    }
    let linux = store.load_spec(&args.id)?.linux.unwrap_or_default();
    let class = match linux.intel_rdt {
        Some(mut asked) if !schemata.is_empty() => {
            replace(&mut asked, &schemata);
            Some((Class::locate(&asked, &args.id)?, asked))
        }
        None if !schemata.is_empty() => {
            bail!("updating a non-existent Intel RDT configuration is not supported")
        }
        _ => None,
    };
    let current = linux.resources.unwrap_or_default();
    let write = update::complete(&change, &current);
    let cgroup = record.cgroup();
    let merged = update::merge(current.clone(), write.clone());
    let managed = cgroup.unit().is_some();
    let plan = plan_update(&if managed { limits::rounded(write) } else { write }, Mode::probe()?)?;
    for warning in &plan.warnings {
        log::warn(warning);
    }

    let mut journal = Journal::keeping();
    let mut told = false;
    let result = cgroup.change(&plan, &mut journal).and_then(|()| {
        let warnings = cgroup.update_unit(&merged, &plan)?;
        told = managed;
        warnings.iter().for_each(log::warn);
        let save = |asked| store.save_limits(&args.id, &merged, asked);
        match &class {
            Some((class, asked)) => change_class(class, || save(Some(asked))),
            None => save(None),
        }
    });
    let Err(error) = result else { return Ok(0) };
    let restored =
        if told { cgroup.update_unit(&current, &CgroupPlan::default()) } else { Ok(vec![]) };
    let error = journal.undo(error);
    Err(match restored {
        Ok(_) => error,
        Err(also) => error.context(format!("restore the old limits: {also:#}")),
    })
}

/// Changes the class for good if `save` succeeds.
fn change_class(class: &Class, save: impl FnOnce() -> Result<()>) -> Result<()> {
    let old = class.change()?;
    save().map_err(|error| match class.restore(&old) {
        Ok(()) => error,
        Err(also) => error.context(format!("restore the old schemata: {also:#}")),
    })
}

/// The lines for resctrl, if the host has what they are for.
fn schemata(args: &Update) -> Result<Schemata> {
    let schemata = Schemata {
        l3_cache: args.l3_cache_schema.clone().unwrap_or_default(),
        memory_bandwidth: args.mem_bw_schema.clone().unwrap_or_default(),
    };
    if schemata.is_empty() {
        return Ok(schemata);
    }
    let root = resctrl::root()?;
    let lacks = |resource| !root.as_ref().is_some_and(|root| resctrl::has(root, resource));
    if !schemata.l3_cache.is_empty() && lacks("L3") {
        bail!("Intel RDT/CAT: l3 cache schema is not enabled");
    }
    if !schemata.memory_bandwidth.is_empty() && lacks("MB") {
        bail!("Intel RDT/MBA: memory bandwidth schema is not enabled");
    }
    Ok(schemata)
}

/// Empty ones leave what is there.
#[derive(Default)]
struct Schemata {
    l3_cache: String,
    memory_bandwidth: String,
}

impl Schemata {
    fn is_empty(&self) -> bool {
        self.l3_cache.is_empty() && self.memory_bandwidth.is_empty()
    }
}

fn replace(asked: &mut IntelRdt, schemata: &Schemata) {
    for (field, new) in [
        (&mut asked.l3_cache_schema, &schemata.l3_cache),
        (&mut asked.mem_bw_schema, &schemata.memory_bandwidth),
    ] {
        if !new.is_empty() {
            field.clone_from(new);
        }
    }
}

fn read(path: &Path) -> Result<Resources> {
    let read: Resources = serde_json::from_slice(&super::read_input(path)?)
        .with_context(|| path.display().to_string())?;
    Ok(read.in_the_specifications_letters())
}

fn of_flags(args: &Update) -> Result<Resources> {
    Ok(Resources {
        memory: Some(Memory {
            limit: bytes("memory", args.memory.as_ref())?,
            reservation: bytes("memory-reservation", args.memory_reservation.as_ref())?,
            swap: bytes("memory-swap", args.memory_swap.as_ref())?,
            kernel: bytes("kernel-memory", args.kernel_memory.as_ref())?,
            kernel_tcp: bytes("kernel-memory-tcp", args.kernel_memory_tcp.as_ref())?,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: number("cpu-share", args.cpu_share.as_ref())?,
            quota: number("cpu-quota", args.cpu_quota.as_ref())?,
            burst: number("cpu-burst", args.cpu_burst.as_ref())?,
            period: number("cpu-period", args.cpu_period.as_ref())?,
            realtime_runtime: number("cpu-rt-runtime", args.cpu_rt_runtime.as_ref())?,
            realtime_period: number("cpu-rt-period", args.cpu_rt_period.as_ref())?,
            cpus: args.cpuset_cpus.clone().unwrap_or_default(),
            mems: args.cpuset_mems.clone().unwrap_or_default(),
            idle: number("cpu-idle", args.cpu_idle.as_ref())?,
        }),
        pids: Some(Pids { limit: args.pids_limit }),
        block_io: Some(BlockIo { weight: args.blkio_weight, ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// As in runc an empty value is none.
fn number<T>(flag: &str, value: Option<&String>) -> Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    value.parse().map(Some).with_context(|| format!("invalid value for {flag}: {value:?}"))
}

fn bytes(flag: &str, value: Option<&String>) -> Result<Option<i64>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    size(value)
        .map(Some)
        .ok_or_else(|| anyhow!("invalid value for {flag}: invalid size: {value:?}"))
}

/// `-1`, or a number that may have a fraction and one of the suffixes b, k, m, g, t, p, alone or
/// followed by `b` or `ib`; all of them are powers of 1024.
#[expect(clippy::cast_possible_truncation, reason = "checked against the range just before")]
pub(super) fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.to_ascii_lowercase();
    let start = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, suffix) = lower.split_at(start);
    let number: f64 = number.trim_end().parse().ok()?;
    let power = match suffix.strip_suffix("ib").or(suffix.strip_suffix('b')).unwrap_or(suffix) {
        "" if suffix != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    (0.0..9.2e18).contains(&bytes).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_in_powers_of_1024() {
        for (text, bytes) in [
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("67108864", Some(67_108_864)),
            ("50M", Some(52_428_800)),
            ("1.5kb", Some(1536)),
            ("2 GiB", Some(2_147_483_648)),
            ("7b", Some(7)),
            ("", None),
            ("ib", None),
            ("-2", None),
            ("1x", None),
            ("9999999p", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_bad_number_names_its_flag() {
        let args = Update { cpu_period: Some("x".to_owned()), ..Update::default() };
        let text = of_flags(&args).unwrap_err().to_string();
        assert_eq!(text, "invalid value for cpu-period: \"x\"");
    }
}
