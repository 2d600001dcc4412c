//! `index.json`: one entry per name, and one without a name for each image
//! that has none.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, ensure};

use super::elsewhere::{self, ELSEWHERE};
use super::{StagedBlob, Store};
use crate::manifest::{CONTAINERD_NAME, Descriptor, Index, REF_NAME};
use crate::reference::Reference;

/// Thousands of names fit; what is larger was not written by a layout tool.
const MAX_INDEX_SIZE: u64 = 64 << 20;

impl Store {
    /// The images of the store, as `index.json` has them.
    pub(crate) fn index(&self) -> Result<Index> {
        let path = self.root().join("index.json");
        let read = || -> Result<Index> {
            let mut bytes = Vec::new();
            File::open(&path)?.take(MAX_INDEX_SIZE + 1).read_to_end(&mut bytes)?;
            ensure!(bytes.len() as u64 <= MAX_INDEX_SIZE, "file is too large");
            Ok(serde_json::from_slice(&bytes)?)
        };
        read().with_context(|| format!("read {}", path.display()))
    }

    /// Gives `name` to the image at `descriptor`. The image that had the name
    /// stays, nameless if it has no other. Returns that earlier entry if it
    /// was another image.
    pub(crate) fn tag(
        &self,
        name: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Option<Descriptor>> {
        self.tag_new(name, descriptor, Vec::new())
    }

    /// The same for an image of which these blobs are not in the store yet.
    pub(crate) fn tag_new(
        &self,
        name: &Reference,
        descriptor: &Descriptor,
        blobs: Vec<StagedBlob>,
    ) -> Result<Option<Descriptor>> {
        let mut entry = plain(descriptor);
        entry.annotations.insert(REF_NAME.to_owned(), name.familiar());
        entry.annotations.insert(CONTAINERD_NAME.to_owned(), name.to_string());
        self.change_index_with(blobs, |index| {
            // Ours is only what we wrote: an archive may say it too.
            entry.annotations.remove(ELSEWHERE);
            let known = elsewhere::known(index, &entry.digest);
            entry.annotations.extend(known.map(|known| (ELSEWHERE.to_owned(), known)));
            let unchanged =
                |e: &Descriptor| e.digest == entry.digest && entry_name(e).as_ref() == Some(name);
            if index.manifests.iter().any(unchanged) {
                return Ok(None);
            }
            let previous = take_name(index, name);
            if let Some(old) = &previous {
                keep(index, old);
            }
            index.manifests.retain(|other| other.digest != entry.digest || is_named(other));
            index.manifests.push(entry);
            Ok(previous)
        })
    }

    /// Records an image without a name, unless it is there already.
    pub(crate) fn add_unnamed(&self, descriptor: &Descriptor) -> Result<()> {
        self.add_unnamed_new(descriptor, Vec::new())
    }

    /// The same for an image of which these blobs are not in the store yet.
    pub(crate) fn add_unnamed_new(
        &self,
        descriptor: &Descriptor,
        blobs: Vec<StagedBlob>,
    ) -> Result<()> {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.remove(ELSEWHERE);
        self.change_index_with(blobs, |index| {
            keep(index, &descriptor);
            Ok(())
        })
    }

    /// Takes a name away; the image stays, nameless if this was its last name.
    /// Returns its entry, or `None` if nothing has that name.
    pub(crate) fn untag(&self, name: &Reference) -> Result<Option<Descriptor>> {
        self.change_index(|index| {
            let entry = take_name(index, name);
            if let Some(entry) = &entry {
                keep(index, entry);
            }
            Ok(entry)
        })
    }

    /// Removes every entry that points at `descriptor`, returning them.
    pub(crate) fn forget(&self, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
        self.change_index(|index| {
            let (gone, left) = std::mem::take(&mut index.manifests)
                .into_iter()
                .partition(|entry| entry.digest == descriptor.digest);
            index.manifests = left;
            Ok(gone)
        })
    }

    pub(super) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T>,
    ) -> Result<T> {
        self.change_index_with(Vec::new(), change)
    }

    /// Puts blobs into the store, and then what refers to them into the index.
    fn change_index_with<T>(
        &self,
        blobs: Vec<StagedBlob>,
        change: impl FnOnce(&mut Index) -> Result<T>,
    ) -> Result<T> {
        let _lock = self.lock_index()?;
        let mut index = self.index()?;
        let before = index.manifests.clone();
        let result = change(&mut index)?;
        if index.manifests == before {
            self.commit_blobs(blobs)?;
            return Ok(result);
        }
        let bytes = serde_json::to_vec(&index).context("write index")?;
        let staged = self.stage_file(&bytes).context("write index")?;
        self.commit_blobs_with(blobs, Some(staged.as_file()))?;
        self.place_file("index.json", staged)?;
        Ok(result)
    }
}

/// The name of an entry of a layout's index, in full, if it has one that parses.
pub(crate) fn entry_name(entry: &Descriptor) -> Option<Reference> {
    [CONTAINERD_NAME, REF_NAME]
        .iter()
        .filter_map(|key| entry.annotations.get(*key))
        .find_map(|name| Reference::parse(name).ok())
        .map(Reference::with_default_tag)
}

fn is_named(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(REF_NAME) || entry.annotations.contains_key(CONTAINERD_NAME)
}

/// The entry without its name.
fn plain(entry: &Descriptor) -> Descriptor {
    let mut entry = entry.clone();
    entry.annotations.remove(REF_NAME);
    entry.annotations.remove(CONTAINERD_NAME);
    entry
}

fn take_name(index: &mut Index, name: &Reference) -> Option<Descriptor> {
    let position =
        index.manifests.iter().position(|entry| entry_name(entry).as_ref() == Some(name))?;
    Some(index.manifests.remove(position))
}

/// Adds a nameless entry unless some entry holds the image already.
fn keep(index: &mut Index, entry: &Descriptor) {
    if !index.manifests.iter().any(|e| e.digest == entry.digest) {
        index.manifests.push(plain(entry));
    }
}
