//! OCI image layouts: a directory, or the same inside an archive.

mod writer;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::Source;
use super::archive::Members;
use super::directory::Directory;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Index, MAX_MANIFEST_SIZE};
use crate::store::Store;

const MAX_INDEX_SIZE: u64 = MAX_MANIFEST_SIZE;
const BUFFER: usize = 256 << 10;

pub(crate) use writer::LayoutWriter;

/// A layout that images are read from.
pub(crate) struct Layout<'a> {
    store: &'a Store,
    place: Place<'a>,
}

enum Place<'a> {
    Directory(Directory),
    Archive(&'a mut Members),
}

impl<'a> Layout<'a> {
    /// Opens a layout directory.
    pub(crate) fn directory(store: &'a Store, path: &Path) -> Result<Self> {
        Ok(Self { store, place: Place::Directory(Directory::open_at(path)?) })
    }

    /// Takes the members of an archive for a layout.
    pub(crate) fn archive(store: &'a Store, members: &'a mut Members) -> Self {
        Self { store, place: Place::Archive(members) }
    }

    /// Its images.
    pub(crate) fn index(&self) -> Result<Index> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        // Some writers leave the version out; if it is there it has to be known.
        if let Some(bytes) = self.file("oci-layout", 4096)? {
            let version: Version = serde_json::from_slice(&bytes).context("parse oci-layout")?;
            ensure!(
                version.image_layout_version.starts_with("1."),
                "image layout has version {:?}, not 1.0.0",
                version.image_layout_version
            );
        }
        let Some(bytes) = self.file("index.json", MAX_INDEX_SIZE)? else {
            bail!("not an image layout: it has no index.json");
        };
        let index: Index = serde_json::from_slice(&bytes).context("parse index.json")?;
        ensure!(
            index.schema_version == 2,
            "index.json has schemaVersion {}, not 2",
            index.schema_version
        );
        ensure!(
            !index.other.contains_key("layers") && !index.other.contains_key("config"),
            "index.json is both an index and a manifest: it has \"manifests\" beside \"layers\" or \"config\""
        );
        Ok(index)
    }

    fn file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match &self.place {
            Place::Directory(directory) => directory.read(name, limit),
            Place::Archive(members) => members.document(self.store, name, limit),
        }
    }

    fn fetch(&mut self, store: &Store, blob: &Descriptor) -> Result<()> {
        let name = blob_name(&blob.digest);
        let (digest, size) = match &mut self.place {
            Place::Archive(members) => match members.digest(&name)? {
                Some(found) => found,
                None => bail!("archive has no {name}"),
            },
            Place::Directory(directory) => {
                let Some(file) = directory.open(&name)? else {
                    bail!("layout has no {name}");
                };
                return copy_file(store, file, blob).with_context(|| format!("copy {name}"));
            }
        };
        check(blob, &digest, size)?;
        if let Place::Archive(members) = &mut self.place {
            members.store(store, [name.as_str()])?;
        }
        Ok(())
    }
}

impl Source for Layout<'_> {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        let name = blob_name(&descriptor.digest);
        let Some(bytes) = self.file(&name, MAX_MANIFEST_SIZE)? else {
            return Ok(None);
        };
        let mut hasher = crate::digest::Hasher::new(descriptor.digest.algorithm());
        hasher.update(&bytes);
        check(descriptor, &hasher.finish(), bytes.len() as u64)?;
        Ok(Some(bytes))
    }

    fn has_blob(&self, descriptor: &Descriptor) -> bool {
        let name = blob_name(&descriptor.digest);
        match &self.place {
            Place::Archive(members) => members.contains(&name),
            Place::Directory(directory) => matches!(directory.open(&name), Ok(Some(_))),
        }
    }

    fn fetch_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        blobs.iter().try_for_each(|blob| self.fetch(store, blob))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn check(blob: &Descriptor, digest: &Digest, size: u64) -> Result<()> {
    ensure!(
        *digest == blob.digest,
        "blob {} has wrong content: its digest is {digest}",
        blob.digest
    );
    ensure!(
        size == blob.size,
        "blob {} has {size} bytes, its descriptor says {}",
        blob.digest,
        blob.size
    );
    Ok(())
}

/// Copies no more than the descriptor says, and keeps it only if it is that.
fn copy_file(store: &Store, file: File, blob: &Descriptor) -> Result<()> {
    let mut writer = store.blob_writer_for(blob.digest.algorithm())?;
    let mut input = file.take(blob.size.saturating_add(1));
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = input.read(&mut buffer).context("read blob")?;
        if n == 0 {
            break;
        }
        writer.write_all(&buffer[..n]).context("write blob")?;
    }
    let staged = writer.finish();
    ensure!(staged.size() <= blob.size, "blob {} is larger than its descriptor says", blob.digest);
    check(blob, staged.digest(), staged.size())?;
    staged.commit().map(drop)
}
