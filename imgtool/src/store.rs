//! The image store: an OCI image layout that other tools read as it lies,
//! with unpacked layers, bundles and a staging directory beside it.
//!
//! Nothing gets its final name before it is whole and verified: staging,
//! fsync, rename, fsync of the directory; `index.json` always last.

mod arrivals;
mod blob;
pub(crate) mod cache;
mod cgroups;
mod elsewhere;
mod gc;
mod index;
mod lock;
mod partial;
mod resolve;
mod verify;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use tempfile::NamedTempFile;

pub(crate) use arrivals::Arrivals;
pub(crate) use blob::{BlobWriter, StagedBlob};
pub(crate) use elsewhere::{ELSEWHERE, Elsewhere};
pub(crate) use gc::chain_ids;
pub(crate) use index::entry_name;
pub(crate) use lock::{Lock, RUN_PREFIX};
pub(crate) use partial::Partial;
pub(crate) use resolve::{Image, Selection, platforms};

use crate::digest::{Digest, HashingReader};
use crate::manifest::{Descriptor, Index};
use crate::userns;

const LAYOUT_FILE: &str = "oci-layout";
/// The content of `oci-layout`.
pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// What a store consists of; a directory with other things in it is not ours to fill.
const MEMBERS: [&str; 9] = [
    LAYOUT_FILE,
    "index.json",
    "blobs",
    "layers",
    "bundles",
    "build",
    "volumes",
    "staging",
    "lock",
];

