//! The tree of a bundle and what it is compared with: the layers beneath its upper directory, or the
//! record of what it was.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bundle::{Mode, ROOTFS, Record, TREE, UPPER};
use crate::layer::diff::Baseline;
use crate::layer::lower::{Lowers, open_directory};
use crate::layer::{self, record};
use crate::store::{Image, Store};
use crate::userns::shift;

/// The largest config.json that is read.
const MAX_BUNDLE_CONFIG: u64 = 16 << 20;

/// A tree that may have changed.
pub(crate) struct Tree {
    pub(crate) root: OwnedFd,
    before: Before,
    /// What is on these paths, from the root and without a slash before them, is no content.
    pub(crate) mount_points: BTreeSet<Vec<u8>>,
}

enum Before {
    Layers(Lowers),
    Recorded(record::Record),
}

impl Tree {
    /// What a container can have changed. The caller holds the bundle and the store's lock.
    pub(crate) fn open(
        store: &Store,
        image: &Image,
        directory: &Path,
        origin: &Record,
        document: &Value,
    ) -> Result<Self> {
        let mount_points = mount_points(Some(document), origin);
        if let Some(ids) = origin.ids.as_ref().filter(|_| origin.mode == Mode::Copy) {
            shift::read_as(ids);
        }
        let (root, before) = match origin.mode {
            Mode::Overlay => {
                let lowers = Lowers::open(&layer::unpack(store, image)?.layers)?;
                (open_directory(&directory.join(UPPER))?, Before::Layers(lowers))
            }
            Mode::Copy => {
                let path = directory.join(TREE);
                let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
                let known = record::Record::read(BufReader::new(file))?;
                (open_directory(&directory.join(ROOTFS))?, Before::Recorded(known))
            }
        };
        Ok(Self { root, before, mount_points })
    }

    /// All there is, compared with nothing, but for what a runtime made to mount on. An overlay
    /// must be mounted.
    pub(crate) fn whole(directory: &Path, origin: &Record) -> Result<Self> {
        if let Some(ids) = &origin.ids {
            shift::read_as(ids);
        }
        Ok(Self {
            root: open_directory(&directory.join(ROOTFS))?,
            before: Before::Recorded(record::Record::default()),
            mount_points: mount_points(None, origin),
        })
    }

    pub(crate) fn baseline(&self) -> Baseline<'_> {
        match &self.before {
            Before::Layers(lowers) => Baseline::Layers(lowers),
            Before::Recorded(record) => Baseline::Record(record),
        }
    }
}

/// The configuration of the bundle at `directory`.
pub(crate) fn bundle_config(directory: &Path) -> Result<Value> {
    let path = directory.join("config.json");
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_BUNDLE_CONFIG).read_to_end(&mut bytes))
        .with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

/// Where something is mounted in the container by its configuration, and what a runtime made to mount on although it
/// may not be mounted any more.
fn mount_points(document: Option<&Value>, origin: &Record) -> BTreeSet<Vec<u8>> {
    let mounts = document.and_then(|document| document["mounts"].as_array()).into_iter().flatten();
    let mounted = mounts.filter_map(|mount| mount["destination"].as_str());
    let made = origin.mount_points.iter().map(String::as_str);
    let ends_there = |path: &&str| {
        !origin
            .mount_points
            .iter()
            .any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    };
    mounted
        .chain(made.filter(ends_there))
        .map(|path| {
            let parts: Vec<&str> =
                path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            parts.join("/").into_bytes()
        })
        .filter(|path| !path.is_empty())
        .collect()
}
