//! Caches that go from machine to machine: what steps made, by their keys, as a manifest whose config
//! lists the steps and whose layers are theirs. A layer is brought when a step asks for it, and is
//! taken only if it is what the list says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::engine::lock;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::compress::{self, BUFFER};
use crate::manifest::{Descriptor, Document, Manifest, media_type};
use crate::store::cache::{self, Record};
use crate::store::{Store, chain_ids};
use crate::transport::Source;

/// The kind of the list.
const STEPS: &str = "application/vnd.imgtool.build.cache.v1+json";
/// Larger than any list is: a step takes less than a kilobyte.
const MAX_LIST: u64 = 32 << 20;

/// What a build may take from elsewhere, and what it has used itself.
#[derive(Default)]
pub(crate) struct Caches<'a> {
    pub(crate) from: Mutex<Vec<Shared<'a>>>,
    pub(crate) used: Mutex<BTreeMap<Digest, Record>>,
}

/// A cache of another build.
pub(crate) struct Shared<'a> {
    source: Box<dyn Source + Send + 'a>,
    steps: BTreeMap<Digest, Record>,
}

#[derive(Serialize, Deserialize)]
struct List {
    steps: BTreeMap<Digest, Record>,
}

impl<'a> Shared<'a> {
    /// Reads the list of what there is.
    pub(crate) fn read(
        store: &Store,
        mut source: Box<dyn Source + Send + 'a>,
        entry: &Descriptor,
    ) -> Result<Self> {
        let bytes = source.document(entry)?.context("it is not there")?;
        let Document::Manifest(manifest) = Document::parse(&bytes, &entry.media_type)? else {
            bail!("it is an index of images, and no cache");
        };
        let list = &manifest.config;
        ensure!(list.media_type == STEPS, "it is an image, and no cache");
        if !store.has_blob(&list.digest) {
            source.fetch_blobs(store, std::slice::from_ref(list))?;
        }
        let list = store.read_blob(list, MAX_LIST)?;
        let List { steps } = serde_json::from_slice(&list).context("read the list of steps")?;
        Ok(Self { source, steps })
    }

    /// What the step with this key made above these layers, brought into the store.
    fn bring(&mut self, store: &Store, key: &Digest, below: &[Digest]) -> Result<Option<Record>> {
        let Some(mut record) = self.steps.get(key).cloned() else { return Ok(None) };
        if let Some(made) = &mut record.layer {
            if !store.has_blob(&made.blob.digest) {
                self.source.fetch_blobs(store, std::slice::from_ref(&made.blob))?;
            }
            let found = diff_id(store, &made.blob)?;
            ensure!(
                found == made.diff_id,
                "layer {} unpacks to {found}, and not to {}",
                made.blob.digest,
                made.diff_id
            );
            let all: Vec<Digest> = below.iter().chain([&found]).cloned().collect();
            made.chain_id = chain_ids(&all).pop().unwrap_or(found);
        }
        cache::put(store, key, &record)?;
        Ok(Some(record))
    }
}

impl Caches<'_> {
    /// What the step made elsewhere. A cache that can't be read is told of, and has nothing.
    pub(crate) fn find(
        &self,
        store: &Store,
        key: &Digest,
        below: &[Digest],
        tell: &dyn Fn(&str),
    ) -> Option<Record> {
        for shared in lock(&self.from).iter_mut() {
            match shared.bring(store, key, below) {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(error) => tell(&format!("warning: a step of --cache-from: {error:#}")),
            }
        }
        None
    }

    /// Writes the steps into the store, for whoever carries them on: all of them, or those alone
    /// that these layers came from. Gives the manifest.
    pub(crate) fn write(&self, store: &Store, only: Option<&[Digest]>) -> Result<Descriptor> {
        let wanted: Option<BTreeSet<Digest>> = only.map(|ids| chain_ids(ids).into_iter().collect());
        let is_wanted = |record: &Record| match (&wanted, &record.layer) {
            (Some(wanted), Some(made)) => wanted.contains(&made.chain_id),
            _ => true,
        };
        let used = lock(&self.used);
        let steps: BTreeMap<Digest, Record> = used
            .iter()
            .filter(|(_, record)| is_wanted(record))
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        let mut seen = BTreeSet::new();
        let layers = steps.values().filter_map(|record| record.layer.as_ref());
        let layers = layers.map(|made| &made.blob).filter(|blob| seen.insert(&blob.digest));
        let layers: Vec<Descriptor> = layers.cloned().collect();
        let list = serde_json::to_vec(&List { steps }).context("write the list of steps")?;
        let manifest = Manifest::new(store.write_blob(STEPS, &list)?, layers);
        let bytes = serde_json::to_vec(&manifest).context("write the manifest of the cache")?;
        store.write_blob(media_type::OCI_MANIFEST, &bytes)
    }
}

/// What a layer is unpacked.
fn diff_id(store: &Store, blob: &Descriptor) -> Result<Digest> {
    let mut plain = compress::reader(BufReader::new(store.open_blob(&blob.digest)?))?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; BUFFER];
    loop {
        match plain.read(&mut buffer).with_context(|| format!("unpack layer {}", blob.digest))? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
