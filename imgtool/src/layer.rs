//! Layers: tar archives that give, change and remove files of the layers beneath them. An image
//! is unpacked into one directory per layer, for overlayfs and shared between images, or into one
//! plain tree.

pub(crate) mod compress;
pub(crate) mod diff;
pub(crate) mod extract;
mod flat;
pub(crate) mod gzip;
mod inflate;
pub(crate) mod lower;
pub(crate) mod metadata;
pub(crate) mod pack;
pub(crate) mod packed;
pub(crate) mod record;
pub(crate) mod tar;
pub(crate) mod whiteout;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use rustix::fs;

use self::extract::{NeedsLower, Summary, Target, extract};
pub(crate) use self::flat::unpack_flat;
use self::inflate::Inflated;
use self::lower::Lowers;
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::store::{Image, Store, chain_ids, make_dir, sync_dir};

/// Layers unpacked at a time; each keeps up to a hundred descriptors.
const MAX_WORKERS: usize = 6;

/// As much as a main thread has: trees are as deep there.
const STACK_BYTES: usize = 8 << 20;

/// The unpacked layers of an image.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// The lower directories of an overlay, bottom first.
    pub(crate) layers: Vec<PathBuf>,
    /// What could not be done and is no error.
    pub(crate) warnings: Vec<String>,
}

/// Unpacks every layer that the store does not have yet as `layers/sha256/<chain ID>/diff`. A
/// layer gets this name when it is whole, verified and on the disk. Hold [`Store::lock_shared`]
/// until something in the store refers to the image's layers.
pub(crate) fn unpack(store: &Store, image: &Image) -> Result<Unpacked> {
    unpack_from(store, image, &|layer| Ok(Box::new(store.open_blob(&layer.digest)?)))
}

/// Opens the blob of a layer, which may still be on its way.
pub(crate) type OpenLayer<'a> =
    &'a (dyn Fn(&Descriptor) -> Result<Box<dyn io::Read + Send>> + Sync);

/// The same with blobs from elsewhere than the store.
pub(crate) fn unpack_from(store: &Store, image: &Image, open: OpenLayer<'_>) -> Result<Unpacked> {
    let chain = chain_ids(&image.diff_ids);
    let homes: Vec<PathBuf> = chain.iter().map(|id| store.layers_dir().join(id.hex())).collect();
    let layers: Vec<PathBuf> = homes.iter().map(|home| home.join("diff")).collect();
    let missing: Vec<usize> = (0..layers.len()).filter(|index| !layers[*index].is_dir()).collect();
    let mut warnings = BTreeSet::new();
    if !missing.is_empty() {
        make_dir(&store.layers_dir())?;
        let mut lowers = layers.clone();
        let mut staged = Vec::new();
        let alone = unpack_alone(store, image, &missing, open)
            .with_context(|| format!("unpack into {}", store.layers_dir().display()))?;
        for (index, layer) in missing.iter().zip(alone) {
            let layer = complete(store, image, *index, layer, &lowers[..*index], open)?;
            warnings.extend(layer.summary.warnings);
            lowers[*index] = layer.home.path().join("diff");
            staged.push((*index, layer.home));
        }
        publish(store, staged, &homes)?;
    }
    let layers = visible(layers)?;
    Ok(Unpacked { layers, warnings: warnings.into_iter().collect() })
}

/// Leaves out the layers, given bottom first, of which nothing shows: overlayfs does not heed a
/// layer's root that is opaque.
pub(crate) fn visible(mut layers: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    for index in (1..layers.len()).rev() {
        if lower::hides_all_below(&layers[index])? {
            layers.drain(..index);
            break;
        }
    }
    Ok(layers)
}

/// A layer in staging: its directory has `diff`, and is removed if it is dropped.
struct Staged {
    home: tempfile::TempDir,
    summary: Summary,
    /// Whether the layers below must be in view for this one.
    needs_lower: bool,
}

