//! What the generated config.json must know of the host, probed once.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::capabilities;
use crate::userns::{Maps, Owners};

/// Facts of the host and of the caller.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// Where we are not root, the ids that the container's user namespace gets.
    pub(crate) rootless: Option<Maps>,
    /// cgroup v2 only, on which containers get a cgroup namespace, as with Docker.
    pub(crate) unified_cgroup: bool,
    /// Whether memory and swap together can be limited.
    pub(crate) swap_limit: bool,
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
            capabilities: bounding_set()?,
            hostname: hostname.to_string_lossy().into_owned(),
        })
    }
}

/// What we can hand on is what our own bounding set holds.
fn bounding_set() -> Result<Vec<&'static str>> {
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
            let kind = match metadata.file_type() {
                kind if kind.is_dir() => {
                    directories.push(path);
                    continue;
                }
                kind if kind.is_char_device() => "c",
                kind if kind.is_block_device() => "b",
                _ => continue,
            };
            let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
            devices.push(json!({
                "path": text, "type": kind, "major": major, "minor": minor,
                "fileMode": metadata.mode() & 0o7777, "uid": metadata.uid(), "gid": metadata.gid(),
            }));
        }
    }
    devices.sort_by_key(|device| device["path"].to_string());
    Ok(devices)
}
