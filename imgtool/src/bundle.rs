//! From an image to an OCI bundle: config.json, a root file system, and a record of its origin.
//!
//! What is wished becomes a plan first; then the bundle is registered, made, and declared ready.
//! A failure undoes it, and what a kill left is undone by the next command.

mod annotations;
pub(crate) mod capabilities;
mod cdi;
pub(crate) mod config;
mod create;
pub(crate) mod files;
pub(crate) mod flags;
pub(crate) mod hooks;
pub(crate) mod host;
mod init;
mod join;
pub(crate) mod overlay;
mod plan;
mod profile;
mod record;
mod registry;
mod remove;
pub(crate) mod seccomp;
mod shared;
mod shm;
mod usage;
pub(crate) mod user;
mod volumes;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode as FileMode, OFlags};

pub(crate) use create::{Created, Request, create};
pub(crate) use hooks::sibling;
pub(crate) use overlay::{ROOTFS, UPPER};
pub(crate) use record::{Mode, Record, TREE};
pub(crate) use remove::{clear, collect, remove};
pub(crate) use usage::{bytes_beneath, containers};

use crate::digest::Digest;
use crate::layer;
use crate::store::Store;
use crate::userns;
use registry::{Entry, Held, State};
pub(crate) use usage::Container;

/// A bundle in a listing.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) directory: PathBuf,
    pub(crate) record: Record,
    /// The containers that use it.
    pub(crate) containers: Vec<String>,
    /// `None` for a tree, which needs no mount.
    pub(crate) mounted: Option<bool>,
    /// Bytes that are the bundle's alone.
    pub(crate) size_bytes: u64,
}

/// The bundles of the store, by directory.
pub(crate) fn list(store: &Store) -> Result<Vec<Listed>> {
    let containers = usage::containers();
    // What a container keeps to itself counts too.
    userns::enter()?;
    ready(store)?
        .into_iter()
        .map(|Entry { directory, record, .. }| {
            let own = match record.mode {
                Mode::Overlay => UPPER,
                Mode::Copy => ROOTFS,
            };
            Ok(Listed {
                containers: users(&containers, &directory).map(|user| user.id.clone()).collect(),
                mounted: match record.mode {
                    Mode::Overlay => Some(overlay::is_mounted(&directory.join(ROOTFS))?),
                    Mode::Copy => None,
                },
                size_bytes: usage::bytes_beneath(&directory.join(own))?,
                directory,
                record,
            })
        })
        .collect()
}

/// The bundles that are whole and where they were registered.
fn ready(store: &Store) -> Result<Vec<Entry>> {
    let mut entries = registry::list(store)?;
    entries.retain(|entry| entry.state == State::Ready && is_there(entry));
    Ok(entries)
}

/// Whether the entry's directory still is that bundle. A record that is there and can't be read may
/// be its own: its layers must not go from under it.
fn is_there(entry: &Entry) -> bool {
    match Record::read(&entry.directory) {
        Ok(record) => record.id == entry.record.id,
        Err(_) => match std::fs::symlink_metadata(entry.directory.join(record::FILE)) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        },
    }
}

fn users<'a>(
    containers: &'a [Container],
    directory: &'a Path,
) -> impl Iterator<Item = &'a Container> {
    containers.iter().filter(move |container| container.uses(directory))
}

/// The bundles made from the image with this ID, those under way included.
pub(crate) fn users_of(store: &Store, image_id: &Digest) -> Result<Vec<PathBuf>> {
    let mut entries = registry::list(store)?;
    entries.retain(|entry| {
        entry.record.config == *image_id && (entry.state != State::Ready || is_there(entry))
    });
    Ok(entries.into_iter().map(|entry| entry.directory).collect())
}

/// The bundles that mount this volume, whose directory is `path`. The caller keeps others from being
/// made.
pub(crate) fn users_of_volume(store: &Store, name: &str, path: &Path) -> Result<Vec<PathBuf>> {
    let mounts = |entry: &Entry| -> Result<bool> {
        let document = crate::commit::tree::bundle_config(&entry.directory)?;
        let named = document["annotations"][annotations::VOLUMES].as_str().unwrap_or_default();
        if named.split(',').any(|other| other == name) {
            return Ok(true);
        }
        let mut mounts = document["mounts"].as_array().into_iter().flatten();
        Ok(mounts.any(|mount| mount["source"].as_str().is_some_and(|it| Path::new(it) == path)))
    };
    let mut users = Vec::new();
    for entry in ready(store)? {
        // What can't be read may be one.
        if mounts(&entry).unwrap_or(true) {
            users.push(entry.directory);
        }
    }
    Ok(users)
}

