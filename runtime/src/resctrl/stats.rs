//! What a class of service has and uses, in the shape that `events` prints.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Class, SCHEMATA, has};

/// What the hardware does not share out or count is left out.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    /// That of all who are in no class.
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    /// One entry a node, as for the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct BandwidthInfo {
    #[serde(skip_serializing_if = "is_zero")]
    bandwidth_gran: u64,
    #[serde(skip_serializing_if = "is_zero")]
    delay_linear: u64,
    #[serde(skip_serializing_if = "is_zero")]
    min_bandwidth: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

/// Bytes since the group was made.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

/// Bytes of the cache in use.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Class {
    /// What the class has and uses now. Without a group by which the container is watched alone,
    /// the figures are of all who are in the class.
    pub(crate) fn stats(&self) -> Result<Stats> {
        let of_all = read(&self.root, SCHEMATA)?;
        let own = read(&self.path(), SCHEMATA)?;
        let mut stats =
            Stats { schemata: own.lines().map(str::to_owned).collect(), ..Stats::default() };
        let info = self.root.join("info");
        if has(&self.root, "L3") {
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: read(&info, "L3/cbm_mask")?,
                min_cbm_bits: number(&info, "L3/min_cbm_bits")?,
                num_closids: number(&info, "L3/num_closids")?,
            });
            stats.l3_cache_schema_root = line(&of_all, "L3");
            stats.l3_cache_schema = line(&own, "L3");
        }
        if has(&self.root, "MB") {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&info, "MB/bandwidth_gran")?,
                delay_linear: number(&info, "MB/delay_linear")?,
                min_bandwidth: number(&info, "MB/min_bandwidth")?,
                num_closids: number(&info, "MB/num_closids")?,
            });
            stats.mem_bw_schema_root = line(&of_all, "MB");
            stats.mem_bw_schema = line(&own, "MB");
        }
        if has(&self.root, "L3_MON") {
            self.count(&read(&info, "L3_MON/mon_features")?, &mut stats)?;
        }
        Ok(stats)
    }

    /// `features` is what the hardware counts, a word a line.
    fn count(&self, features: &str, stats: &mut Stats) -> Result<()> {
        let counts = |feature| features.lines().any(|line| line.trim() == feature);
        let (total, local) = (counts("mbm_total_bytes"), counts("mbm_local_bytes"));
        let occupancy = counts("llc_occupancy");
        let figures = self.monitor().unwrap_or_else(|| self.path()).join("mon_data");
        let (mut bandwidths, mut occupancies) = (Vec::new(), Vec::new());
        for node in nodes(&figures)? {
            let node = figures.join(node);
            let figure = |wanted, file| if wanted { number(&node, file) } else { Ok(0) };
            bandwidths.push(Bandwidth {
                mbm_total_bytes: figure(total, "mbm_total_bytes")?,
                mbm_local_bytes: figure(local, "mbm_local_bytes")?,
            });
            let llc_occupancy = figure(occupancy, "llc_occupancy")?;
            occupancies.push(Occupancy { llc_occupancy });
        }
        stats.mbm_stats = (total || local).then_some(bandwidths);
        stats.cmt_stats = occupancy.then_some(occupancies);
        Ok(())
    }
}

/// In the order of their names: the nodes' numbers have leading zeros.
fn nodes(figures: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(figures).with_context(|| format!("intelrdt: open {}", figures.display()))?;
    let mut nodes = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("intelrdt: read {}", figures.display()))?;
        nodes.extend(name.file_name().into_string());
    }
    nodes.sort_unstable();
    Ok(nodes)
}

fn line(schemata: &str, resource: &str) -> String {
    let found = schemata.lines().rfind(|line| line.contains(resource));
    found.unwrap_or_default().trim().to_owned()
}

fn read(directory: &Path, file: &str) -> Result<String> {
    let path = directory.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(error).with_context(|| format!("intelrdt: read {}", path.display())),
    }
}

/// 0 where the kernel has no such file.
fn number(directory: &Path, file: &str) -> Result<u64> {
    let path = directory.join(file);
    match fs::read_to_string(&path) {
        // What can't be counted at the moment reads as a word: `Unavailable`.
        Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("intelrdt: read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::Tree;
    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn a_class_tells_its_lines_and_what_the_nodes_count() {
        let tree = Tree::new("stats");
        put(
            &tree.0,
            &[
                ("info/L3/cbm_mask", "fffff"),
                ("info/L3/min_cbm_bits", "1"),
                ("info/L3/num_closids", "16"),
                ("info/MB/bandwidth_gran", "10"),
                ("info/MB/delay_linear", "1"),
                ("info/MB/min_bandwidth", "10"),
                ("info/MB/num_closids", "8"),
                ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes"),
                ("schemata", "    MB:0=100\n    L3:0=fffff"),
                ("c1/schemata", "    MB:0=50\n    L3:0=f"),
                ("c1/mon_groups/c1/mon_data/mon_L3_01/llc_occupancy", "3"),
                ("c1/mon_groups/c1/mon_data/mon_L3_01/mbm_total_bytes", "Unavailable"),
                ("c1/mon_groups/c1/mon_data/mon_L3_01/mbm_local_bytes", "5"),
                ("c1/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy", "1"),
                ("c1/mon_groups/c1/mon_data/mon_L3_00/mbm_total_bytes", "7"),
                ("c1/mon_groups/c1/mon_data/mon_L3_00/mbm_local_bytes", "6"),
            ],
        );
        let class = tree.class(r#"{"enableMonitoring":true}"#).unwrap();
        let expected = json!({
            "l3_cache_info": { "cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16 },
            "l3_cache_schema_root": "L3:0=fffff",
            "l3_cache_schema": "L3:0=f",
            "mem_bw_info": {
                "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8
            },
            "mem_bw_schema_root": "MB:0=100",
            "mem_bw_schema": "MB:0=50",
            "schemata": ["MB:0=50", "    L3:0=f"],
            "mbm_stats": [
                { "mbm_total_bytes": 7, "mbm_local_bytes": 6 },
                { "mbm_total_bytes": 0, "mbm_local_bytes": 5 }
            ],
            "cmt_stats": [{ "llc_occupancy": 1 }, { "llc_occupancy": 3 }],
        });
        assert_eq!(serde_json::to_value(class.stats().unwrap()).unwrap(), expected);
    }

    #[test]
    fn what_the_hardware_lacks_is_left_out() {
        let tree = Tree::new("few");
        fs::remove_dir_all(tree.0.join("info/L3")).unwrap();
        let class = tree.class(r#"{"closID":"/"}"#).unwrap();
        let stats = serde_json::to_value(class.stats().unwrap()).unwrap();
        assert_eq!(stats, json!({ "schemata": ["L3:0=0ff"] }));
    }
}
