//! Moves an image from a source into the store: only blobs that are missing,
//! children before what points at them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use crate::manifest::{Descriptor, Document, Index, Manifest, Platform};
use crate::store::{Store, platforms};
use crate::transport::Source;

const MAX_INDEX_DEPTH: usize = 4;

/// Which images of an index are wanted.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// All that the source has.
    Present,
    /// The one that fits this platform.
    Platform(Platform),
}

/// Copies the image at `entry`, or the wanted parts of an index. False if the
/// source has nothing of it. The caller holds the store's lock.
pub(crate) fn copy(
    source: &mut dyn Source,
    store: &Store,
    entry: &Descriptor,
    wanted: &Wanted,
) -> Result<bool> {
    copy_document(source, store, entry, wanted, 0)
}

fn copy_document(
    source: &mut dyn Source,
    store: &Store,
    descriptor: &Descriptor,
    wanted: &Wanted,
    depth: usize,
) -> Result<bool> {
    ensure!(depth < MAX_INDEX_DEPTH, "indexes are nested too deeply");
    let Some(bytes) = source.document(descriptor)? else {
        return Ok(false);
    };
    let document = Document::parse(&bytes, &descriptor.media_type)
        .with_context(|| format!("read manifest {}", descriptor.digest))?;
    let copied = match &document {
        Document::Manifest(manifest) => copy_manifest(source, store, manifest)?,
        Document::Index(index) => copy_children(source, store, index, wanted, depth)?,
    };
    if copied && !store.has_blob(&descriptor.digest) {
        let mut writer = store.blob_writer_for(descriptor.digest.algorithm())?;
        std::io::Write::write_all(&mut writer, &bytes).context("write manifest")?;
        writer.commit_with_digest(&descriptor.digest)?;
    }
    Ok(copied)
}

fn copy_children(
    source: &mut dyn Source,
    store: &Store,
    index: &Index,
    wanted: &Wanted,
    depth: usize,
) -> Result<bool> {
    if let Wanted::Platform(platform) = wanted {
        let Some(child) = platform.choose(&index.manifests) else {
            bail!(
                "no matching manifest for {platform} in the manifest list entries; there are: {}",
                platforms(&index.manifests)
            );
        };
        return copy_document(source, store, child, wanted, depth + 1);
    }
    let mut any = false;
    for child in &index.manifests {
        any |= copy_document(source, store, child, wanted, depth + 1)?;
    }
    Ok(any)
}

/// False if the source has the manifest but not all that it names: archives of
/// one platform carry the others' manifests sometimes.
fn copy_manifest(source: &mut dyn Source, store: &Store, manifest: &Manifest) -> Result<bool> {
    for layer in &manifest.layers {
        if store.has_blob(&layer.digest) {
            source.already_here(layer)?;
        }
    }
    let mut seen = BTreeSet::new();
    let missing: Vec<Descriptor> = std::iter::once(&manifest.config)
        .chain(&manifest.layers)
        .filter(|blob| seen.insert(&blob.digest) && !store.has_blob(&blob.digest))
        .cloned()
        .collect();
    if !missing.iter().all(|blob| source.has_blob(blob)) {
        return Ok(false);
    }
    if !missing.is_empty() {
        source.fetch_blobs(store, &missing)?;
    }
    Ok(true)
}