/// An open store. Cheap; holds no lock by itself.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `root`, or where the environment says, and makes it
    /// if it does not exist.
    pub(crate) fn open(root: Option<&Path>) -> Result<Self> {
        let root = match root {
            Some(root) => root.to_owned(),
            None => default_root()?,
        };
        let root = std::path::absolute(&root)
            .with_context(|| format!("resolve store path {}", root.display()))?;
        let store = Self { root };
        if !store.root.join(LAYOUT_FILE).exists() {
            store.initialise().with_context(|| format!("create store {}", store.root.display()))?;
        }
        Ok(store)
    }

    /// The directory it lies in; absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where unpacked layers lie, by chain ID: `layers/sha256/<hex>/diff`; without root in a directory
    /// beside it.
    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers").join(userns::kind_of_trees())
    }

    /// Where what is not finished lies; on the same file system as all the rest.
    pub(crate) fn staging_dir(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// The same, made if it is missing.
    pub(crate) fn make_staging(&self) -> Result<PathBuf> {
        let staging = self.staging_dir();
        if !staging.is_dir() {
            make_dir(&staging)?;
            spread(&staging);
        }
        Ok(staging)
    }

    /// A new empty directory in staging, removed on drop unless renamed away
    /// with `keep`. Hold a lock while it exists.
    pub(crate) fn staging_subdirectory(&self) -> Result<tempfile::TempDir> {
        self.staging_subdirectory_as("dir-")
    }

    /// The same with a name that begins so.
    pub(crate) fn staging_subdirectory_as(&self, prefix: &str) -> Result<tempfile::TempDir> {
        let staging = self.make_staging()?;
        tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&staging)
            .with_context(|| format!("create directory in {}", staging.display()))
    }

    /// Whether the blob is here (which implies: whole and verified).
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// How large the blob is, if it is here.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest)).ok().map(|metadata| metadata.len())
    }

    /// Opens a blob for reading. Bytes are not verified again: use
    /// [`Store::read_blob`] for documents.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).with_context(|| format!("open blob {digest} in {}", self.root.display()))
    }

    /// Reads a small blob, checking size and digest against its descriptor.
    pub(crate) fn read_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let digest = &descriptor.digest;
        ensure!(
            descriptor.size <= limit,
            "blob {digest} of {} bytes is larger than the limit of {limit}",
            descriptor.size
        );
        let mut reader = HashingReader::new(
            self.open_blob(digest)?.take(descriptor.size + 1),
            digest.algorithm(),
        );
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).with_context(|| format!("read blob {digest}"))?;
        let (actual, size) = reader.finish();
        ensure!(
            size == descriptor.size && actual == *digest,
            "blob {digest} in {} is damaged",
            self.root.display()
        );
        Ok(bytes)
    }

    /// How many blobs there are, and their bytes.
    pub(crate) fn blob_usage(&self) -> Result<(usize, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for algorithm in crate::digest::Algorithm::ALL {
            let directory = self.blob_dir(algorithm);
            let mut list = || -> io::Result<()> {
                for entry in fs::read_dir(&directory)? {
                    bytes += entry?.metadata()?.len();
                    count += 1;
                }
                Ok(())
            };
            match list() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.with_context(|| format!("read {}", directory.display()))?,
            }
        }
        Ok((count, bytes))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blob_dir(digest.algorithm()).join(digest.hex())
    }

    fn blob_dir(&self, algorithm: crate::digest::Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    /// Writes `bytes` to a file of the root directory: staging, fsync, rename,
    /// fsync of the directory.
    fn replace_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let write = || -> Result<()> {
            let staged = self.stage_file(bytes)?;
            staged.as_file().sync_all()?;
            self.place_file(name, staged)
        };
        write().with_context(|| format!("write {}", self.root.join(name).display()))
    }

    /// Writes what is to be a file of the root directory.
    fn stage_file(&self, bytes: &[u8]) -> Result<NamedTempFile> {
        let staging = self.make_staging()?;
        let mut file = tempfile::Builder::new().prefix("file-").tempfile_in(&staging)?;
        file.write_all(bytes)?;
        Ok(file)
    }

    /// Makes it that file. It is on the disk already.
    fn place_file(&self, name: &str, staged: NamedTempFile) -> Result<()> {
        let path = self.root.join(name);
        staged
            .persist(&path)
            .map_err(io::Error::from)
            .and_then(|_| sync_dir(&self.root))
            .with_context(|| format!("write {}", path.display()))
    }

    fn initialise(&self) -> Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            if !MEMBERS.iter().any(|member| name == *member) {
                bail!("directory is not empty and not an image store");
            }
        }
        // Others may make the same store at the same moment, and clear what nobody works on.
        let _lock = self.lock_shared()?;
        let _index = self.lock_index()?;
        for algorithm in crate::digest::Algorithm::ALL {
            make_dir(&self.blob_dir(algorithm))?;
        }
        if !self.root.join("index.json").exists() {
            self.replace_file("index.json", &serde_json::to_vec(&Index::empty())?)?;
        }
        self.replace_file(LAYOUT_FILE, LAYOUT.as_bytes())
    }
}

fn default_root() -> Result<PathBuf> {
    let from_environment = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(root) = from_environment("IMGTOOL_ROOT") {
        return Ok(root.into());
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/imgtool".into());
    }
    if let Some(data) = from_environment("XDG_DATA_HOME") {
        return Ok(PathBuf::from(data).join("imgtool"));
    }
    match from_environment("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/imgtool")),
        None => bail!("no place for the store: none of IMGTOOL_ROOT, XDG_DATA_HOME, HOME is set"),
    }
}

/// Makes a directory of the store, with those above it, readable by its owner only.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("create directory {}", path.display()))
}

/// What is in a directory, which need not be there, in no order.
pub(crate) fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    let list = || -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.with_context(|| format!("read {}", directory.display())),
    }
}

/// Tells the file system that the directories made in here have nothing to do with each other. ext4
/// begins each in another part of the disk then, so that layers unpacked side by side do not compete
/// for one part's inodes, nor search among those of a layer that was removed a moment ago.
fn spread(directory: &Path) {
    let set = || -> io::Result<()> {
        let directory = File::open(directory)?;
        let flags = ioctl_getflags(&directory)?;
        Ok(ioctl_setflags(&directory, flags | IFlags::TOPDIR)?)
    };
    // Nothing but speed hangs on it, and not every file system has such a thing.
    let _ = set();
}

/// Makes the names in a directory outlive a power cut.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests;