/// Unpacks layers side by side, each without the others.
fn unpack_alone(
    store: &Store,
    image: &Image,
    missing: &[usize],
    open: OpenLayer<'_>,
) -> Result<Vec<Staged>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let settled = Mutex::new(Ok(()));
    let settle = || {
        if let Err(error) = sync_layers(store)
            && let Ok(mut settled) = settled.lock()
        {
            *settled = Err(error);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    thread::scope(|scope| {
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let position = next.fetch_add(1, Ordering::Relaxed);
                let Some(index) = missing.get(position) else { break };
                let result = stage(store, image, *index, open);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                if let Ok(mut results) = results.lock() {
                    results.push((position, result));
                }
                if next.load(Ordering::Relaxed) < missing.len() {
                    // The disk takes what there is while the rest is unpacked. What this can't do,
                    // `publish` will.
                    let _ = thread::Builder::new().spawn_scoped(scope, settle);
                }
            }
        };
        for _ in 1..workers.min(missing.len()) {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            // Where no more threads may be started there are fewer workers.
            let _ = thread.spawn_scoped(scope, work);
        }
        work();
    });
    // The kernel tells of a failure once.
    settled.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(position, _)| *position);
    let staged = results.into_iter().map(|(_, staged)| staged).collect::<Result<Vec<_>>>()?;
    anyhow::ensure!(staged.len() == missing.len(), "unpacking stopped");
    Ok(staged)
}

fn stage(store: &Store, image: &Image, index: usize, open: OpenLayer<'_>) -> Result<Staged> {
    let home = store.staging_subdirectory()?;
    let root = lower::make_root(&home.path().join("diff"))?;
    // There is nothing below the bottom layer, so alone it is the whole tree.
    let target = if index == 0 { Target::Flat } else { Target::Overlay };
    match extract_layer(image, index, root.as_fd(), target, open) {
        Ok(summary) => Ok(Staged { home, summary, needs_lower: false }),
        Err(error) if error.downcast_ref::<NeedsLower>().is_some() => {
            Ok(Staged { home, summary: Summary::default(), needs_lower: true })
        }
        Err(error) => Err(error),
    }
}

/// Does what needs the layers below, which are complete by now.
fn complete(
    store: &Store,
    image: &Image,
    index: usize,
    staged: Staged,
    lowers: &[PathBuf],
    open: OpenLayer<'_>,
) -> Result<Staged> {
    let diff = staged.home.path().join("diff");
    let alone = !staged.needs_lower
        && (index == 0
            || Lowers::open(lowers)?
                .complete(lower::open_directory(&diff)?.as_fd(), &staged.summary)
                .with_context(|| format!("complete layer {}", image.layers[index].digest))?);
    if alone {
        return Ok(staged);
    }
    drop(staged);
    let home = store.staging_subdirectory()?;
    let (diff, work) = (home.path().join("diff"), home.path().join("work"));
    let upper = lower::make_root(&diff)?;
    if let lower::Found::Directory(root) = Lowers::open(lowers)?.find(b"")? {
        metadata::copy_directory(root.as_fd(), upper.as_fd())?;
    }
    make_dir(&work)?;
    let root: OwnedFd = lower::mount_writable(lowers, &diff, &work)?;
    let summary = extract_layer(image, index, root.as_fd(), Target::Flat, open)?;
    drop(root);
    std::fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    Ok(Staged { home, summary, needs_lower: false })
}

/// Gives layers in staging their names, bottom first, after all of them reached the disk.
fn publish(
    store: &Store,
    staged: Vec<(usize, tempfile::TempDir)>,
    homes: &[PathBuf],
) -> Result<()> {
    sync_layers(store)?;
    for (index, layer) in staged {
        let home = &homes[index];
        match std::fs::rename(layer.path(), home) {
            Ok(()) => drop(layer.keep()),
            // Another process unpacked it meanwhile; what it has is the same.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => {
                return Err(error).with_context(|| format!("create {}", home.display()));
            }
        }
    }
    sync_dir(&store.layers_dir()).context("write layers to the disk")
}

/// Waits until all that was written to the store's file system is on the disk.
fn sync_layers(store: &Store) -> Result<()> {
    let directory = lower::open_directory(&store.layers_dir())?;
    let readable = crate::rooted::reopen(directory.as_fd())?;
    fs::syncfs(&readable).context("write layers to the disk")
}

fn extract_layer(
    image: &Image,
    index: usize,
    root: BorrowedFd<'_>,
    target: Target,
    open: OpenLayer<'_>,
) -> Result<Summary> {
    let (layer, diff_id): (_, &Digest) = (&image.layers[index], &image.diff_ids[index]);
    let blob = open(layer)?;
    thread::scope(|scope| {
        let mut plain = Inflated::start(scope, blob, diff_id)?;
        let summary = extract(&mut plain, root, target)?;
        plain.verify(diff_id)?;
        anyhow::Ok(summary)
    })
    .with_context(|| format!("unpack layer {}", layer.digest))
}
