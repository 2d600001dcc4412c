//! What the generated config.json must know of the host, probed once.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::capabilities;
use super::flags::{Block, Device, Limits, Rule};
use crate::userns::{Maps, Owners};

/// Where a host shows its message queues, and a container its own.
pub(crate) const MESSAGE_QUEUES: &str = "/dev/mqueue";

/// Facts of the host and of the caller.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// Where we are not root, the ids that the container's user namespace gets.
    pub(crate) rootless: Option<Maps>,
    /// cgroup v2 only, on which containers get a cgroup namespace, as with Docker.
    pub(crate) unified_cgroup: bool,
    /// Whether memory and swap together can be limited.
    pub(crate) swap_limit: bool,
    /// Whether a group of processes can be given real-time scheduling.
    pub(crate) real_time: bool,
    /// Whether the host's message queues can be seen.
    pub(crate) message_queues: bool,
    /// The capabilities we could hand on.
    pub(crate) capabilities: Vec<&'static str>,
    pub(crate) hostname: String,
}

impl Host {
    pub(crate) fn probe(owners: &Owners) -> Result<Self> {
        let unified_cgroup = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let hostname = nix::unistd::gethostname().context("read host name")?;
        Ok(Self {
            rootless: owners.maps().cloned(),
            unified_cgroup,
            swap_limit: unified_cgroup
                || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
            real_time: Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists(),
            message_queues: Path::new(MESSAGE_QUEUES).is_dir(),
            capabilities: bounding_set()?,
            hostname: hostname.to_string_lossy().into_owned(),
        })
    }
}

impl Host {
    /// Refuses limits that the host's cgroups do not have.
    pub(crate) fn check(&self, limits: &Limits) -> Result<()> {
        if self.unified_cgroup && limits.oom_kill_disable {
            bail!(
                "--oom-kill-disable is not in cgroup v2, which this host has: use --oom-score-adj -1000"
            );
        }
        if self.unified_cgroup && limits.swappiness.is_some() {
            bail!(
                "--memory-swappiness is not in cgroup v2, which this host has: --memory-swap as large as \
                 --memory turns swapping off"
            );
        }
        let real_time = limits.real_time.period_us.is_some() || limits.real_time.quota_us.is_some();
        ensure!(
            !real_time || self.real_time,
            "--cpu-rt-period and --cpu-rt-runtime need cgroup v1 and a kernel with real-time scheduling of \
             groups: use --cap-add SYS_NICE with --ulimit rtprio=99"
        );
        Ok(())
    }
}

/// What we can hand on is what our own bounding set holds.
pub(crate) fn bounding_set() -> Result<Vec<&'static str>> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .context("read CapBnd of /proc/self/status")?;
    Ok(capabilities::from_mask(mask))
}

/// Every device node under /dev, as `linux.devices` lists them, for privileged containers.
pub(crate) fn devices() -> Result<Vec<Value>> {
    let mut devices = Vec::new();
    let mut directories = vec![PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("read {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
            let Some(text) = path.to_str() else { continue };
            // The container has file systems of its own there.
            if ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console"].contains(&text) {
                continue;
            }
            // What vanished meanwhile is no device any more.
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                directories.push(path);
            } else {
                devices.extend(node(text, &metadata));
            }
        }
    }
    devices.sort_by_key(|device| device["path"].to_string());
    Ok(devices)
}

/// A device node as `linux.devices` lists it; `None` for what is none.
fn node(path: &str, metadata: &Metadata) -> Option<Value> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return None,
    };
    let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
    Some(json!({
        "path": path, "type": kind, "major": major, "minor": minor,
        "fileMode": metadata.mode() & 0o7777, "uid": metadata.uid(), "gid": metadata.gid(),
    }))
}

/// What `--device` gives: nodes, and the rules that let the container use them.
pub(crate) fn given_devices(given: &[Device]) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    for device in given {
        let before = nodes.len();
        // Links are followed, as in /dev/disk.
        add_nodes(&device.host, &device.container, 0, &mut nodes)
            .with_context(|| format!("device {}", device.host))?;
        ensure!(nodes.len() > before, "{} is no device, and has none in it", device.host);
        rules.extend(nodes[before..].iter().map(|node| {
            json!({
                "allow": true, "type": node["type"], "major": node["major"],
                "minor": node["minor"], "access": device.access,
            })
        }));
    }
    Ok((nodes, rules))
}

/// What `--device-cgroup-rule` says.
pub(crate) fn device_rules(rules: &[Rule]) -> Vec<Value> {
    let rule = |rule: &Rule| {
        let mut entry = json!({"allow": true, "type": rule.kind, "access": rule.access});
        for (key, number) in [("major", rule.major), ("minor", rule.minor)] {
            if let Some(number) = number {
                entry[key] = json!(number);
            }
        }
        entry
    };
    rules.iter().map(rule).collect()
}

/// `linux.resources.blockIO`, which has numbers where the user has names of nodes.
pub(crate) fn block(block: &Block) -> Result<Option<Value>> {
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for disk in &block.disks {
        let metadata =
            std::fs::metadata(&disk.path).with_context(|| format!("disk {}", disk.path))?;
        ensure!(metadata.file_type().is_block_device(), "{} is no block device", disk.path);
        let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
        ensure!(
            !Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists(),
            "{} is a partition: the kernel limits whole disks",
            disk.path
        );
        let key = if disk.list == "weightDevice" { "weight" } else { "rate" };
        let entry = json!({"major": major, "minor": minor, key: disk.value});
        lists.entry(disk.list).or_default().push(entry);
    }
    let mut limits: Map<String, Value> =
        lists.into_iter().map(|(name, list)| (name.to_owned(), list.into())).collect();
    if let Some(weight) = block.weight {
        limits.insert("weight".to_owned(), json!(weight));
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

fn add_nodes(host: &str, container: &str, depth: usize, nodes: &mut Vec<Value>) -> Result<()> {
    ensure!(depth < 16, "directories are nested too deeply");
    let metadata = std::fs::metadata(host).context("look at it")?;
    if !metadata.is_dir() {
        nodes.extend(node(container, &metadata));
        return Ok(());
    }
    for entry in std::fs::read_dir(host).context("read it")? {
        let name = entry.context("read it")?.file_name();
        let Some(name) = name.to_str() else { continue };
        add_nodes(&format!("{host}/{name}"), &format!("{container}/{name}"), depth + 1, nodes)?;
    }
    Ok(())
}
