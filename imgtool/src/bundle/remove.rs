//! Takes bundles away: by order, after a failure, and what a kill left.

use std::fs;
use std::path::Path;

use anyhow::{Context, Error, Result, bail};

use super::record::{self, Record};
use super::registry::{self, Held, Search, State};
use super::{is_there, overlay, refuse_if_inside, shm, usage, users};
use crate::rooted;
use crate::store::Store;
use crate::userns;

/// Unmounts and removes the bundle at `directory`; refused while a container other than `except`
/// uses it.
pub(crate) fn remove(store: &Store, directory: &Path, except: Option<&str>) -> Result<()> {
    let mut held = super::hold(store, directory)?;
    let containers = usage::containers();
    let user = users(&containers, directory).find(|user| Some(user.id.as_str()) != except);
    match user {
        Some(user) if user.running => {
            bail!("bundle {} is in use by container {}", directory.display(), user.id)
        }
        Some(user) => bail!(
            "bundle {} is used by the stopped container {}: delete that first",
            directory.display(),
            user.id
        ),
        None => {}
    }
    if except.is_none() {
        refuse_if_inside(directory)?;
    }
    held.set_state(State::Removing)?;
    purge(&held)
}

/// Removes what a kill left behind. What that fails for is told, and left to the next time: it must
/// not keep anybody from using other bundles.
fn clear_abandoned(store: &Store, search: Search) -> Vec<Error> {
    match registry::abandoned(store, search) {
        Ok(abandoned) => {
            let cleared = abandoned.iter().filter_map(|held| {
                let left =
                    || format!("clear what is left of bundle {}", held.entry.directory.display());
                purge(held).with_context(left).err()
            });
            cleared.collect()
        }
        Err(error) => vec![error],
    }
}

/// The same for what is known to be unfinished.
pub(crate) fn clear(store: &Store) -> Vec<Error> {
    clear_abandoned(store, Search::Quick)
}

/// Removes all that a kill left behind, and forgets bundles whose directory is gone.
pub(crate) fn collect(store: &Store) -> Vec<Error> {
    let mut failures = clear_abandoned(store, Search::Thorough);
    failures.extend(forget_gone(store).err());
    failures
}

fn forget_gone(store: &Store) -> Result<()> {
    for entry in registry::list(store)? {
        if entry.state != State::Ready || entry.directory.exists() {
            continue;
        }
        if let Some(held) = registry::hold(store, &entry.record.id)?
            && !is_there(&held.entry)
        {
            held.forget()?;
        }
    }
    Ok(())
}

/// Undoes all there is of a bundle. Its record goes last but one, so that a second attempt still
/// knows the directory as its own.
pub(super) fn purge(held: &Held) -> Result<()> {
    // A container may have left files of any of the user's ids.
    userns::enter()?;
    let entry = &held.entry;
    let directory = &entry.directory;
    let ours = Record::read(directory).is_ok_and(|record| record.id == entry.record.id);
    if ours {
        overlay::unmount(directory)?;
        shm::unmount(directory)?;
        if let Some(target) = usage::mounted_beneath(directory)?.first() {
            bail!("{target} is mounted in bundle {}: unmount it first", directory.display());
        }
        for child in read_dir(directory)? {
            if child.file_name() != record::FILE {
                remove_path(&child.path())?;
            }
        }
        remove_path(&directory.join(record::FILE))?;
    } else if entry.state == State::Making && directory.is_dir() {
        // Killed while it wrote the record, into a directory that was empty.
        for child in read_dir(directory)? {
            if child.file_name().as_encoded_bytes().starts_with(record::UNFINISHED.as_bytes()) {
                remove_path(&child.path())?;
            }
        }
    }
    let keep = entry.state == State::Making && !entry.made_directory;
    if !keep {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            // Not there, or by now somebody else's.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound
                        | std::io::ErrorKind::DirectoryNotEmpty
                        | std::io::ErrorKind::NotADirectory
                ) && !ours => {}
            Err(error) => {
                return Err(error).with_context(|| format!("remove {}", directory.display()));
            }
        }
    }
    held.forget()
}

fn read_dir(directory: &Path) -> Result<Vec<fs::DirEntry>> {
    fs::read_dir(directory)
        .and_then(Iterator::collect)
        .with_context(|| format!("read {}", directory.display()))
}

fn remove_path(path: &Path) -> Result<()> {
    rooted::remove_path(path).with_context(|| format!("remove {}", path.display()))
}
