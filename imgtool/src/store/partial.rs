//! Downloads that survive a broken connection and a killed process: the bytes
//! so far lie in staging under the digest they are to have.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempPath;

use super::blob::WRITE_BACK;
use super::lock::PARTIAL_PREFIX;
use super::{Store, make_dir, sync_dir};
use crate::digest::{Digest, Hasher};
use crate::manifest::Descriptor;
use crate::sys::{WriteBack, write_back};

const BUFFER: usize = 256 << 10;

/// A blob of which the first part is there. Dropped, it goes, unless `keep` was
/// called; a killed process leaves it for the next attempt.
pub(crate) struct Partial {
    store: Store,
    /// Removed before the lock is given back: nobody can have locked it since.
    path: TempPath,
    /// Whether it lies under the blob's digest, and not under a random name
    /// because somebody else has that one.
    named: bool,
    file: Flock<File>,
    hasher: Hasher,
    length: u64,
    /// How much of that is on its way to the disk.
    sent: u64,
    blob: Descriptor,
}

impl Store {
    /// Begins the download of a blob, or goes on with an earlier one.
    pub(crate) fn partial(&self, blob: &Descriptor) -> Result<Partial> {
        let staging = self.make_staging()?;
        let digest = &blob.digest;
        let name = format!("{PARTIAL_PREFIX}{}-{}", digest.algorithm().name(), digest.hex());
        let path = staging.join(name);
        let locked = lock_named(&path).with_context(|| format!("open {}", path.display()))?;
        let named = locked.is_some();
        let (file, path) = match locked {
            Some(file) => (file, TempPath::try_from_path(path).context("open download")?),
            None => {
                let (file, path) = tempfile::Builder::new()
                    .prefix("blob-")
                    .tempfile_in(&staging)
                    .with_context(|| format!("create file in {}", staging.display()))?
                    .into_parts();
                let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                    .map_err(|(_, errno)| errno)
                    .context("lock download")?;
                (file, path)
            }
        };
        let mut partial = Partial {
            store: self.clone(),
            path,
            named,
            file,
            hasher: Hasher::new(digest.algorithm()),
            length: 0,
            sent: 0,
            blob: blob.clone(),
        };
        partial.take_up()?;
        Ok(partial)
    }
}

impl Partial {
    /// How many bytes are there.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The file that the bytes are in, to be read beside the writing.
    pub(crate) fn reader(&self) -> Result<File> {
        self.file.try_clone().context("open download")
    }

    /// Adds the next bytes, never more than the descriptor says.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let length = self.length + bytes.len() as u64;
        ensure!(
            length <= self.blob.size,
            "blob {} is larger than the {} bytes that its descriptor says",
            self.blob.digest,
            self.blob.size
        );
        let written = self.file.write_all(bytes);
        written.with_context(|| format!("write download {}", self.path.display()))?;
        self.hasher.update(bytes);
        self.length = length;
        if length - self.sent >= WRITE_BACK {
            write_back(&self.file, self.sent, length - self.sent, WriteBack::Begin);
            self.sent = length;
        }
        Ok(())
    }

    /// Throws the bytes away and begins anew.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let rewind = || -> io::Result<()> {
            self.file.set_len(0)?;
            (&*self.file).seek(SeekFrom::Start(0))?;
            Ok(())
        };
        rewind().context("empty download")?;
        self.hasher = Hasher::new(self.blob.digest.algorithm());
        (self.length, self.sent) = (0, 0);
        Ok(())
    }

    /// Gives it up for now, so that a later attempt goes on from here.
    pub(crate) fn keep(self) -> Result<()> {
        if self.named && self.length > 0 {
            self.path.keep().context("keep download")?;
        }
        Ok(())
    }

    /// Puts the whole blob into the store. What turns out wrong is removed; `verified` is called
    /// when nothing has, before the disk is waited for.
    pub(crate) fn commit(self, verified: impl FnOnce()) -> Result<()> {
        let digest: Digest = self.hasher.finish();
        if self.length != self.blob.size || digest != self.blob.digest {
            bail!(
                "blob {} has wrong content: {} bytes with digest {digest}, expected {} bytes",
                self.blob.digest,
                self.length,
                self.blob.size
            );
        }
        verified();
        let directory = self.store.blob_dir(digest.algorithm());
        make_dir(&directory)?;
        let target = directory.join(digest.hex());
        let publish = || -> io::Result<()> {
            self.file.sync_all()?;
            self.path.persist(&target)?;
            sync_dir(&directory)
        };
        publish().with_context(|| format!("store blob {digest}"))
    }

    /// Hashes what an earlier attempt left.
    fn take_up(&mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = self.file.read(&mut buffer).context("read download")?;
            if n == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..n]);
            self.length += n as u64;
            if self.length > self.blob.size {
                return self.restart();
            }
        }
    }
}

/// Opens and locks a download, or `None` if somebody else has it.
fn lock_named(path: &Path) -> io::Result<Option<Flock<File>>> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        // Between open and lock the file may have become a blob: that one
        // must not be written to again.
        let ours = lock.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                return Ok(Some(lock));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(content: &[u8]) -> Descriptor {
        Descriptor::new("", Digest::of(content), content.len() as u64)
    }

    #[test]
    fn a_download_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&dir.path().join("s"))).unwrap();
        let blob = blob(b"hello world");
        let mut first = store.partial(&blob).unwrap();
        first.write(b"hello").unwrap();
        let mut other = store.partial(&blob).unwrap();
        assert_eq!(other.length(), 0);
        other.write(b"hel").unwrap();
        first.keep().unwrap();
        other.keep().unwrap();
        let mut second = store.partial(&blob).unwrap();
        assert_eq!(second.length(), 5);
        assert!(second.write(b" world and more").is_err());
        second.write(b" world").unwrap();
        second.commit(|| ()).unwrap();
        assert_eq!(store.read_blob(&blob, 100).unwrap(), b"hello world");
        assert_eq!(fs::read_dir(store.staging_dir()).unwrap().count(), 0);
    }

    #[test]
    fn wrong_content_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&dir.path().join("s"))).unwrap();
        let mut partial = store.partial(&blob(b"right")).unwrap();
        partial.write(b"wrong").unwrap();
        let error = partial.commit(|| unreachable!()).unwrap_err();
        assert!(error.to_string().contains("wrong content"), "{error}");
        assert_eq!(fs::read_dir(store.staging_dir()).unwrap().count(), 0);
    }
}
