//! Deleting what nothing in the index leads to any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Lock, Store, cache, names_in, sync_dir};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{Descriptor, Document, ImageConfig, MAX_CONFIG_SIZE};

/// What a collection removed.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    pub(crate) blobs: Vec<Digest>,
    /// Unpacked layers, by chain ID.
    pub(crate) layers: Vec<Digest>,
}

#[derive(Default)]
struct Reachable {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
}

impl Store {
    /// Removes blobs and unpacked layers that no index entry leads to. Takes
    /// the exclusive lock as witness that nobody is adding any.
    pub(crate) fn collect_garbage(&self, _lock: &Lock) -> Result<Removed> {
        let mut reachable = Reachable::default();
        for entry in &self.index()?.manifests {
            self.mark(entry, &mut reachable, 0)?;
        }
        for made in cache::all(self)?.into_iter().filter_map(|record| record.layer) {
            reachable.blobs.insert(made.blob.digest);
            reachable.layers.insert(made.chain_id);
        }
        let mut removed = Removed::default();
        for algorithm in Algorithm::ALL {
            let directory = self.blob_dir(algorithm);
            for digest in digests_in(&directory, algorithm)? {
                if !reachable.blobs.contains(&digest) {
                    let path = directory.join(digest.hex());
                    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
                    removed.blobs.push(digest);
                }
            }
        }
        for layers in self.all_layers_dirs()? {
            for chain_id in digests_in(&layers, Algorithm::Sha256)? {
                if !reachable.layers.contains(&chain_id) {
                    self.remove_layer(&layers.join(chain_id.hex()))?;
                    removed.layers.push(chain_id);
                }
            }
        }
        Ok(removed)
    }

    /// Where layers are unpacked, for root and for others.
    fn all_layers_dirs(&self) -> Result<Vec<PathBuf>> {
        let home = self.root().join("layers");
        let read = || format!("read {}", home.display());
        match fs::read_dir(&home) {
            Ok(entries) => entries.map(|entry| Ok(entry.with_context(read)?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(read),
        }
    }

    /// Removes what a failed load or pull stored before it failed. If others
    /// use the store now, that is left to the next collection.
    pub(crate) fn discard_orphans(&self) -> Result<()> {
        match self.try_lock_exclusive()? {
            Some(lock) => self.collect_garbage(&lock).map(drop),
            None => Ok(()),
        }
    }

    /// Does what brings blobs by way of the store, and discards those that nothing in it needs then.
    pub(crate) fn in_passing<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let lock = self.lock_shared()?;
        let done = work();
        drop(lock);
        let cleared = self.discard_orphans();
        let done = done?;
        cleared?;
        Ok(done)
    }

    /// Renames the layer away first: a tree that is half deleted must never
    /// stand under a chain ID.
    fn remove_layer(&self, path: &Path) -> Result<()> {
        let grave = self.staging_subdirectory()?;
        let remove = || -> std::io::Result<()> {
            fs::rename(path, grave.path().join("layer"))?;
            path.parent().map_or(Ok(()), sync_dir)
        };
        remove().with_context(|| format!("remove {}", path.display()))?;
        crate::userns::remove_tree(&grave.keep()).context("remove unpacked layer")
    }

    fn mark(&self, descriptor: &Descriptor, reachable: &mut Reachable, depth: usize) -> Result<()> {
        if depth > 4
            || !self.has_blob(&descriptor.digest)
            || !reachable.blobs.insert(descriptor.digest.clone())
        {
            return Ok(());
        }
        match self.document(descriptor) {
            Ok(Document::Index(index)) => {
                for child in &index.manifests {
                    self.mark(child, reachable, depth + 1)?;
                }
            }
            Ok(Document::Manifest(manifest)) => {
                reachable.blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
                reachable.blobs.insert(manifest.config.digest.clone());
                // Artifacts have configs of other kinds, and no layers to unpack.
                if let Ok(bytes) = self.read_blob(&manifest.config, MAX_CONFIG_SIZE)
                    && let Ok(config) = ImageConfig::parse(&bytes)
                {
                    reachable.layers.extend(chain_ids(&config.rootfs.diff_ids));
                }
            }
            // A damaged entry keeps its own blob until the user removes it.
            Err(_) => {}
        }
        Ok(())
    }
}

/// The identity of each layer together with all below it, bottom first.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(parent) => {
                let mut hasher = Hasher::new(Algorithm::Sha256);
                hasher.update(format!("{parent} {diff_id}").as_bytes());
                hasher.finish()
            }
        });
    }
    chain
}

pub(super) fn digests_in(directory: &Path, algorithm: Algorithm) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for name in names_in(directory)? {
        let text = format!("{}:{}", algorithm.name(), name.to_string_lossy());
        // Anything else there is not ours.
        digests.extend(text.parse::<Digest>().ok());
    }
    digests.sort();
    Ok(digests)
}
