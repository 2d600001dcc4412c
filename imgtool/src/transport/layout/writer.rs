//! Images into a layout directory.

use std::path::Path;

use anyhow::{Context, Result};

use super::super::Destination;
use super::super::directory::Directory;
use super::{MAX_INDEX_SIZE, blob_name};
use crate::digest::Algorithm;
use crate::manifest::{CONTAINERD_NAME, Descriptor, Index, REF_NAME};
use crate::store::{ELSEWHERE, LAYOUT, Store};

/// A layout directory that is written to.
pub(crate) struct LayoutWriter {
    directory: Directory,
    /// What the image is to be called there.
    name: Option<String>,
}

impl LayoutWriter {
    pub(crate) fn create(path: &Path, name: Option<&str>) -> Result<Self> {
        let directory = Directory::create(path)?;
        if directory.read("oci-layout", 4096)?.is_none() {
            directory.write("oci-layout", LAYOUT.as_bytes())?;
        }
        directory.make("blobs")?;
        for algorithm in Algorithm::ALL {
            directory.make(&format!("blobs/{}", algorithm.name()))?;
        }
        Ok(Self { directory, name: name.map(str::to_owned) })
    }

    /// Puts the image into the layout's index, in the place of what had its name.
    fn publish(&self, descriptor: &Descriptor) -> Result<()> {
        let mut index = match self.directory.read("index.json", MAX_INDEX_SIZE)? {
            Some(bytes) => serde_json::from_slice(&bytes).context("parse index.json")?,
            None => Index::empty(),
        };
        let mut entry = descriptor.clone();
        entry.annotations.remove(REF_NAME);
        entry.annotations.remove(CONTAINERD_NAME);
        entry.annotations.remove(ELSEWHERE);
        if let Some(name) = &self.name {
            entry.annotations.insert(REF_NAME.to_owned(), name.clone());
        }
        index.manifests.retain(|other| match &self.name {
            Some(name) => other.annotations.get(REF_NAME) != Some(name),
            None => other.digest != entry.digest || other.annotations.contains_key(REF_NAME),
        });
        index.manifests.push(entry);
        let bytes = serde_json::to_vec(&index).context("write index")?;
        self.directory.write("index.json", &bytes[..])
    }
}

impl Destination for LayoutWriter {
    fn lacks(&mut self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let mut lacking = Vec::new();
        for blob in blobs {
            if !self.directory.has(&blob_name(&blob.digest), blob.size)? {
                lacking.push(blob.clone());
            }
        }
        Ok(lacking)
    }

    fn put_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        blobs.iter().try_for_each(|blob| {
            self.directory.write(&blob_name(&blob.digest), store.open_blob(&blob.digest)?)
        })
    }

    fn has_document(&mut self, descriptor: &Descriptor) -> Result<bool> {
        self.directory.has(&blob_name(&descriptor.digest), descriptor.size)
    }

    fn put_document(&mut self, descriptor: &Descriptor, bytes: &[u8], is_top: bool) -> Result<()> {
        self.directory.write(&blob_name(&descriptor.digest), bytes)?;
        if is_top { self.publish(descriptor) } else { Ok(()) }
    }
}
