//! What the steps of builds made before, by a key over all that goes into a step: one small file each. The blob
//! that a record names is kept from collection by it. A record is made by this machine's own builds
//! alone: an image that was pulled is none (CVE-2024-24557).

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Store, make_dir, names_in};
use crate::digest::Digest;
use crate::manifest::Descriptor;

/// What a step made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) created: String,
    /// `None` where nothing changed.
    pub(crate) layer: Option<Made>,
}

/// A layer, by its blob and by its contents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
    /// All layers of the stage up to this one.
    pub(crate) chain_id: Digest,
}

fn directory(store: &Store) -> PathBuf {
    store.root().join("build/cache")
}

/// What the step with this key made, if that is still there.
pub(crate) fn get(store: &Store, key: &Digest) -> Option<Record> {
    // One that can't be read, as after a power cut, is none.
    let bytes = fs::read(directory(store).join(key.hex())).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    let there = match &record.layer {
        Some(made) => store.blob_size(&made.blob.digest) == Some(made.blob.size),
        None => true,
    };
    there.then_some(record)
}

/// Remembers it.
pub(crate) fn put(store: &Store, key: &Digest, record: &Record) -> Result<()> {
    let directory = directory(store);
    make_dir(&directory)?;
    let path = directory.join(key.hex());
    let write = || -> Result<()> {
        let staging = store.make_staging()?;
        let mut file = tempfile::Builder::new().prefix("file-").tempfile_in(&staging)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.persist(&path)?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// All records, for whoever collects garbage.
pub(crate) fn all(store: &Store) -> Result<Vec<Record>> {
    let directory = directory(store);
    let mut records = Vec::new();
    for name in names_in(&directory)? {
        if let Ok(bytes) = fs::read(directory.join(name))
            && let Ok(record) = serde_json::from_slice::<Record>(&bytes)
        {
            records.push(record);
        }
    }
    Ok(records)
}

/// Forgets all of it.
pub(crate) fn clear(store: &Store) -> Result<()> {
    let path = store.root().join("build");
    crate::userns::remove_tree(&path).with_context(|| format!("remove {}", path.display()))
}
