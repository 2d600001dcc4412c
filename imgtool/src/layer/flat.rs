//! All layers of an image as one plain tree: by reference to the files of unpacked layers where the
//! file system can do that; else from the top layer down, so that each file is written once; else
//! from the bottom up.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::extract::{Extractor, OutOfOrder, Target, join};
use super::inflate::Inflated;
use super::lower::{self, Found, Lowers};
use super::metadata::Place;
use super::pack::{self, Links};
use super::record::read_entry;
use super::tar::Kind;
use super::{OpenLayer, extract_layer, visible};
use crate::rooted;
use crate::store::{Image, Store, chain_ids};
use crate::userns;

/// Unpacks all layers into one plain tree beneath the empty directory `rootfs`, and gives what
/// could not be done and is no error.
pub(crate) fn unpack_flat(
    store: &Store,
    image: &Image,
    rootfs: BorrowedFd<'_>,
) -> Result<Vec<String>> {
    lower::reset_root(rootfs)?;
    let layers = unpacked(store, image);
    if !userns::is_inner() && layers.iter().all(|it| it.is_dir()) && can_clone(store, rootfs)? {
        return clone_layers(&visible(layers)?, rootfs);
    }
    match from_the_top(store, image, rootfs) {
        Err(error) if error.downcast_ref::<OutOfOrder>().is_some() => {
            for name in rooted::names(rooted::reopen(rootfs)?)? {
                rooted::remove(rootfs, name.to_bytes()).context("begin anew")?;
            }
            lower::reset_root(rootfs)?;
            from_the_bottom(store, image, rootfs)
        }
        unpacked => unpacked,
    }
}

/// Where the store has the image's layers, bottom first, if they are unpacked.
fn unpacked(store: &Store, image: &Image) -> Vec<PathBuf> {
    let chain = chain_ids(&image.diff_ids).into_iter();
    chain.map(|id| store.layers_dir().join(id.hex()).join("diff")).collect()
}

/// Whether files of the store can be had here without their bytes being copied.
fn can_clone(store: &Store, rootfs: BorrowedFd<'_>) -> Result<bool> {
    let unnamed = |directory: BorrowedFd<'_>| {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)
    };
    let staging = lower::open_directory(&store.make_staging()?)?;
    let clone =
        || -> Result<(), Errno> { fs::ioctl_ficlone(unnamed(rootfs)?, unnamed(staging.as_fd())?) };
    // Whatever the reason is: what can't be cloned is written.
    Ok(clone().is_ok())
}

/// Unpacks the layers from the top down. The next one is inflated while one is written.
fn from_the_top(store: &Store, image: &Image, rootfs: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut extractor = Extractor::new(rootfs, Target::Below)?;
    thread::scope(|scope| {
        let start = |index: usize| {
            let blob = store.open_blob(&image.layers[index].digest)?;
            Inflated::start(scope, blob, &image.diff_ids[index])
        };
        let mut next = None;
        for index in (0..image.layers.len()).rev() {
            let current = next.take().unwrap_or_else(|| start(index));
            next = index.checked_sub(1).map(start);
            let step = || -> Result<()> {
                let mut plain = current?;
                extractor.archive(&mut plain)?;
                plain.verify(&image.diff_ids[index])
            };
            step().with_context(|| format!("unpack layer {}", image.layers[index].digest))?;
        }
        anyhow::Ok(())
    })?;
    Ok(extractor.finish()?.warnings)
}

fn from_the_bottom(store: &Store, image: &Image, rootfs: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut warnings = std::collections::BTreeSet::new();
    for index in 0..image.layers.len() {
        let open: OpenLayer<'_> = &|layer| Ok(Box::new(store.open_blob(&layer.digest)?));
        warnings.extend(extract_layer(image, index, rootfs, Target::Flat, open)?.warnings);
    }
    Ok(warnings.into_iter().collect())
}

/// Makes the tree that unpacked layers, given bottom first, show together. Its files share their
/// bytes with those of the layers.
fn clone_layers(layers: &[PathBuf], rootfs: BorrowedFd<'_>) -> Result<Vec<String>> {
    let lowers = Lowers::open(layers)?;
    let extractor = Extractor::new(rootfs, Target::Copy)?;
    let mut cloner = Cloner { lowers: &lowers, links: Links::default(), extractor };
    cloner.directory(b"")?;
    Ok(cloner.extractor.finish()?.warnings)
}

struct Cloner<'a> {
    lowers: &'a Lowers,
    links: Links,
    extractor: Extractor<'a>,
}

impl Cloner<'_> {
    fn directory(&mut self, path: &[u8]) -> Result<()> {
        if let Found::Directory(found) = self.lowers.find(path)? {
            let place = Place::itself(found.as_fd());
            let name = if path.is_empty() { b"." } else { path };
            if let Some(entry) = read_entry(place, &place.stat()?, name)? {
                self.extractor.entry(&entry, &mut |_| Ok(()))?;
            }
        }
        for name in self.lowers.names(path)? {
            let path = join(path, &name);
            let cloned = match self.lowers.find(&path)? {
                Found::Nothing => continue,
                // Errors in there say where they happened.
                Found::Directory(_) => {
                    self.directory(&path)?;
                    continue;
                }
                Found::Other(stat, parent, name) => {
                    self.other(Place { parent: parent.as_fd(), name: &name }, &stat, &path)
                }
            };
            cloned.with_context(|| format!("copy {:?}", String::from_utf8_lossy(&path)))?;
        }
        Ok(())
    }

    fn other(&mut self, place: Place<'_>, stat: &fs::Stat, path: &[u8]) -> Result<()> {
        let Some(mut entry) = read_entry(place, stat, path)? else { return Ok(()) };
        if self.links.is_another_name(&mut entry, stat) || entry.kind != Kind::File {
            return self.extractor.entry(&entry, &mut |_| Ok(()));
        }
        let file = pack::open(place, stat)?;
        self.extractor.entry(&entry, &mut |to| fs::ioctl_ficlone(to, &file).context("share bytes"))
    }
}
