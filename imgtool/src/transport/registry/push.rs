//! A repository as the destination of images.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::super::Destination;
use super::super::http::Cancel;
use super::super::parallel::for_each;
use super::access::Access;
use super::repository::{Action, Repository};
use super::upload::Upload;
use crate::digest::{Algorithm, Digest};
use crate::manifest::Descriptor;
use crate::progress::{Direction, Progress};
use crate::reference::Reference;
use crate::store::Store;

/// Where images are pushed to.
pub(crate) struct Push<'a> {
    repository: Repository,
    progress: &'a Progress,
    how: Upload,
    /// Other repositories of the same registry that may have a blob.
    elsewhere: BTreeMap<Digest, Vec<String>>,
    /// One that may have any of them.
    source: Option<String>,
}

impl<'a> Push<'a> {
    pub(crate) fn open(
        name: &Reference,
        access: &Access,
        progress: &'a Progress,
        how: Upload,
    ) -> Result<Self> {
        let repository = Repository::open(name, access, Action::Push)?;
        Ok(Self { repository, progress, how, elsewhere: BTreeMap::new(), source: None })
    }

    /// Says where a blob may lie already.
    pub(crate) fn known_at(&mut self, blob: &Digest, repository: &Reference) {
        let name = &self.repository.name;
        if repository.host() == name.host() && repository.path() != name.path() {
            let known = self.elsewhere.entry(blob.clone()).or_default();
            if !known.iter().any(|path| path == repository.path()) {
                known.push(repository.path().to_owned());
            }
        }
    }

    /// Says that all blobs come from another repository, which may be of the same registry.
    pub(crate) fn may_mount_from(&mut self, repository: &Reference) {
        let name = &self.repository.name;
        if repository.host() == name.host() && repository.path() != name.path() {
            self.source = Some(repository.path().to_owned());
        }
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Whether the registry has a manifest or an index with all that belongs to it.
    pub(crate) fn has_there(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.repository.digest(&descriptor.digest.to_string())?.is_some())
    }

    /// Whether the registry has the blob already, or takes it from another repository.
    fn find(&self, blob: &Descriptor) -> Result<bool> {
        let say = |why: &str| match blob.is_layer() {
            true => self.progress.skipped(blob, why),
            false => Ok(()),
        };
        if self.repository.has_blob(blob)? {
            say("Layer already exists")?;
            return Ok(true);
        }
        for from in self.elsewhere.get(&blob.digest).into_iter().flatten().chain(&self.source) {
            if self.repository.mount(blob, from)? {
                say(&format!("Mounted from {from}"))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn send(&self, store: &Store, blob: &Descriptor) -> Result<()> {
        let item = self.progress.begin(blob, blob.is_layer(), Direction::Push)?;
        let sent = Arc::new(AtomicU64::new(0));
        let item = Arc::new(item);
        let open = |offset: u64| -> Result<Box<dyn Read>> {
            let mut file = store.open_blob(&blob.digest)?;
            file.seek(SeekFrom::Start(offset)).context("read blob")?;
            sent.store(offset, Ordering::Relaxed);
            Ok(Box::new(Counted { file, sent: Arc::clone(&sent), item: Arc::clone(&item) }))
        };
        self.repository.upload(blob, &open, self.how)?;
        match Arc::into_inner(item) {
            Some(item) => item.finish(),
            None => Ok(()),
        }
    }
}

struct Counted {
    file: std::fs::File,
    sent: Arc<AtomicU64>,
    item: Arc<crate::progress::Item>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        let sent = self.sent.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        self.item.set(sent);
        Ok(n)
    }
}

impl Destination for Push<'_> {
    fn lacks(&mut self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let lacking = Mutex::new(Vec::new());
        for_each(blobs, &Cancel::default(), |blob| {
            if !self.find(blob)? {
                lacking.lock().unwrap_or_else(PoisonError::into_inner).push(blob.clone());
            }
            Ok(())
        })?;
        let lacking = lacking.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(blobs.iter().filter(|blob| lacking.contains(blob)).cloned().collect())
    }

    fn put_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        for_each(blobs, &Cancel::default(), |blob| self.send(store, blob))
    }

    fn has_document(&mut self, descriptor: &Descriptor) -> Result<bool> {
        self.has_there(descriptor)
    }

    fn put_document(&mut self, descriptor: &Descriptor, bytes: &[u8], is_top: bool) -> Result<()> {
        let name = &self.repository.name;
        let by_digest = descriptor.digest.to_string();
        let reference = match name.tag().filter(|_| is_top && name.digest().is_none()) {
            Some(tag) => tag,
            None => &by_digest,
        };
        // A tag alone makes a sha256 of it, and nobody would find it under another.
        if descriptor.digest.algorithm() != Algorithm::Sha256 && reference != by_digest {
            self.repository.put_manifest(&by_digest, descriptor, bytes)?;
        }
        let is_listed = self.repository.put_manifest(reference, descriptor, bytes)?;
        if is_listed { Ok(()) } else { self.repository.list_referrer(descriptor, bytes) }
    }
}

/// What is pushed beside the image must not get the image's tag.
pub(crate) struct ByDigest<'a, 'b>(pub(crate) &'a mut Push<'b>);

impl Destination for ByDigest<'_, '_> {
    fn lacks(&mut self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        self.0.lacks(blobs)
    }

    fn put_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        self.0.put_blobs(store, blobs)
    }

    fn has_document(&mut self, descriptor: &Descriptor) -> Result<bool> {
        self.0.has_document(descriptor)
    }

    fn put_document(&mut self, descriptor: &Descriptor, bytes: &[u8], _is_top: bool) -> Result<()> {
        self.0.put_document(descriptor, bytes, false)
    }
}
