//! What is recorded of one container, and what can be told from it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use rustix::process::PidfdFlags;
use serde::{Deserialize, Serialize};

use super::Status;
use crate::bundle::Bundle;
use crate::cgroup::systemd::UnitRecord;
use crate::cgroup::{self, Cgroup, Privilege};
use crate::clock;

/// state.json; the names of the keys are runc's, since tools are known to look into it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// 0 until there is a process.
    pub(crate) init_process_pid: i32,
    /// In clock ticks since boot: with the pid it names one process for ever.
    pub(crate) init_process_start: u64,
    pub(crate) created: String,
    pub(crate) config: Config,
    pub(crate) rootless: bool,
    pub(crate) cgroup_paths: cgroup::Record,
    /// The unit that the cgroup is of, if systemd manages it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) systemd: Option<UnitRecord>,
    pub(crate) namespace_paths: BTreeMap<String, String>,
    pub(crate) external_descriptors: Vec<String>,
    pub(crate) intel_rdt_path: String,
    /// The groups of resctrl that are the container's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resctrl_groups: Vec<PathBuf>,
    /// What is in the bundle is not the container's configuration: it has the copy here only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) config_elsewhere: bool,
}

/// The part of the configuration that is wanted without reading all of config.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) rootfs: PathBuf,
    pub(crate) namespaces: Vec<NamespaceRecord>,
    /// The spec's `ociVersion`.
    pub(crate) version: String,
    /// The annotations as `key=value`, and `bundle=DIR`.
    pub(crate) labels: Vec<String>,
    pub(crate) no_new_keyring: bool,
}

/// A namespace of the container; with a path it was joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NamespaceRecord {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) path: String,
}

impl Record {
    /// The intent to make a container: no process yet.
    pub(crate) fn intent(
        id: &str,
        bundle: &Bundle,
        cgroup_paths: cgroup::Record,
        rootless: bool,
        no_new_keyring: bool,
    ) -> Self {
        let namespaces = bundle.spec.linux.iter().flat_map(|linux| &linux.namespaces);
        let mut labels: Vec<String> =
            bundle.spec.annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        labels.push(format!("bundle={}", bundle.dir.display()));
        Record {
            id: id.to_owned(),
            init_process_pid: 0,
            init_process_start: 0,
            created: clock::nanoseconds(SystemTime::now()),
            config: Config {
                rootfs: bundle.rootfs.clone(),
                namespaces: namespaces
                    .map(|namespace| NamespaceRecord {
                        kind: clone_name(&namespace.kind).to_owned(),
                        path: namespace.path.clone(),
                    })
                    .collect(),
                version: bundle.spec.oci_version.clone(),
                labels,
                no_new_keyring,
            },
            rootless,
            cgroup_paths,
            systemd: None,
            namespace_paths: BTreeMap::new(),
            external_descriptors: Vec::new(),
            intel_rdt_path: String::new(),
            resctrl_groups: Vec::new(),
            config_elsewhere: !bundle.own_config,
        }
    }

    /// Notes the process that `pid` is now.
    pub(crate) fn set_process(&mut self, pid: i32) -> Result<()> {
        let stat = ProcessStat::read(pid)?.context("container init died at once")?;
        self.init_process_pid = pid;
        self.init_process_start = stat.start;
        self.namespace_paths = NAMESPACES
            .iter()
            .map(|(name, file)| ((*name).to_owned(), format!("/proc/{pid}/ns/{file}")))
            .collect();
        Ok(())
    }

    /// Notes a namespace that the container has though its config.json does not ask for it.
    pub(crate) fn add_namespace(&mut self, kind: &str) {
        let kind = clone_name(kind).to_owned();
        self.config.namespaces.push(NamespaceRecord { kind, path: String::new() });
    }

    /// The directory of the bundle.
    pub(crate) fn bundle(&self) -> PathBuf {
        let labels = self.config.labels.iter().rev();
        PathBuf::from(labels.filter_map(|label| label.strip_prefix("bundle=")).next().unwrap_or(""))
    }

    /// The annotations of config.json.
    pub(crate) fn annotations(&self) -> BTreeMap<&str, &str> {
        let own = self.config.labels.len().saturating_sub(1);
        self.config.labels[..own].iter().filter_map(|label| label.split_once('=')).collect()
    }

