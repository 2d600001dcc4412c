//! The state directory: `<root>/<id>/state.json` and beside it the container's own copy of
//! config.json, so that later commands do not depend on what becomes of the bundle.
//!
//! The record is written before the first effect on the host and again when there is a process;
//! the status is never stored but computed.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rustix::process::PidfdFlags;
use serde::{Deserialize, Serialize};

use crate::bundle::{self, Bundle};
use crate::cgroup::{self, Cgroup, Privilege};
use crate::clock;
use crate::error::Sentinel;
use crate::spec::Spec;

const STATE_FILE: &str = "state.json";
const STATE_TEMPORARY: &str = ".state.json.tmp";

/// What the init of a created container waits on, until `start` opens it.
pub(crate) const EXEC_FIFO: &str = "exec.fifo";

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
    pub(crate) namespace_paths: BTreeMap<String, String>,
    pub(crate) external_descriptors: Vec<String>,
    pub(crate) intel_rdt_path: String,
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
            namespace_paths: BTreeMap::new(),
            external_descriptors: Vec::new(),
            intel_rdt_path: String::new(),
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
        Cgroup::from_record(&self.cgroup_paths, privilege)
    }

    /// A handle of the init process, if it is alive.
    pub(crate) fn pidfd(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = rustix::process::Pid::from_raw(self.init_process_pid) else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context("pidfd_open"),
        };
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
        let text = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
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

/// Where a container stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// Works out where the container stands now.
pub(crate) fn status(store: &StateStore, record: &Record) -> Result<Status> {
    if record.live_process()?.is_none() {
        return Ok(Status::Stopped);
    }
    if record.cgroup().is_frozen()? {
        return Ok(Status::Paused);
    }
    Ok(if store.awaits_start(&record.id) { Status::Created } else { Status::Running })
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

/// An id may be a file name and nothing cleverer.
pub(crate) fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Sentinel::EmptyId.into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id == "." || id == ".." || !id.chars().all(allowed) {
        return Err(Sentinel::InvalidId.into());
    }
    Ok(())
}

/// Held while a container is made or unmade; the kernel lets go of it when we die.
pub(crate) struct Claim(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// All the records under one root.
#[derive(Clone, Debug)]
pub(crate) struct StateStore {
    root: PathBuf,
}

impl StateStore {
    /// Touches nothing: the root is made with the first record.
    pub(crate) fn new(root: PathBuf) -> Self {
        StateStore { root }
    }

    /// The directory with one directory per container.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The container's own directory.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Takes the id, for good, and records what is about to be made.
    pub(crate) fn create_record(&self, record: &Record, config_json: &[u8]) -> Result<Claim> {
        check_id(&record.id)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("mkdir {}", self.root.display()))?;
        let directory = self.directory(&record.id);
        match DirBuilder::new().mode(0o711).create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Sentinel::AlreadyExists.into());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("mkdir {}", directory.display()));
            }
        }
        // mkdir subtracts the umask.
        std::fs::set_permissions(&directory, Permissions::from_mode(0o711))
            .with_context(|| format!("chmod {}", directory.display()))?;
        let claim = self.claim(&record.id)?;
        self.write(&record.id, bundle::CONFIG, bundle::CONFIG, config_json)?;
        self.save(record)?;
        Ok(claim)
    }

    /// Waits until nobody else makes or unmakes this container.
    pub(crate) fn claim(&self, id: &str) -> Result<Claim> {
        let file = self.open_directory(id)?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map(Claim)
            .map_err(|(_, error)| error)
            .with_context(|| format!("lock {}", self.directory(id).display()))
    }

    /// The same without waiting: `None` if somebody has it.
    pub(crate) fn try_claim(&self, id: &str) -> Result<Option<Claim>> {
        let file = self.open_directory(id)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Claim(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => {
                Err(error).with_context(|| format!("lock {}", self.directory(id).display()))
            }
        }
    }

    fn open_directory(&self, id: &str) -> Result<File> {
        let directory = self.directory(id);
        File::open(&directory).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Sentinel::NotExist.into(),
            _ => anyhow::Error::from(error).context(format!("open {}", directory.display())),
        })
    }

    /// Replaces state.json in one step.
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).context("write the state record")?;
        self.write(&record.id, STATE_TEMPORARY, STATE_FILE, &bytes)
    }

    fn write(&self, id: &str, temporary: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let directory = self.directory(id);
        let path = directory.join(temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        file.write_all(bytes).with_context(|| format!("write {}", path.display()))?;
        if temporary != name {
            std::fs::rename(&path, directory.join(name))
                .with_context(|| format!("rename {}", path.display()))?;
        }
        Ok(())
    }

    /// Reads one record.
    pub(crate) fn load(&self, id: &str) -> Result<Record> {
        check_id(id)?;
        let path = self.directory(id).join(STATE_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Err(Sentinel::NotExist.into());
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
    }

    /// Reads the container's own copy of config.json.
    pub(crate) fn load_spec(&self, id: &str) -> Result<Spec> {
        let raw = bundle::read_config(&self.directory(id).join(bundle::CONFIG))?;
        bundle::parse_config(&raw)
    }

    /// Forgets the container; a second time is no error.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let directory = self.directory(id);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }

    /// The ids there are, sorted; `None` when the root does not exist.
    pub(crate) fn ids(&self) -> Result<Option<Vec<String>>> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("open {}", self.root.display()));
            }
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", self.root.display()))?;
            if entry.path().is_dir() {
                ids.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        ids.sort();
        Ok(Some(ids))
    }

    /// The container's directory still has the pipe on which its init waits.
    pub(crate) fn awaits_start(&self, id: &str) -> bool {
        self.directory(id).join(EXEC_FIFO).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for id in ["a", "A_z+0.-", "..."] {
            check_id(id).unwrap();
        }
        for id in [".", "..", "a/b", "../x", "a b", "é", "a\0"] {
            assert_eq!(
                check_id(id).unwrap_err().to_string(),
                "invalid container ID format",
                "{id}"
            );
        }
        assert_eq!(check_id("").unwrap_err().to_string(), "container id cannot be empty");
    }

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
