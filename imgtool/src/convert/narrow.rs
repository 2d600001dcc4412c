//! An index of some platforms only.

use anyhow::{Context, Result, bail};

use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Index, MAX_INDEX_DEPTH, Platform, media_type};
use crate::store::{Store, platforms};
use crate::transport::Source;

/// The manifest for one platform; a manifest that is none of an index is taken as it is.
pub(crate) fn for_platform(
    source: &mut dyn Source,
    entry: &Descriptor,
    platform: &Platform,
) -> Result<Descriptor> {
    let mut at = entry.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        let Document::Index(index) = read(source, &at)? else {
            return Ok(at);
        };
        let child = platform.choose(&index.manifests).with_context(|| {
            format!(
                "no matching manifest for {platform} in the manifest list entries; there are: {}",
                platforms(&index.manifests)
            )
        })?;
        at = child.clone();
    }
    bail!("indexes are nested too deeply")
}

/// An index of the images for these platforms, with what was attested of them. The caller holds
/// the store's lock.
pub(crate) fn narrow(
    source: &mut dyn Source,
    store: &Store,
    entry: &Descriptor,
    wanted: &[Platform],
) -> Result<Descriptor> {
    let Document::Index(index) = read(source, entry)? else {
        bail!("it is one image and no index: there is nothing to choose from");
    };
    let mut kept: Vec<Digest> = Vec::new();
    for platform in wanted {
        let child = platform.choose(&index.manifests).with_context(|| {
            format!("no image for {platform}, only for: {}", platforms(&index.manifests))
        })?;
        kept.push(child.digest.clone());
    }
    let about = |entry: &Descriptor| {
        entry.attested().is_some_and(|it| kept.iter().any(|kept| kept.to_string() == it))
    };
    // The order of the index, not that of the command line: the same set is the same index.
    let manifests: Vec<Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| kept.contains(&entry.digest) || about(entry))
        .cloned()
        .collect();
    if manifests.len() == index.manifests.len() {
        return Ok(entry.clone());
    }
    let index = Index { manifests, ..index };
    let bytes = serde_json::to_vec(&index).context("write index")?;
    let kind = index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
    let written = store.write_blob(kind, &bytes)?;
    // Its name stays.
    Ok(Descriptor { annotations: entry.annotations.clone(), ..written })
}

fn read(source: &mut dyn Source, descriptor: &Descriptor) -> Result<Document> {
    let bytes = source
        .document(descriptor)?
        .with_context(|| format!("manifest {} is missing", descriptor.digest))?;
    Document::parse(&bytes, &descriptor.media_type)
}
