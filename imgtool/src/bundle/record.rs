//! Where a bundle came from, as `imgtool.json` in it says.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::userns::Maps;

/// The record's name within a bundle.
pub(crate) const FILE: &str = "imgtool.json";
/// What a plain tree was like when it was made, within a bundle.
pub(crate) const TREE: &str = "rootfs.list";
/// How names of files begin that are not whole yet.
pub(super) const UNFINISHED: &str = ".writing-";
/// No record is larger; a file that is was not written by us.
const MAX_BYTES: u64 = 4 << 20;

/// The origin of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Says which registration is this bundle's.
    pub(crate) id: String,
    /// The image as the user named it, in full.
    pub(crate) image: String,
    pub(crate) manifest: Descriptor,
    /// The image ID.
    pub(crate) config: Digest,
    /// The layers' identities in the store, bottom first.
    pub(crate) chain_ids: Vec<Digest>,
    pub(crate) created: String,
    pub(crate) mode: Mode,
    /// What a runtime makes beneath `rootfs/` only to mount on it, since the image lacks it: no
    /// content of the container's.
    #[serde(default)]
    pub(crate) mount_points: Vec<String>,
    /// The ids of a container that has other ones than we see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<Maps>,
    /// Where volumes are mounted in the container, for others to have them too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<String>,
    /// How large the shared memory is that lies in the bundle, for other containers to join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shared_memory_bytes: Option<i64>,
}

/// How `rootfs/` is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// A mount of the store's layers with `upper/` above them.
    Overlay,
    /// A tree of its own.
    Copy,
}

impl Record {
    /// Reads the record of the bundle at `directory`.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let mut bytes = Vec::new();
        match fs::File::open(&path) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("no such bundle: {} has no {FILE}", directory.display())
            }
            Err(error) => Err(error),
        }
        .with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(FILE), self)
    }
}

/// Replaces a file by a document, so that no reader ever sees half of it.
pub(super) fn write_json(path: &Path, document: &impl Serialize) -> Result<()> {
    let parent = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
    let mut bytes =
        serde_json::to_vec_pretty(document).with_context(|| format!("write {}", path.display()))?;
    bytes.push(b'\n');
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(parent)?;
        std::io::Write::write_all(&mut file, &bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}