/// Mounts an overlay bundle again, as after a reboot, and returns its root file system. A bundle
/// that was moved is registered where it is now.
pub(crate) fn mount(store: &Store, directory: &Path) -> Result<PathBuf> {
    let _lock = store.lock_shared()?;
    let held = hold(store, directory)?;
    let record = &held.entry.record;
    if let Some(size) = record.shared_memory_bytes {
        shm::mount(directory, size)?;
    }
    let rootfs = directory.join(ROOTFS);
    if record.mode == Mode::Copy || overlay::is_mounted(&rootfs)? {
        return Ok(rootfs);
    }
    let layers: Vec<PathBuf> = record
        .chain_ids
        .iter()
        .map(|chain_id| store.layers_dir().join(chain_id.hex()).join("diff"))
        .collect();
    let layers = if layers.iter().all(|layer| layer.is_dir()) {
        layer::visible(layers)?
    } else {
        let image = store
            .image(&record.manifest)
            .with_context(|| format!("unpack image {} again", record.image))?;
        layer::unpack(store, &image)?.layers
    };
    overlay::mount(directory, &layers, record.ids.as_ref())?;
    Ok(rootfs)
}

/// The ids of the container made from the bundle at `directory`, if it has other ones than we see.
pub(crate) fn ids(directory: &Path) -> Result<Option<userns::Maps>> {
    Ok(Record::read(directory)?.ids)
}

/// The containers that use the bundle at `directory` and run.
pub(crate) fn running(directory: &Path) -> Vec<Container> {
    let mut containers = usage::containers();
    containers.retain(|container| container.running && container.uses(directory));
    containers
}

/// Takes the overlay off `rootfs/`, and the memory that is shared; refused while somebody is in it.
pub(crate) fn unmount(store: &Store, directory: &Path) -> Result<()> {
    let held = hold(store, directory)?;
    let record = &held.entry.record;
    let overlay = record.mode == Mode::Overlay && overlay::is_mounted(&directory.join(ROOTFS))?;
    if overlay || record.shared_memory_bytes.is_some() {
        refuse_if_inside(directory)?;
    }
    if overlay {
        overlay::unmount(directory)?;
    }
    shm::unmount(directory)
}

fn refuse_if_inside(directory: &Path) -> Result<()> {
    let containers = usage::containers();
    if let Some(user) = users(&containers, directory).find(|user| user.running) {
        bail!("bundle {} is in use by container {}", directory.display(), user.id);
    }
    if let Some(pid) = usage::process_inside(directory)? {
        bail!("bundle {} is in use by process {pid}", directory.display());
    }
    Ok(())
}

/// Holds the registration of the bundle at `directory`, made anew if the bundle came from
/// elsewhere. Until it is dropped nobody else changes or removes the bundle.
pub(crate) fn hold(store: &Store, directory: &Path) -> Result<Held> {
    let record = Record::read(directory)?;
    match registry::hold(store, &record.id)? {
        Some(held) if held.entry.state != State::Ready => {
            bail!("bundle {} is not whole", directory.display())
        }
        Some(mut held) => {
            if held.entry.directory != directory {
                if is_there(&held.entry) {
                    bail!(
                        "{} is a copy of the bundle {}: make another one with imgtool bundle",
                        directory.display(),
                        held.entry.directory.display()
                    );
                }
                held.entry.directory = directory.to_owned();
                held.write()?;
            }
            Ok(held)
        }
        None => adopt(store, directory, record),
    }
}

/// Registers a bundle that came from elsewhere.
fn adopt(store: &Store, directory: &Path, record: Record) -> Result<Held> {
    let entry = Entry {
        state: State::Ready,
        directory: directory.to_owned(),
        made_directory: true,
        record,
    };
    let held = registry::begin(store, entry)?;
    if !is_there(&held.entry) {
        // It was registered when its record was read, and was removed since.
        held.forget()?;
        bail!("no such bundle: {}", directory.display());
    }
    Ok(held)
}

/// The directory of the bundle that the user's word means: a path, the name of a bundle in the
/// store, or the id of a container made from one.
pub(crate) fn locate(store: &Store, word: &str) -> Result<PathBuf> {
    let path = Path::new(word);
    if is_bundle(path) {
        return real_path(path);
    }
    if is_plain_name(word) {
        let kept = store.root().join("bundles").join(word);
        if is_bundle(&kept) {
            return real_path(&kept);
        }
        let (containers, entries) = (usage::containers(), ready(store)?);
        let used_by = |meant: &dyn Fn(&Container) -> bool| {
            let entries = entries.iter();
            let found = entries.filter(|it| users(&containers, &it.directory).any(meant));
            found.map(|entry| entry.directory.clone()).collect::<Vec<_>>()
        };
        if let Some(directory) = used_by(&|user| user.is_called(word)).pop() {
            return Ok(directory);
        }
        match used_by(&|user| user.begins_with(word)).as_slice() {
            [] => {}
            [directory] => return Ok(directory.clone()),
            _ => bail!("more than one container's id begins with {word}: say more of it"),
        }
    }
    bail!("no such bundle: {word} (imgtool bundles lists them)")
}

/// Whether this is the directory of a bundle.
pub(crate) fn is_bundle(directory: &Path) -> bool {
    directory.join(record::FILE).is_file()
}

fn is_plain_name(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('.') && !word.contains('/')
}

/// The path by which the kernel itself would name the directory, which is what mount tables show.
fn real_path(directory: &Path) -> Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, FileMode::empty())
        .with_context(|| format!("open {}", directory.display()))?;
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .with_context(|| format!("find the path of {}", directory.display()))
}
