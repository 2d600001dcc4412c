//! Archives that we write: an OCI layout, with docker's `manifest.json` beside
//! it if wanted. Blobs stay as they are stored, so no digest changes; order,
//! times and owners are fixed, so equal images give equal bytes.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};

use anyhow::{Context, Result, bail, ensure};

use super::docker_archive::Item;
use crate::digest::{Digest, HashingReader};
use crate::layer::tar;
use crate::manifest::{CONTAINERD_NAME, Descriptor, Document, Index, MAX_INDEX_DEPTH, REF_NAME};
use crate::store::{ELSEWHERE, LAYOUT, Selection, Store};

const BUFFER: usize = 256 << 10;

/// What stands in the archive beside the layout.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Nothing.
    Oci,
    /// `manifest.json`, for readers that know no indexes; of an index it
    /// names this host's image, or the first that is here.
    Docker,
}

/// An archive that is decided on but not written.
pub(crate) struct Archive {
    documents: Vec<(&'static str, Vec<u8>)>,
    /// Size of each blob; sorted, so that the order is always the same.
    blobs: BTreeMap<Digest, u64>,
}

impl Archive {
    /// Decides what the archive of these images holds, and that all of it is here.
    pub(crate) fn plan(store: &Store, images: &[Selection], kind: Kind) -> Result<Self> {
        let mut index = Index::empty();
        let mut blobs = BTreeMap::new();
        let mut items: Vec<(Digest, Item)> = Vec::new();
        for Selection { name, entry } in images {
            collect(store, entry, &mut blobs, 0)?;
            let mut named = entry.clone();
            named.annotations.remove(REF_NAME);
            named.annotations.remove(CONTAINERD_NAME);
            named.annotations.remove(ELSEWHERE);
            if let Some(name) = name {
                named.annotations.insert(REF_NAME.to_owned(), name.familiar());
                named.annotations.insert(CONTAINERD_NAME.to_owned(), name.to_string());
            }
            if !index.manifests.contains(&named) {
                index.manifests.push(named);
            }
            if let Kind::Docker = kind {
                add_item(store, name.as_ref(), entry, &mut items)?;
            }
        }
        let mut documents = vec![
            ("oci-layout", LAYOUT.as_bytes().to_vec()),
            ("index.json", serde_json::to_vec(&index).context("write index")?),
        ];
        if let Kind::Docker = kind {
            let items: Vec<Item> = items.into_iter().map(|(_, item)| item).collect();
            documents.push((
                "manifest.json",
                serde_json::to_vec(&items).context("write manifest.json")?,
            ));
        }
        Ok(Self { documents, blobs })
    }

    /// Writes it: documents first, so that readers can stream.
    pub(crate) fn write(&self, store: &Store, out: &mut impl Write) -> Result<()> {
        let mut archive = tar::Writer::new(out);
        for (name, bytes) in &self.documents {
            archive.entry(&file(name.to_string(), bytes.len() as u64))?;
            archive.contents(bytes)?;
        }
        let mut directories = vec!["blobs".to_owned()];
        directories.extend(self.blobs.keys().map(|d| format!("blobs/{}", d.algorithm().name())));
        directories.dedup();
        for name in directories {
            let path = format!("{name}/").into_bytes();
            archive.entry(&tar::Entry::new(path, tar::Kind::Directory, 0o755))?;
        }
        for (digest, size) in &self.blobs {
            archive.entry(&file(blob_name(digest), *size))?;
            write_blob(store, digest, *size, |bytes| archive.contents(bytes))?;
        }
        archive.finish().map(drop)
    }
}

fn file(name: String, size: u64) -> tar::Entry {
    let mut entry = tar::Entry::new(name.into_bytes(), tar::Kind::File, 0o644);
    entry.size = size;
    entry
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn write_blob(
    store: &Store,
    digest: &Digest,
    size: u64,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let input = BufReader::with_capacity(BUFFER, store.open_blob(digest)?.take(size));
    let mut input = HashingReader::new(input, digest.algorithm());
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = input.read(&mut buffer).with_context(|| format!("read blob {digest}"))?;
        if n == 0 {
            break;
        }
        write(&buffer[..n])?;
    }
    let (actual, read) = input.finish();
    ensure!(
        actual == *digest && read == size,
        "blob {digest} in {} is damaged",
        store.root().display()
    );
    Ok(())
}

/// All blobs below a descriptor that the store has; of an index at least one image.
fn collect(
    store: &Store,
    descriptor: &Descriptor,
    blobs: &mut BTreeMap<Digest, u64>,
    depth: usize,
) -> Result<()> {
    ensure!(depth < MAX_INDEX_DEPTH, "indexes are nested too deeply");
    match store.document(descriptor)? {
        Document::Manifest(manifest) => {
            for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                if !store.has_blob(&blob.digest) {
                    bail!("blob {} is not in the store", blob.digest);
                }
                blobs.insert(blob.digest.clone(), blob.size);
            }
        }
        Document::Index(index) => {
            let here = |child: &&Descriptor| store.has_blob(&child.digest);
            for child in index.manifests.iter().filter(here) {
                collect(store, child, blobs, depth + 1)?;
            }
        }
    }
    blobs.insert(descriptor.digest.clone(), descriptor.size);
    Ok(())
}

fn add_item(
    store: &Store,
    name: Option<&crate::reference::Reference>,
    entry: &Descriptor,
    items: &mut Vec<(Digest, Item)>,
) -> Result<()> {
    let tag = name
        .filter(|name| name.tag().is_some())
        .map(|name| name.clone().without_digest().familiar());
    let image = store.any_image(entry)?;
    let position = items.iter().position(|(digest, _)| *digest == image.manifest.digest);
    let position = position.unwrap_or_else(|| {
        let item = Item {
            config: blob_name(image.id()),
            repo_tags: Vec::new(),
            layers: image.layers.iter().map(|l| blob_name(&l.digest)).collect(),
        };
        items.push((image.manifest.digest.clone(), item));
        items.len() - 1
    });
    let tags = &mut items[position].1.repo_tags;
    tags.extend(tag.filter(|tag| !tags.contains(tag)));
    Ok(())
}
