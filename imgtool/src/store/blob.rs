//! Writing blobs: into a staging file, hashed on the way, named by the digest
//! once everything about them is known to be right.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};
use tempfile::{NamedTempFile, TempPath};

use super::{Store, make_dir, sync_dir};
use crate::digest::{Algorithm, Digest, HashingWriter};
use crate::manifest::Descriptor;
use crate::sys::{WriteBack, write_back};

/// So many bytes are sent on their way to the disk at a time, while the next ones come.
pub(super) const WRITE_BACK: u64 = 8 << 20;
/// As many files are open at a time while their bytes go to the disk.
const MAX_OPEN: usize = 64;

/// A blob that is being written. Dropped, it leaves nothing.
pub(crate) struct BlobWriter {
    store: Store,
    file: HashingWriter<NamedTempFile>,
    written: u64,
    /// How much of that is on its way to the disk.
    sent: u64,
}

/// A blob that is written whole but not in the store yet.
pub(crate) struct StagedBlob {
    store: Store,
    /// A path and no descriptor: an archive may have thousands of members.
    path: TempPath,
    digest: Digest,
    size: u64,
}

impl Store {
    /// A writer for one blob. Hold [`Store::lock_shared`] from before this
    /// until something in the index refers to the blob.
    pub(crate) fn blob_writer(&self) -> Result<BlobWriter> {
        self.blob_writer_for(Algorithm::Sha256)
    }

    /// The same for a blob whose digest is of the given kind.
    pub(crate) fn blob_writer_for(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        let staging = self.make_staging()?;
        let file = tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(&staging)
            .with_context(|| format!("create file in {}", staging.display()))?;
        let file = HashingWriter::new(file, algorithm);
        Ok(BlobWriter { store: self.clone(), file, written: 0, sent: 0 })
    }

    /// Stores a document and returns its descriptor.
    pub(crate) fn write_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let (descriptor, staged) = self.stage_blob(media_type, bytes)?;
        staged.commit()?;
        Ok(descriptor)
    }

    /// Writes a document that is to be stored together with others.
    pub(crate) fn stage_blob(
        &self,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(Descriptor, StagedBlob)> {
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).context("write blob")?;
        let staged = writer.finish();
        Ok((Descriptor::new(media_type, staged.digest.clone(), staged.size), staged))
    }

    /// Puts blobs into the store. The disk is waited for about as long as for one: the file system
    /// writes down what it knows of all of them at a time.
    pub(crate) fn commit_blobs(&self, blobs: Vec<StagedBlob>) -> Result<()> {
        self.commit_blobs_with(blobs, None)
    }

    /// The same, and brings another file to the disk with them.
    pub(super) fn commit_blobs_with(
        &self,
        blobs: Vec<StagedBlob>,
        other: Option<&File>,
    ) -> Result<()> {
        let is_new = |blob: &StagedBlob| !self.has_blob(&blob.digest);
        let mut new: Vec<_> = blobs.into_iter().filter(is_new).collect();
        let mut directories = BTreeSet::new();
        loop {
            let rest = new.split_off(new.len().min(MAX_OPEN));
            let files = new.iter().map(StagedBlob::open).collect::<Result<Vec<_>>>()?;
            let last = other.filter(|_| rest.is_empty());
            let together: Vec<&File> = files.iter().chain(last).collect();
            settle(&together).context("write to the disk")?;
            for blob in new {
                let directory = self.blob_dir(blob.digest.algorithm());
                make_dir(&directory)?;
                blob.path
                    .persist(directory.join(blob.digest.hex()))
                    .with_context(|| format!("store blob {}", blob.digest))?;
                directories.insert(directory);
            }
            new = rest;
            if new.is_empty() {
                break;
            }
        }
        for directory in directories {
            sync_dir(&directory).with_context(|| format!("write {}", directory.display()))?;
        }
        Ok(())
    }
}

/// Waits until the files are on the disk. When all of their bytes are, so are with the first fsync
/// the sizes and places of all, and the others find nothing left to do.
fn settle(files: &[&File]) -> io::Result<()> {
    for how in [WriteBack::Begin, WriteBack::End] {
        for file in files {
            write_back(file, 0, 0, how);
        }
    }
    files.iter().try_for_each(|file| file.sync_all())
}

impl BlobWriter {
    /// Ends the blob without giving it its name yet.
    pub(crate) fn finish(self) -> StagedBlob {
        let (file, digest, size) = self.file.finish();
        StagedBlob { store: self.store, path: file.into_temp_path(), digest, size }
    }

    /// Ends the blob and puts it into the store.
    pub(crate) fn commit(self) -> Result<(Digest, u64)> {
        self.finish().commit()
    }

    /// The same, if it is what `expected` says; otherwise it is dropped.
    pub(crate) fn commit_with_digest(self, expected: &Digest) -> Result<(Digest, u64)> {
        let staged = self.finish();
        ensure!(
            staged.digest == *expected,
            "content has digest {}, expected {expected}",
            staged.digest
        );
        staged.commit()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.written += written as u64;
        if self.written - self.sent >= WRITE_BACK {
            let file = self.file.get_ref().as_file();
            write_back(file, self.sent, self.written - self.sent, WriteBack::Begin);
            self.sent = self.written;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl StagedBlob {
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Its content from the start.
    pub(crate) fn open(&self) -> Result<File> {
        File::open(&self.path).context("open staged blob")
    }

    /// Its content in memory, if it is small.
    pub(crate) fn read(&self, limit: u64) -> Result<Vec<u8>> {
        ensure!(
            self.size <= limit,
            "document of {} bytes is larger than the limit of {limit}",
            self.size
        );
        let mut bytes = Vec::new();
        self.open()?.take(limit).read_to_end(&mut bytes).context("read staged blob")?;
        Ok(bytes)
    }

    /// Puts it into the store under its digest.
    pub(crate) fn commit(self) -> Result<(Digest, u64)> {
        let named = (self.digest.clone(), self.size);
        self.store.clone().commit_blobs(vec![self])?;
        Ok(named)
    }
}
