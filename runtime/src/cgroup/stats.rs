//! What a cgroup uses, in v1's units for both versions.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::files::Dir;
use super::{Cgroup, Mode};

mod block_io;
mod cpuset;
mod hugetlb;
mod pressure;

pub(crate) use block_io::{BlockIo, Transfer};
pub(crate) use cpuset::Cpuset;
pub(crate) use hugetlb::HugePages;
pub(crate) use pressure::{Pressure, Stall};

/// Absent where the controller is not there.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Stats {
    pub(crate) memory: Option<Memory>,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) cpuset: Option<Cpuset>,
    pub(crate) pids: Option<Pids>,
    pub(crate) block_io: BlockIo,
    /// By size, such as `2MB`.
    pub(crate) hugetlb: BTreeMap<String, HugePages>,
}

/// Bytes, and the kernel's own table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) memory: Usage,
    /// v1 only: the kernel's memory, and of that its buffers for TCP.
    pub(crate) kernel: Usage,
    pub(crate) kernel_tcp: Usage,
    /// What is kept of files.
    pub(crate) cache: u64,
    /// Memory and swap together, in both versions.
    pub(crate) memory_and_swap: Usage,
    pub(crate) table: BTreeMap<String, u64>,
    pub(crate) pressure: Option<Pressure>,
}

/// One counter with its limit; `u64::MAX` is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) usage: u64,
    pub(crate) peak: u64,
    pub(crate) limit: u64,
    pub(crate) failures: u64,
}

/// Nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) total_ns: u64,
    pub(crate) user_ns: u64,
    pub(crate) kernel_ns: u64,
    /// v1 only, as are its two parts.
    pub(crate) per_cpu_ns: Vec<u64>,
    pub(crate) per_cpu_user_ns: Vec<u64>,
    pub(crate) per_cpu_kernel_ns: Vec<u64>,
    pub(crate) periods: u64,
    pub(crate) throttled_periods: u64,
    pub(crate) throttled_ns: u64,
    pub(crate) pressure: Option<Pressure>,
}

/// Tasks; a limit of 0 is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pids {
    pub(crate) current: u64,
    pub(crate) limit: u64,
}

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture of ours.
const NS_PER_TICK: u64 = 10_000_000;

impl Cgroup {
    /// What the cgroup uses now.
    pub(crate) fn stats(&self) -> Result<Stats> {
        let unified = self.mode == Mode::V2;
        let memory =
            self.open("memory")?.map(|dir| if unified { memory_v2(&dir) } else { memory_v1(&dir) });
        let cpu = if unified {
            self.open("cpu")?.map(|dir| cpu_v2(&dir))
        } else {
            self.cpu_v1()?.map(Ok)
        };
        let pids = self.open("pids")?.map(|dir| pids(&dir));
        Ok(Stats {
            memory: memory.transpose()?.flatten(),
            cpu: cpu.transpose()?,
            cpuset: self.cpuset()?,
            pids: pids.transpose()?.flatten(),
            block_io: self.block_io()?,
            hugetlb: self.hugetlb()?,
        })
    }

    fn open(&self, controller: &str) -> Result<Option<Dir>> {
        match self.hierarchy(controller) {
            Some(hierarchy) => Ok(Dir::open_if_exists(&hierarchy.path)?),
            None => Ok(None),
        }
    }

    fn cpu_v1(&self) -> Result<Option<Cpu>> {
        let Some(dir) = self.open("cpuacct")? else { return Ok(None) };
        let per_cpu = dir.read_if_exists("cpuacct.usage_percpu")?.unwrap_or_default();
        let split = table(&dir, "cpuacct.stat")?;
        let all = dir.read_if_exists("cpuacct.usage_all")?.unwrap_or_default();
        let mut cpu = Cpu {
            total_ns: number(&dir, "cpuacct.usage")?.unwrap_or(0),
            user_ns: value(&split, "user") * NS_PER_TICK,
            kernel_ns: value(&split, "system") * NS_PER_TICK,
            per_cpu_ns: per_cpu.split_whitespace().filter_map(|it| it.parse().ok()).collect(),
            per_cpu_user_ns: column(&all, 1),
            per_cpu_kernel_ns: column(&all, 2),
            ..Cpu::default()
        };
        if let Some(dir) = self.open("cpu")? {
            let throttling = table(&dir, "cpu.stat")?;
            cpu.periods = value(&throttling, "nr_periods");
            cpu.throttled_periods = value(&throttling, "nr_throttled");
            cpu.throttled_ns = value(&throttling, "throttled_time");
        }
        Ok(Some(cpu))
    }
}

