//! config.json as it is written: plain values, nothing decided yet.
//!
//! The leaf types are oci-spec's where those accept what runc accepts; the upper levels are ours,
//! since oci-spec refuses an unknown capability name, a `process` without `user`, and Go's `null`
//! for an empty list.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use strict::Strict;

pub(crate) mod resources;
pub(crate) mod seccomp;
mod strict;

pub(crate) use oci_spec::runtime::{Hook, LinuxIdMapping as IdMapping, Mount};

/// The whole document.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    #[serde(default, deserialize_with = "or_default")]
    pub oci_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

/// The program to run and what it may do.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    #[serde(default, deserialize_with = "or_default")]
    pub terminal: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) user: User,
    #[serde(default, deserialize_with = "or_default")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub cwd: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    #[serde(default, deserialize_with = "or_default")]
    pub no_new_privileges: bool,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    #[serde(default, rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// Initial size of the terminal, in characters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct ConsoleSize {
    #[serde(default)]
    pub height: u16,
    #[serde(default)]
    pub width: u16,
}

/// Who the program runs as.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// The five capability sets, by name and unchecked.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Capabilities {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub bounding: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub inheritable: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ambient: Vec<String>,
}

/// One resource limit; the name is checked when planning.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub hard: u64,
    #[serde(default)]
    pub soft: u64,
}

/// CPU scheduling policy and its parameters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Scheduler {
    #[serde(default, deserialize_with = "or_default")]
    pub policy: String,
    #[serde(default)]
    pub nice: i32,
    #[serde(default)]
    pub priority: i32,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    #[serde(default)]
    pub runtime: u64,
    #[serde(default)]
    pub deadline: u64,
    #[serde(default)]
    pub period: u64,
}

/// I/O scheduling class and priority.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct IoPriority {
    #[serde(default, deserialize_with = "or_default")]
    pub class: String,
    #[serde(default)]
    pub priority: i32,
}

/// CPUs of an exec'd process before and after it joins the cgroup.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct ExecCpuAffinity {
    #[serde(default, deserialize_with = "or_default")]
    pub initial: String,
    #[serde(default, rename = "final", deserialize_with = "or_default")]
    pub last: String,
}

/// The root file system.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Root {
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub readonly: bool,
}

/// Programs to run at the stations of the container's life.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hooks {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// What only Linux has.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Linux {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<resources::Resources>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub net_devices: BTreeMap<String, NetDevice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<seccomp::Seccomp>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub rootfs_propagation: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub readonly_paths: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub mount_label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
}

/// A namespace to make, or to join when it has a path.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A device node to make in the container.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network device to move into the container.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct NetDevice {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Execution domain.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Personality {
    #[serde(default, deserialize_with = "or_default")]
    pub domain: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// Class of service for caches and memory bandwidth.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IntelRdt {
    #[serde(rename = "closID", deserialize_with = "or_default")]
    pub clos_id: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    #[serde(deserialize_with = "or_default")]
    pub enable_monitoring: bool,
    /// Known before 1.3, and without effect since.
    #[serde(rename = "enableCMT", deserialize_with = "or_default")]
    pub enable_cmt: bool,
    /// Known before 1.3, and without effect since.
    #[serde(rename = "enableMBM", deserialize_with = "or_default")]
    pub enable_mbm: bool,
}

/// On which NUMA nodes memory is taken.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct MemoryPolicy {
    #[serde(deserialize_with = "or_default")]
    pub mode: String,
    #[serde(deserialize_with = "or_default")]
    pub nodes: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// How far a clock of the time namespace is from the host's.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct TimeOffset {
    #[serde(default)]
    pub secs: i64,
    #[serde(default)]
    pub nanosecs: u32,
}

/// Parses config.json. The second parse, which finds out the path, costs only those who err.
pub(crate) fn parse(bytes: &[u8]) -> Result<Spec> {
    let mut spec: Spec = parse_document(bytes)?;
    if let Some(linux) = &mut spec.linux {
        linux.resources =
            linux.resources.take().map(resources::Resources::in_the_specifications_letters);
    }
    Ok(spec)
}

/// What is asked of a config.json after the container was created: reading all of one that has a
/// long seccomp profile takes much longer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Outline {
    pub(crate) process: Option<IgnoredAny>,
    pub(crate) hooks: Option<Hooks>,
}

/// Parses a config.json as far as `Outline` goes.
pub(crate) fn parse_outline(bytes: &[u8]) -> Result<Outline> {
    parse_document(bytes)
}

/// Parses the process block that `exec --process` is given.
pub(crate) fn parse_process(bytes: &[u8]) -> Result<Process> {
    parse_document(bytes)
}

/// Parses the list that `mounts` is given.
pub(crate) fn parse_mounts(bytes: &[u8]) -> Result<Vec<Mount>> {
    parse_document(bytes)
}

fn parse_document<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    let mut document = serde_json::Deserializer::from_slice(bytes);
    if let Ok(value) = T::deserialize(Strict(&mut document))
        && document.end().is_ok()
    {
        return Ok(value);
    }
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut document))?;
    document.end().context("trailing characters")?;
    Ok(value)
}

/// Go writes an empty list, map or string as `null` too.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_an_empty_list_as_in_go() {
        let spec = parse(
            br#"{"ociVersion":"1.0.2","mounts":null,"process":{"args":null,"rlimits":null},
                "linux":{"namespaces":null,"sysctl":null,"resources":null}}"#,
        )
        .unwrap();
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.process.unwrap().user.uid, 0);
    }

    #[test]
    fn an_error_names_path_line_and_column() {
        let error = parse(b"{\n \"process\": {\"user\": {\"uid\": \"root\"}}}").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("process.user.uid"), "{text}");
        assert!(text.contains("line 2 column"), "{text}");
    }

    #[test]
    fn a_list_is_no_structure() {
        for text in [r#"{"root":["path"]}"#, r#"{"linux":{"namespaces":[["pid"]]}}"#, "[]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn garbage_after_the_document_is_refused() {
        assert!(parse(b"{} {}").is_err());
    }

    #[test]
    fn an_unknown_capability_is_not_a_parse_error() {
        let spec = parse(br#"{"process":{"capabilities":{"bounding":["CAP_NOPE"]}}}"#).unwrap();
        assert_eq!(spec.process.unwrap().capabilities.unwrap().bounding, ["CAP_NOPE"]);
    }
}
