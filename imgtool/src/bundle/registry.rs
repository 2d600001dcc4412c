//! Which bundles the store knows, wherever they lie: `bundles/.registered/<id>/entry.json`.
//!
//! The entry is written before the first effect and says what is under way, so whatever a kill
//! leaves is found by the next command. A lock on the entry's directory tells the living from the
//! dead. As long as a bundle is not `Ready` it has a name in `bundles/.unfinished` too, so that finding
//! those takes no look at each of thousands.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::record::{Record, write_json};
use crate::store::{Store, make_dir, names_in};

const ENTRY: &str = "entry.json";

/// A bundle as it is registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) state: State,
    /// Absolute.
    pub(crate) directory: PathBuf,
    /// Whether the directory was made by us, so that a failure removes it.
    pub(crate) made_directory: bool,
    pub(crate) record: Record,
}

/// How far a bundle has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Making,
    Ready,
    Removing,
}

/// An entry that nobody else changes while this exists.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    path: PathBuf,
    unfinished: PathBuf,
    _lock: Flock<File>,
}

/// Registers a bundle that is about to be made, or that came from elsewhere.
pub(crate) fn begin(store: &Store, entry: Entry) -> Result<Held> {
    let path = directory(store).join(&entry.record.id);
    // Who clears what a kill left may take the directory away as long as there is no entry in it.
    let lock = loop {
        make_dir(&path)?;
        if let Some(lock) = lock(&path, FlockArg::LockExclusive)? {
            break lock;
        }
    };
    let unfinished = unfinished(store).join(&entry.record.id);
    let mut held = Held { entry, path, unfinished, _lock: lock };
    match held.set_state(held.entry.state) {
        Ok(()) => Ok(held),
        // Without an entry there is nothing yet that another command could take for a bundle.
        Err(error) => Err(match held.forget() {
            Ok(()) => error,
            Err(second) => second.context(error),
        }),
    }
}

/// Holds the entry of a bundle, waiting for whoever has it; `None` where it is not registered.
pub(crate) fn hold(store: &Store, id: &str) -> Result<Option<Held>> {
    if !is_id(id) {
        return Ok(None);
    }
    let path = directory(store).join(id);
    let Some(lock) = lock(&path, FlockArg::LockExclusive)? else { return Ok(None) };
    let unfinished = unfinished(store).join(id);
    Ok(read(&path)?.map(|entry| Held { entry, path, unfinished, _lock: lock }))
}

/// Every entry, by directory.
pub(crate) fn list(store: &Store) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for id in ids(&directory(store))? {
        entries.extend(read(&directory(store).join(id))?);
    }
    entries.sort_by(|a, b| a.directory.cmp(&b.directory));
    Ok(entries)
}

/// Where entries are looked for that a kill left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// Among those known to be unfinished.
    Quick,
    /// Among all.
    Thorough,
}

/// The entries that nobody works on and that are not `Ready`: what a kill left.
pub(crate) fn abandoned(store: &Store, search: Search) -> Result<Vec<Held>> {
    let mut ids = ids(&unfinished(store))?;
    if search == Search::Thorough {
        ids.extend(self::ids(&directory(store))?);
        ids.sort();
        ids.dedup();
    }
    let mut found = Vec::new();
    for id in ids {
        let (path, unfinished) = (directory(store).join(&id), unfinished(store).join(&id));
        let Some(lock) = lock(&path, FlockArg::LockExclusiveNonblock)? else {
            if !path.exists() {
                remove_file(&unfinished)?;
            }
            continue;
        };
        match read(&path)? {
            Some(entry) if entry.state == State::Ready => remove_file(&unfinished)?,
            Some(entry) => found.push(Held { entry, path, unfinished, _lock: lock }),
            // Killed before it could say what it was to be: nothing was made yet.
            None => {
                remove(&path)?;
                remove_file(&unfinished)?;
            }
        }
    }
    Ok(found)
}

impl Held {
    /// Writes down what is under way.
    pub(crate) fn set_state(&mut self, state: State) -> Result<()> {
        self.entry.state = state;
        if state == State::Ready {
            self.write()?;
            return remove_file(&self.unfinished);
        }
        if let Some(directory) = self.unfinished.parent() {
            make_dir(directory)?;
        }
        File::create(&self.unfinished)
            .with_context(|| format!("create {}", self.unfinished.display()))?;
        self.write()
    }

    pub(crate) fn write(&self) -> Result<()> {
        write_json(&self.path.join(ENTRY), &self.entry)
    }

    /// Takes the bundle off the register.
    pub(crate) fn forget(&self) -> Result<()> {
        remove(&self.path)?;
        remove_file(&self.unfinished)
    }
}

fn directory(store: &Store) -> PathBuf {
    store.root().join("bundles/.registered")
}

fn unfinished(store: &Store) -> PathBuf {
    store.root().join("bundles/.unfinished")
}

/// Ids become file names.
fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

fn ids(directory: &Path) -> Result<Vec<String>> {
    let names = names_in(directory)?.into_iter();
    Ok(names.filter_map(|name| name.into_string().ok()).filter(|name| is_id(name)).collect())
}

/// `None` where another has the lock, or the entry is gone, also if it goes while we wait.
fn lock(path: &Path, how: FlockArg) -> Result<Option<Flock<File>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let lock = loop {
        match Flock::lock(file, how) {
            Ok(lock) => break lock,
            Err((again, Errno::EINTR)) => file = again,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => {
                return Err(errno).with_context(|| format!("lock {}", path.display()));
            }
        }
    };
    let ours = lock.metadata().with_context(|| format!("look at {}", path.display()))?;
    match fs::symlink_metadata(path) {
        Ok(named) => {
            let is_it = (named.dev(), named.ino()) == (ours.dev(), ours.ino());
            Ok(is_it.then_some(lock))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

fn read(path: &Path) -> Result<Option<Entry>> {
    let path = path.join(ENTRY);
    match fs::read(&path) {
        Ok(bytes) => {
            let entry = serde_json::from_slice(&bytes)
                .with_context(|| format!("parse {}", path.display()))?;
            Ok(Some(entry))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
