//! Files into a directory that others may have filled: each is made beside its
//! final name and renamed, and no link leads out of the directory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const BUFFER: usize = 256 << 10;

/// A directory that files are written to.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// Opens a directory.
    pub(crate) fn open_at(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self(directory))
    }

    /// Opens a directory, and makes it if it is not there.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let make =
            || -> std::io::Result<()> { std::fs::DirBuilder::new().recursive(true).create(path) };
        make().with_context(|| format!("create directory {}", path.display()))?;
        Self::open_at(path)
    }

    /// Makes a directory below; its parents are there.
    pub(crate) fn make(&self, name: &str) -> Result<()> {
        let (parent, last) = self.parent(name)?;
        match rustix::fs::mkdirat(&parent, last, Mode::from(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("create directory {name}")),
        }
    }

    /// Whether there is a regular file of this name and size.
    pub(crate) fn has(&self, name: &str, size: u64) -> Result<bool> {
        Ok(match self.open(name)? {
            Some(file) => file.metadata().with_context(|| format!("stat {name}"))?.len() == size,
            None => false,
        })
    }

    /// A small file's content, if there is such a file.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
        ensure!(bytes.len() as u64 <= limit, "{name} is larger than the limit of {limit} bytes");
        Ok(Some(bytes))
    }

    /// Opens a regular file. Links inside are followed, but not out.
    pub(crate) fn open(&self, name: &str) -> Result<Option<File>> {
        let opened = rustix::fs::openat2(
            &self.0,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        match opened {
            Ok(fd) => {
                let file = File::from(fd);
                let metadata = file.metadata().with_context(|| format!("stat {name}"))?;
                ensure!(metadata.is_file(), "{name} is not a regular file");
                Ok(Some(file))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {name}")),
        }
    }

    /// Writes a file: wholly, or not at all.
    pub(crate) fn write(&self, name: &str, mut content: impl Read) -> Result<()> {
        let (parent, last) = self.parent(name)?;
        let staged = format!(".{last}.{}", std::process::id());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, &staged, flags, Mode::from(0o644));
        let mut file = File::from(file.with_context(|| format!("create {name}"))?);
        let mut fill = || -> Result<()> {
            let mut buffer = vec![0; BUFFER];
            loop {
                let n = content.read(&mut buffer).context("read")?;
                if n == 0 {
                    break;
                }
                file.write_all(&buffer[..n]).context("write")?;
            }
            file.sync_all().context("write")?;
            rustix::fs::renameat(&parent, &staged, &parent, last).context("rename")?;
            Ok(())
        };
        let filled = fill().with_context(|| format!("write {name}"));
        if filled.is_err() {
            // What stopped the write is what the user is told.
            let _ = rustix::fs::unlinkat(&parent, &staged, AtFlags::empty());
        }
        filled
    }

    fn parent<'a>(&self, name: &'a str) -> Result<(OwnedFd, &'a str)> {
        let (parent, last) = name.rsplit_once('/').unwrap_or((".", name));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let parent = rustix::fs::openat2(&self.0, parent, flags, Mode::empty(), resolve)
            .with_context(|| format!("open directory of {name}"))?;
        Ok((parent, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir(&outside).unwrap();
        let directory = Directory::create(&inside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("blobs")).unwrap();
        std::os::unix::fs::symlink(outside.join("x"), inside.join("file")).unwrap();
        assert!(directory.write("blobs/a", &b"x"[..]).is_err());
        directory.write("file", &b"x"[..]).unwrap();
        assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(directory.has("file", 1).unwrap());
        assert!(!directory.has("file", 2).unwrap());
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 2);
    }
}
