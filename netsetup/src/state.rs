//! What was made and what is promised, under one lock.
//!
//! ```text
//! lock                                   held from the first look to the last change
//! forwarding, forwarding6                we switched it on; it goes off with the last bridge
//! bridges/<name>/bridge.json             a bridge that exists, or is about to
//! bridges/<name>/leases/<address>        link to the id of the container that has it
//! bridges/<name>/last-{4,6}              the address given out most recently
//! bridges/<name>/members/<id>,<link>     a container that is on the bridge
//! bridges/<name>/hosts/<id>              link to the file that has names of its containers
//! containers/<id>/netns                  where the container's namespace is, and which it was
//! containers/<id>/on/<link>.json         an attachment that exists, or is about to
//! containers/<id>/ports/<proto>-<ip>-<port>   link to the address and port behind it
//! ports/<proto>-<port>/<ip>              link to the id of the container that has it
//! tuned/<id>,<link>.json                 what CNI's tuning changed of a container, as it was
//! ```
//! Names are the reservations: to take, look up or free an address or a port costs the same
//! whatever else is in use.

mod bridges;
mod containers;
pub(crate) mod files;
mod ports;
mod tuned;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::files::{entries, read_text, remove, remove_tree, write};
use crate::args::Directories;
use crate::subnet::Family;

pub(crate) use self::bridges::{Bridge, BridgeRecord, BridgeSubnet, Isolation, Vlan};
pub(crate) use self::containers::{
    Address, Attachment, Kind, Place, RouteDetails, RouteKind, Source, StaticRoute,
};
pub(crate) use self::tuned::Tuned;

const CONFIG: &str = "/etc/netsetup";

/// The state directory, locked.
pub(crate) struct Store {
    root: PathBuf,
    config: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the state directory and waits for its lock.
    pub(crate) fn open(directories: &Directories) -> Result<Store> {
        let root = chosen(directories.state_dir.as_deref(), "NETSETUP_STATE", || {
            run_directory().join("netsetup")
        });
        let config = chosen(directories.config_dir.as_deref(), "NETSETUP_CONFIG", || CONFIG.into());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .with_context(|| format!("create state directory {}", root.display()))?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        lock.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(Store { root, config, _lock: lock })
    }

    /// The state directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn forwarding_path(&self, family: Family) -> PathBuf {
        self.root.join(if family == Family::V4 { "forwarding" } else { "forwarding6" })
    }

    /// Whether we switched forwarding of a family on.
    pub(crate) fn owns_forwarding(&self, family: Family) -> Result<bool> {
        Ok(read_text(&self.forwarding_path(family))?.is_some())
    }

    /// Notes that we are about to switch forwarding on.
    pub(crate) fn own_forwarding(&self, family: Family) -> Result<()> {
        write(&self.forwarding_path(family), b"was 0\n")
    }

    /// Notes that forwarding is no business of ours.
    pub(crate) fn disown_forwarding(&self, family: Family) -> Result<()> {
        remove(&self.forwarding_path(family))
    }

    /// Removes what killed commands began to record, or had not yet forgotten; and everything when
    /// no bridge and no attachment is left, since they are recorded before the first change.
    pub(crate) fn tidy(&self) -> Result<()> {
        self.forget_nameless_bridges()?;
        self.forget_half_definitions()?;
        if !self.bridges()?.is_empty() {
            return Ok(());
        }
        for id in self.container_ids()? {
            if !self.attachments(&id)?.is_empty() || !self.bindings(&id)?.is_empty() {
                return Ok(());
            }
        }
        for name in ["bridges", "containers", "ports"] {
            remove_tree(&self.root.join(name))?;
        }
        remove(&self.root.join("forwarding.new"))?;
        remove(&self.root.join("forwarding6.new"))
    }

    fn names(&self, directory: &str) -> Result<Vec<String>> {
        entries(&self.root.join(directory))
    }
}

/// Where state lies that ends with the machine or, without root, with the user's last session.
pub(crate) fn run_directory() -> PathBuf {
    let euid = nix::unistd::geteuid();
    if euid.is_root() {
        return "/run".into();
    }
    // Hooks have no environment.
    std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|value| !value.is_empty())
        .map_or_else(|| format!("/run/user/{euid}").into(), PathBuf::from)
}

fn chosen(flag: Option<&Path>, variable: &str, default: impl Fn() -> PathBuf) -> PathBuf {
    match flag {
        Some(path) => path.to_owned(),
        None => std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map_or_else(default, Into::into),
    }
}
