//! The state directory: `<root>/<id>/state.json` and beside it the container's own copy of
//! config.json, so that later commands do not depend on what becomes of the bundle.
//!
//! The record is written before the first effect on the host and again when there is a process;
//! the status is never stored but computed.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::bundle;
use crate::error::Sentinel;
use crate::spec::resources::Resources;
use crate::spec::{self, IntelRdt, Outline, Spec};

mod record;

pub(crate) use record::{Record, hook_document, live_since, open_process};

const STATE_FILE: &str = "state.json";
const STATE_TEMPORARY: &str = ".state.json.tmp";
const CONFIG_TEMPORARY: &str = ".config.json.tmp";

/// What the init of a created container waits on, until `start` opens it.
pub(crate) const EXEC_FIFO: &str = "exec.fifo";

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
pub(crate) struct Claim(Flock<File>);

impl AsFd for Claim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

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
        let new = !self.root.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("mkdir {}", self.root.display()))?;
        if new && !rustix::process::geteuid().is_root() {
            // What lies in $XDG_RUNTIME_DIR with the sticky bit is spared by those who clean up.
            std::fs::set_permissions(&self.root, Permissions::from_mode(0o1700))
                .with_context(|| format!("chmod {}", self.root.display()))?;
        }
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
        let recorded = self.fill(&directory, record, config_json);
        if recorded.is_err() {
            // Nobody knows of it yet; a directory that stays would block the id.
            self.remove(&record.id)?;
        }
        recorded
    }

    fn fill(&self, directory: &Path, record: &Record, config_json: &[u8]) -> Result<Claim> {
        // mkdir subtracts the umask.
        std::fs::set_permissions(directory, Permissions::from_mode(0o711))
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
        replace(&self.directory(id), temporary, name, bytes)
    }

    /// Reads one record.
    pub(crate) fn load(&self, id: &str) -> Result<Record> {
        check_id(id)?;
        read(&self.directory(id).join(STATE_FILE))
    }

    /// The same where there may be none.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Record>> {
        match self.load(id) {
            Ok(record) => Ok(Some(record)),
            Err(error) if crate::error::is(&error, Sentinel::NotExist) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the container's own copy of config.json.
    pub(crate) fn load_spec(&self, id: &str) -> Result<Spec> {
        bundle::parse_config(&self.config(id)?)
    }

    /// Reads what `start` and `delete` need of it.
    pub(crate) fn load_outline(&self, id: &str) -> Result<Outline> {
        bundle::in_config(spec::parse_outline(&self.config(id)?))
    }

    /// That copy as it is written.
    pub(crate) fn config(&self, id: &str) -> Result<Vec<u8>> {
        bundle::read_config(&self.directory(id).join(bundle::CONFIG))
    }

    /// Notes other limits in the container's own copy of config.json.
    pub(crate) fn save_limits(
        &self,
        id: &str,
        resources: &Resources,
        class: Option<&IntelRdt>,
    ) -> Result<()> {
        let mut limits = Map::new();
        let value = serde_json::to_value(resources).context("write the limits")?;
        limits.insert("resources".to_owned(), value);
        if let Some(class) = class {
            let value = serde_json::to_value(class).context("write the class of service")?;
            limits.insert("intelRdt".to_owned(), value);
        }
        self.edit_linux(id, |linux| linux.extend(limits))
    }

    /// Notes a further namespace in the container's own copy of config.json.
    pub(crate) fn save_namespace(&self, id: &str, kind: &str) -> Result<()> {
        self.edit_linux(id, |linux| {
            let namespaces = linux.entry("namespaces").or_insert(Value::Null);
            match namespaces {
                Value::Array(namespaces) => namespaces.push(json!({ "type": kind })),
                absent => *absent = json!([{ "type": kind }]),
            }
        })
    }

    fn edit_linux(&self, id: &str, edit: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
        let raw = self.config(id)?;
        let mut document: Map<String, Value> =
            serde_json::from_slice(&raw).context("parse the container's config.json")?;
        let linux = document.entry("linux").or_insert(Value::Null);
        if !linux.is_object() {
            *linux = json!({});
        }
        if let Value::Object(linux) = linux {
            edit(linux);
        }
        let bytes = serde_json::to_vec(&document).context("write the container's config.json")?;
        self.write(id, CONFIG_TEMPORARY, bundle::CONFIG, &bytes)
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

/// Reads a record; [`Sentinel::NotExist`] where there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(Sentinel::NotExist.into());
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

/// Writes a file of the owner's alone, under another name first unless both are one, so that it is
/// there whole or as it was.
pub(crate) fn replace(directory: &Path, temporary: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory.join(temporary);
    let written = write_new(&path, bytes).and_then(|()| {
        if temporary == name {
            return Ok(());
        }
        std::fs::rename(&path, directory.join(name))
            .with_context(|| format!("rename {}", path.display()))
    });
    if written.is_err() {
        // On a full disk this half would take up what room there is; the error that counts is the first.
        drop(std::fs::remove_file(&path));
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .with_context(|| format!("create {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("write {}", path.display()))
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
}
