//! Writing blobs: into a staging file, hashed on the way, named by the digest
//! once everything about them is known to be right.

use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};
use tempfile::{NamedTempFile, TempPath};

use super::{Store, make_dir, sync_dir};
use crate::digest::{Algorithm, Digest, HashingWriter};
use crate::manifest::Descriptor;

/// A blob that is being written. Dropped, it leaves nothing.
pub(crate) struct BlobWriter {
    store: Store,
    file: HashingWriter<NamedTempFile>,
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
        let staging = self.staging_dir();
        make_dir(&staging)?;
        let file = tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(&staging)
            .with_context(|| format!("create file in {}", staging.display()))?;
        Ok(BlobWriter { store: self.clone(), file: HashingWriter::new(file, algorithm) })
    }

    /// Stores a document and returns its descriptor.
    pub(crate) fn write_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).context("write blob")?;
        let (digest, size) = writer.commit()?;
        Ok(Descriptor::new(media_type, digest, size))
    }
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
        self.file.write(buffer)
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
        let directory = self.store.blob_dir(self.digest.algorithm());
        let path = directory.join(self.digest.hex());
        if !path.is_file() {
            make_dir(&directory)?;
            let publish = || -> io::Result<()> {
                File::open(&self.path)?.sync_all()?;
                self.path.persist(&path)?;
                sync_dir(&directory)
            };
            publish().with_context(|| format!("store blob {}", self.digest))?;
        }
        Ok((self.digest, self.size))
    }
}
