//! `update`: other limits for a container that is there. Those that are refused leave the old ones
//! in force.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};

use crate::args::Update;
use crate::cgroup::Mode;
use crate::error::Sentinel;
use crate::log;
use crate::plan::cgroup::{plan_update, update};
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids, Resources};
use crate::state::{self, StateStore, Status};

pub(super) fn run(args: &Update, store: &StateStore) -> Result<u8> {
    store.load(&args.id)?;
    let change = match &args.resources {
        Some(path) => read(path)?,
        None => of_flags(args)?,
    };
    if args.l3_cache_schema.is_some() {
        bail!("Intel RDT/CAT: l3 cache schema is not enabled");
    }
    if args.mem_bw_schema.is_some() {
        bail!("Intel RDT/MBA: memory bandwidth schema is not enabled");
    }
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
    let spec = store.load_spec(&args.id)?;
    let current = spec.linux.and_then(|linux| linux.resources).unwrap_or_default();
    let mode = Mode::probe()?;
    let write = update::complete(&change, &current);
    let cgroup = record.cgroup();
    let plan = plan_update(&write, mode)?;
    if let Err(error) = cgroup.apply(&plan) {
        return Err(match plan_update(&current, mode).and_then(|old| cgroup.apply(&old)) {
            Ok(()) => error,
            Err(also) => error.context(format!("restore the old limits: {also:#}")),
        });
    }
    store.save_resources(&args.id, &update::merge(current, write))?;
    Ok(0)
}

fn read(path: &Path) -> Result<Resources> {
    serde_json::from_slice(&super::read_input(path)?).with_context(|| path.display().to_string())
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
fn size(text: &str) -> Option<i64> {
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
