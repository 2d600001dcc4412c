//! `linux.resources.unified` -> properties of the unit. A file that systemd does not know is left
//! to the write that follows anyway.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::cpus;
use super::limits::{DEFAULT_PERIOD_US, KNOWS_CPUSET, Limits, idle};

const BYTES: [(&str, &str); 5] = [
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.min", "MemoryMin"),
    ("memory.max", "MemoryMax"),
    ("memory.swap.max", "MemorySwapMax"),
];

pub(super) fn add(
    limits: &mut Limits,
    files: &BTreeMap<String, String>,
    version: u32,
) -> Result<()> {
    let is_idle = idle(files.get("cpu.idle").is_some_and(|value| value.trim() == "1"), version);
    for (file, value) in files {
        let value = value.trim();
        let wrong = || format!("unified resource {file:?} value conversion error: {value:?}");
        if let Some((_, name)) = BYTES.iter().find(|(known, _)| known == file) {
            limits.number(name, number(value).with_context(wrong)?);
            continue;
        }
        match file.as_str() {
            "cpu.idle" if is_idle => limits.number("CPUWeight", 0),
            "cpu.max" => {
                let (quota, period) = cpu_max(value).with_context(wrong)?;
                limits.quota(quota, Some(period), version);
            }
            "cpu.weight" if is_idle => limits.warnings.push(
                "unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight"
                    .to_owned(),
            ),
            "cpu.weight" => limits.number("CPUWeight", value.parse().with_context(wrong)?),
            "cpuset.cpus" | "cpuset.mems" if version >= KNOWS_CPUSET => {
                let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                limits.push(name, cpus::mask(value).with_context(wrong)?);
            }
            "pids.max" => limits.number("TasksMax", number(value).with_context(wrong)?.max(1)),
            _ => {}
        }
    }
    Ok(())
}

fn number(value: &str) -> Result<u64> {
    if value == "max" { Ok(u64::MAX) } else { Ok(value.parse()?) }
}

/// `QUOTA [PERIOD]`
fn cpu_max(value: &str) -> Result<(Option<u64>, u64)> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let (quota, period) = match words[..] {
        [quota] => (quota, DEFAULT_PERIOD_US),
        [quota, period] => (quota, period.parse().context("period")?),
        _ => bail!("expected a quota and a period"),
    };
    let quota = if quota == "max" { None } else { Some(quota.parse().context("quota")?) };
    Ok((quota, period))
}