fn memory_v1(dir: &Dir) -> Result<Option<Memory>> {
    let usage = |name: &str| -> Result<Usage> {
        Ok(Usage {
            usage: number(dir, &format!("{name}.usage_in_bytes"))?.unwrap_or(0),
            peak: number(dir, &format!("{name}.max_usage_in_bytes"))?.unwrap_or(0),
            limit: number(dir, &format!("{name}.limit_in_bytes"))?.unwrap_or(0),
            failures: number(dir, &format!("{name}.failcnt"))?.unwrap_or(0),
        })
    };
    let table = table(dir, "memory.stat")?;
    Ok(Some(Memory {
        memory: usage("memory")?,
        kernel: usage("memory.kmem")?,
        kernel_tcp: usage("memory.kmem.tcp")?,
        memory_and_swap: usage("memory.memsw")?,
        cache: value(&table, "cache"),
        table,
        pressure: None,
    }))
}

fn memory_v2(dir: &Dir) -> Result<Option<Memory>> {
    let usage = |name: &str| -> Result<Option<Usage>> {
        let Some(current) = number(dir, &format!("{name}.current"))? else { return Ok(None) };
        Ok(Some(Usage {
            usage: current,
            // memory.peak came with 5.19, that of swap with 6.5.
            peak: number(dir, &format!("{name}.peak"))?.unwrap_or(0),
            limit: number(dir, &format!("{name}.max"))?.unwrap_or(u64::MAX),
            failures: 0,
        }))
    };
    let Some(memory) = usage("memory")? else { return Ok(None) };
    let swap = usage("memory.swap")?.unwrap_or_default();
    let memory_and_swap = Usage {
        usage: memory.usage + swap.usage,
        peak: 0,
        limit: memory.limit.saturating_add(swap.limit),
        failures: 0,
    };
    let table = table(dir, "memory.stat")?;
    Ok(Some(Memory {
        memory,
        kernel: Usage::default(),
        kernel_tcp: Usage::default(),
        memory_and_swap,
        cache: value(&table, "file"),
        table,
        pressure: pressure::read(dir, "memory.pressure")?,
    }))
}

fn cpu_v2(dir: &Dir) -> Result<Cpu> {
    let table = table(dir, "cpu.stat")?;
    Ok(Cpu {
        total_ns: value(&table, "usage_usec") * 1000,
        user_ns: value(&table, "user_usec") * 1000,
        kernel_ns: value(&table, "system_usec") * 1000,
        periods: value(&table, "nr_periods"),
        throttled_periods: value(&table, "nr_throttled"),
        throttled_ns: value(&table, "throttled_usec") * 1000,
        pressure: pressure::read(dir, "cpu.pressure")?,
        ..Cpu::default()
    })
}

fn pids(dir: &Dir) -> Result<Option<Pids>> {
    let Some(current) = number(dir, "pids.current")? else { return Ok(None) };
    let limit = number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX);
    Ok(Some(Pids { current, limit: limit.unwrap_or(0) }))
}

/// One number, `max` as `u64::MAX`; `None` if there is no such file.
fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    dir.read_if_exists(file)?
        .map(|text| match text.trim() {
            "max" => Ok(u64::MAX),
            text => text.parse(),
        })
        .transpose()
        .with_context(|| format!("parse {file} of {}", dir.path.display()))
}

/// Lines of `key number`; what has another form (a list of numbers) is left out.
pub(super) fn table(dir: &Dir, file: &str) -> Result<BTreeMap<String, u64>> {
    Ok(parse_table(&dir.read_if_exists(file)?.unwrap_or_default()))
}

fn parse_table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, number) = line.split_once(' ')?;
            Some((key.to_owned(), number.parse().ok()?))
        })
        .collect()
}

/// Of a table with a row per CPU and a line of titles.
fn column(text: &str, index: usize) -> Vec<u64> {
    let rows = text.lines().skip(1);
    rows.filter_map(|row| row.split_whitespace().nth(index)?.parse().ok()).collect()
}

pub(super) fn value(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_plain_numbers_only() {
        let table = parse_table("a 1\nb x\nc 18446744073709551615\n\n");
        assert_eq!((value(&table, "a"), value(&table, "b")), (1, 0));
        assert_eq!(value(&table, "c"), u64::MAX);
    }
}
