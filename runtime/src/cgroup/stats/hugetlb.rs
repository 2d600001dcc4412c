//! Huge pages in use, by size.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use super::{number, table, value};
use crate::cgroup::{Cgroup, Mode};

const SIZES: &str = "/sys/kernel/mm/hugepages";

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HugePages {
    pub(crate) usage: u64,
    pub(crate) peak: u64,
    pub(crate) failures: u64,
}

impl Cgroup {
    pub(super) fn hugetlb(&self) -> Result<BTreeMap<String, HugePages>> {
        let mut all = BTreeMap::new();
        let Some(dir) = self.open("hugetlb")? else { return Ok(all) };
        for size in sizes()? {
            let prefix = format!("hugetlb.{size}");
            let pages = match self.mode {
                Mode::V2 => {
                    // Reservations (5.7) are what limits strike at first.
                    let reserved = number(&dir, &format!("{prefix}.rsvd.current"))?;
                    let usage = match reserved {
                        None => number(&dir, &format!("{prefix}.current"))?,
                        reserved => reserved,
                    };
                    let Some(usage) = usage else { continue };
                    let events = table(&dir, &format!("{prefix}.events"))?;
                    HugePages { usage, peak: 0, failures: value(&events, "max") }
                }
                Mode::V1 | Mode::Hybrid => {
                    let file = |name: &str| -> Result<Option<u64>> {
                        number(&dir, &format!("{prefix}.{name}"))
                    };
                    let Some(usage) = file("usage_in_bytes")? else { continue };
                    HugePages {
                        usage,
                        peak: file("max_usage_in_bytes")?.unwrap_or(0),
                        failures: file("failcnt")?.unwrap_or(0),
                    }
                }
            };
            all.insert(size, pages);
        }
        Ok(all)
    }
}

/// The sizes of this host, in the cgroup files' spelling.
fn sizes() -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(SIZES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("open {SIZES}")),
    };
    let mut sizes = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("read {SIZES}"))?.file_name();
        sizes.extend(name.to_str().and_then(spell));
    }
    Ok(sizes)
}

fn spell(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..1_048_576 => format!("{}MB", kilobytes / 1024),
        _ => format!("{}GB", kilobytes / 1_048_576),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_spelled_as_the_files_are() {
        assert_eq!(spell("hugepages-64kB").as_deref(), Some("64KB"));
        assert_eq!(spell("hugepages-2048kB").as_deref(), Some("2MB"));
        assert_eq!(spell("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!(spell("other"), None);
    }
}
