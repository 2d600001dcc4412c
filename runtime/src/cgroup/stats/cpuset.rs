//! Where processes may run and take memory (v1 only).

use anyhow::{Context, Result};

use super::number;
use crate::cgroup::files::Dir;
use crate::cgroup::{Cgroup, Mode};

/// The kernel's flags are 0 or 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cpuset {
    pub(crate) cpus: Vec<u16>,
    pub(crate) mems: Vec<u16>,
    /// Name of the file after `cpuset.`, and its number.
    pub(crate) flags: Vec<(&'static str, u64)>,
    pub(crate) relax_domain_level: i64,
}

const FLAGS: [&str; 8] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
];

impl Cgroup {
    pub(super) fn cpuset(&self) -> Result<Option<Cpuset>> {
        if self.mode == Mode::V2 {
            return Ok(None);
        }
        let Some(dir) = self.open("cpuset")? else { return Ok(None) };
        let flag = |name| -> Result<_> {
            Ok((name, number(&dir, &format!("cpuset.{name}"))?.unwrap_or(0)))
        };
        let level = dir.read_if_exists("cpuset.sched_relax_domain_level")?.unwrap_or_default();
        Ok(Some(Cpuset {
            cpus: list(&dir, "cpuset.cpus")?,
            mems: list(&dir, "cpuset.mems")?,
            flags: FLAGS.into_iter().map(flag).collect::<Result<_>>()?,
            relax_domain_level: level.trim().parse().unwrap_or(0),
        }))
    }
}

fn list(dir: &Dir, file: &str) -> Result<Vec<u16>> {
    let text = dir.read_if_exists(file)?.unwrap_or_default();
    parse(text.trim()).with_context(|| format!("parse {file} of {}", dir.path.display()))
}

/// Such as `0-3,7`.
fn parse(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_spelled_out() {
        assert_eq!(parse("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(parse(""), Some(vec![]));
        assert_eq!(parse("x"), None);
    }
}
