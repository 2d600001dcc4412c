//! The `dir:` form of skopeo: the manifest as `manifest.json`, blobs beside it
//! by the hexadecimal part of their digests.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::directory::Directory;
use super::{Destination, Source};
use crate::digest::{Digest, Hasher};
use crate::manifest::{Descriptor, Document, MAX_MANIFEST_SIZE};
use crate::store::Store;

const VERSION: &str = "Directory Transport Version: 1.1\n";
const BUFFER: usize = 256 << 10;

/// Such a directory, to read from or to write to.
#[derive(Debug)]
pub(crate) struct Dir(Directory);

impl Dir {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Directory::open_at(path).map(Self)
    }

    pub(crate) fn create(path: &Path) -> Result<Self> {
        let directory = Directory::create(path)?;
        directory.write("version", VERSION.as_bytes())?;
        Ok(Self(directory))
    }

    /// Its only image.
    pub(crate) fn entry(&self) -> Result<Descriptor> {
        let Some(bytes) = self.0.read("manifest.json", MAX_MANIFEST_SIZE)? else {
            bail!("it has no manifest.json");
        };
        let kind = Document::parse(&bytes, "")?.media_type();
        Ok(Descriptor::new(&kind, Digest::of(&bytes), bytes.len() as u64))
    }

    fn fetch(&self, store: &Store, blob: &Descriptor) -> Result<()> {
        let Some(file) = self.0.open(&file_name(&blob.digest))? else {
            bail!("directory has no blob {}", blob.digest);
        };
        let mut partial = store.partial(blob)?;
        partial.restart()?;
        let mut input = file.take(blob.size.saturating_add(1));
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = input.read(&mut buffer).context("read blob")?;
            if n == 0 {
                return partial.commit(|| ());
            }
            partial.write(&buffer[..n])?;
        }
    }
}

impl Source for Dir {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        let digest = &descriptor.digest;
        for name in [format!("{}.manifest.json", digest.hex()), "manifest.json".to_owned()] {
            let Some(bytes) = self.0.read(&name, MAX_MANIFEST_SIZE)? else { continue };
            let mut hasher = Hasher::new(digest.algorithm());
            hasher.update(&bytes);
            if hasher.finish() == *digest {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn has_blob(&self, descriptor: &Descriptor) -> bool {
        matches!(self.0.open(&file_name(&descriptor.digest)), Ok(Some(_)))
    }

    fn fetch_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        blobs.iter().try_for_each(|blob| self.fetch(store, blob))
    }
}

impl Destination for Dir {
    fn lacks(&mut self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let mut lacking = Vec::new();
        for blob in blobs {
            if !self.0.has(&file_name(&blob.digest), blob.size)? {
                lacking.push(blob.clone());
            }
        }
        Ok(lacking)
    }

    fn put_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        blobs.iter().try_for_each(|blob| {
            self.0.write(&file_name(&blob.digest), store.open_blob(&blob.digest)?)
        })
    }

    fn has_document(&mut self, descriptor: &Descriptor) -> Result<bool> {
        self.0.has(&format!("{}.manifest.json", descriptor.digest.hex()), descriptor.size)
    }

    fn put_document(&mut self, descriptor: &Descriptor, bytes: &[u8], is_top: bool) -> Result<()> {
        let name = match is_top {
            true => "manifest.json".to_owned(),
            false => format!("{}.manifest.json", descriptor.digest.hex()),
        };
        self.0.write(&name, bytes)
    }
}

/// sha256 without its name, as skopeo has it.
fn file_name(digest: &Digest) -> String {
    match digest.algorithm() {
        crate::digest::Algorithm::Sha256 => digest.hex().to_owned(),
        other => format!("{}-{}", other.name(), digest.hex()),
    }
}
