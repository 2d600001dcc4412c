//! Moves an image from a source to a destination: only blobs that are missing
//! there, by way of the store, children before what points at them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use crate::manifest::{
    Descriptor, Document, Index, MAX_INDEX_DEPTH, MAX_MANIFEST_SIZE, Manifest, Platform,
};
use crate::progress::Progress;
use crate::store::{Store, platforms};
use crate::transport::{Destination, Source};

/// Which images of an index are wanted.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// All that the source has.
    Present,
    /// All, and it is a failure if the source lacks any that the destination lacks, too.
    All,
    /// For each of these platforms the one that fits it.
    Platforms(Vec<Platform>),
}

/// Copies the image at `entry`, or the wanted parts of an index, into the store. False if the
/// source has nothing of it. The caller holds the store's lock.
pub(crate) fn copy(
    source: &mut dyn Source,
    store: &Store,
    entry: &Descriptor,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<bool> {
    transfer(source, store, &mut IntoStore { store, progress }, entry, wanted)
}

/// The same to any destination.
pub(crate) fn transfer(
    source: &mut dyn Source,
    store: &Store,
    destination: &mut dyn Destination,
    entry: &Descriptor,
    wanted: &Wanted,
) -> Result<bool> {
    Transfer { source, store, destination }.document(entry, wanted, 0)
}

/// The store as a destination.
pub(crate) struct IntoStore<'a> {
    pub(crate) store: &'a Store,
    pub(crate) progress: &'a Progress,
}

impl Destination for IntoStore<'_> {
    fn lacks(&mut self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let mut lacking = Vec::new();
        for blob in blobs {
            if !self.store.has_blob(&blob.digest) {
                lacking.push(blob.clone());
                continue;
            }
            // What comes is measured as it comes; what is here must be what is meant, too.
            let file = self.store.open_blob(&blob.digest)?;
            let length = file.metadata().context("look at blob")?.len();
            ensure!(
                length == blob.size,
                "blob {} has {length} bytes, its descriptor says {}",
                blob.digest,
                blob.size
            );
            if blob.is_layer() {
                self.progress.skipped(blob, "Already exists")?;
            }
        }
        Ok(lacking)
    }

    fn put_blobs(&mut self, _store: &Store, _blobs: &[Descriptor]) -> Result<()> {
        Ok(())
    }

    fn has_document(&mut self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.store.has_blob(&descriptor.digest))
    }

    fn put_document(&mut self, descriptor: &Descriptor, bytes: &[u8], _is_top: bool) -> Result<()> {
        if self.store.has_blob(&descriptor.digest) {
            return Ok(());
        }
        let mut writer = self.store.blob_writer_for(descriptor.digest.algorithm())?;
        std::io::Write::write_all(&mut writer, bytes).context("write manifest")?;
        writer.commit_with_digest(&descriptor.digest).map(drop)
    }
}

/// The store as a source.
pub(crate) struct FromStore<'a>(pub(crate) &'a Store);

impl Source for FromStore<'_> {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        if !self.0.has_blob(&descriptor.digest) {
            return Ok(None);
        }
        self.0.read_blob(descriptor, MAX_MANIFEST_SIZE).map(Some)
    }

    fn has_blob(&self, descriptor: &Descriptor) -> bool {
        self.0.has_blob(&descriptor.digest)
    }

    fn fetch_blobs(&mut self, _store: &Store, blobs: &[Descriptor]) -> Result<()> {
        match blobs.first() {
            Some(blob) => bail!("blob {} is not in the store", blob.digest),
            None => Ok(()),
        }
    }
}

struct Transfer<'a> {
    source: &'a mut dyn Source,
    store: &'a Store,
    destination: &'a mut dyn Destination,
}

impl Transfer<'_> {
    fn document(&mut self, descriptor: &Descriptor, wanted: &Wanted, depth: usize) -> Result<bool> {
        ensure!(depth < MAX_INDEX_DEPTH, "indexes are nested too deeply");
        let Some(bytes) = self.source.document(descriptor)? else {
            return Ok(false);
        };
        let document = Document::parse(&bytes, &descriptor.media_type)
            .with_context(|| format!("read manifest {}", descriptor.digest))?;
        let copied = match &document {
            Document::Manifest(manifest) => self.manifest(manifest)?,
            Document::Index(index) => self.index(index, wanted, depth)?,
        };
        if copied {
            let mut typed = descriptor.clone();
            if typed.media_type.is_empty() {
                typed.media_type = document.media_type();
            }
            self.destination.put_document(&typed, &bytes, depth == 0)?;
        }
        Ok(copied)
    }

    fn index(&mut self, index: &Index, wanted: &Wanted, depth: usize) -> Result<bool> {
        if let Wanted::Platforms(platforms) = wanted {
            return self.chosen(index, platforms, depth);
        }
        let all = matches!(wanted, Wanted::All);
        let mut any = index.manifests.is_empty();
        for child in &index.manifests {
            let copied = self.document(child, wanted, depth + 1)?;
            if !copied && all {
                let there = self.destination.has_document(child)?;
                ensure!(there, "{} of the index is missing", child.digest);
            }
            any |= copied || all;
        }
        Ok(any)
    }

    /// The image for each platform; two may share one.
    fn chosen(&mut self, index: &Index, wanted: &[Platform], depth: usize) -> Result<bool> {
        let mut chosen: Vec<(&Descriptor, &Platform)> = Vec::new();
        for platform in wanted {
            let child = platform.choose(&index.manifests).with_context(|| {
                format!(
                    "no matching manifest for {platform} in the manifest list entries; there are: {}",
                    platforms(&index.manifests)
                )
            })?;
            if !chosen.iter().any(|(other, _)| other.digest == child.digest) {
                chosen.push((child, platform));
            }
        }
        let mut all = true;
        for (child, platform) in chosen {
            let copied =
                self.document(child, &Wanted::Platforms(vec![platform.clone()]), depth + 1)?;
            ensure!(copied || wanted.len() == 1, "the image for {platform} is missing");
            all &= copied;
        }
        Ok(all)
    }

    /// False if the source has the manifest but not all that it names: archives of one platform
    /// carry the others' manifests sometimes.
    fn manifest(&mut self, manifest: &Manifest) -> Result<bool> {
        let mut seen = BTreeSet::new();
        let blobs: Vec<Descriptor> = std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .filter(|blob| seen.insert(&blob.digest))
            .cloned()
            .collect();
        let lacking = self.destination.lacks(&blobs)?;
        let missing: Vec<Descriptor> =
            lacking.iter().filter(|blob| !self.store.has_blob(&blob.digest)).cloned().collect();
        if !missing.iter().all(|blob| self.source.has_blob(blob)) {
            return Ok(false);
        }
        if !missing.is_empty() {
            self.source.fetch_blobs(self.store, &missing)?;
        }
        self.destination.put_blobs(self.store, &lacking)?;
        Ok(true)
    }
}