    /// True if the container has a pid namespace of its own, so that its init's death ends all.
    pub(crate) fn private_pid_namespace(&self) -> bool {
        self.config.namespaces.iter().any(|own| own.kind == "NEWPID" && own.path.is_empty())
    }

    /// The container's cgroup.
    pub(crate) fn cgroup(&self) -> Cgroup {
        let privilege = if self.rootless { Privilege::Rootless } else { Privilege::Root };
        Cgroup::from_record(&self.cgroup_paths, privilege).managed_by(self.systemd.clone())
    }

    /// A handle of the init process, if it is alive.
    pub(crate) fn pidfd(&self) -> Result<Option<OwnedFd>> {
        let Some(pidfd) = open_process(self.init_process_pid)? else { return Ok(None) };
        // Asked after it was opened: so it is of this process and no later one of that number.
        Ok(self.live_process()?.map(|_| pidfd))
    }

    /// The init process, if it still is that process and alive.
    pub(crate) fn live_process(&self) -> Result<Option<i32>> {
        if self.init_process_pid == 0 {
            return Ok(None);
        }
        let stat = ProcessStat::read(self.init_process_pid)?;
        Ok(stat
            .filter(|stat| stat.start == self.init_process_start && stat.alive())
            .map(|_| self.init_process_pid))
    }
}

/// A handle of the process of this number, if there is one.
pub(crate) fn open_process(pid: i32) -> Result<Option<OwnedFd>> {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error).context("pidfd_open"),
    }
}

/// When the process of this number was started, if it is alive.
pub(crate) fn live_since(pid: i32) -> Result<Option<u64>> {
    Ok(ProcessStat::read(pid)?.filter(ProcessStat::alive).map(|stat| stat.start))
}

const NAMESPACES: &[(&str, &str)] = &[
    ("NEWCGROUP", "cgroup"),
    ("NEWIPC", "ipc"),
    ("NEWNET", "net"),
    ("NEWNS", "mnt"),
    ("NEWPID", "pid"),
    ("NEWTIME", "time"),
    ("NEWUSER", "user"),
    ("NEWUTS", "uts"),
];

/// runc's record names namespaces by their clone flags.
fn clone_name(kind: &str) -> &str {
    match kind {
        "cgroup" => "NEWCGROUP",
        "ipc" => "NEWIPC",
        "network" => "NEWNET",
        "mount" => "NEWNS",
        "pid" => "NEWPID",
        "time" => "NEWTIME",
        "user" => "NEWUSER",
        "uts" => "NEWUTS",
        other => other,
    }
}

/// The two fields of /proc/PID/stat that we read.
struct ProcessStat {
    state: char,
    start: u64,
}

impl ProcessStat {
    fn read(pid: i32) -> Result<Option<Self>> {
        let text = match crate::pseudo::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read /proc/{pid}/stat")),
        };
        Self::parse(&text).map(Some).with_context(|| format!("parse /proc/{pid}/stat"))
    }

    /// The name, second field, may hold spaces and parentheses: count from the last of them.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start = fields.nth(18)?.parse().ok()?;
        Some(ProcessStat { state, start })
    }

    fn alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// The state as hooks get it on stdin.
pub(crate) fn hook_document(record: &Record, status: Status, pid: i32) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        oci_version: &'a str,
        id: &'a str,
        status: Status,
        #[serde(skip_serializing_if = "is_zero")]
        pid: i32,
        bundle: PathBuf,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: BTreeMap<&'a str, &'a str>,
    }
    let document = Document {
        oci_version: &record.config.version,
        id: &record.id,
        status,
        pid,
        bundle: record.bundle(),
        annotations: record.annotations(),
    };
    serde_json::to_vec(&document).context("write the state for a hook")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_look_like_fields() {
        let text = "7 (a) R (b) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let stat = ProcessStat::parse(text).unwrap();
        assert_eq!((stat.state, stat.start), ('S', 12345));
    }

    #[test]
    fn our_own_process_is_found_alive() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = ProcessStat::read(pid).unwrap().unwrap();
        assert!(stat.alive());
    }
}
