//! Whether the store is whole: every blob what its name says, every reference to something there.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};

use anyhow::{Context, Result};

use super::{Store, chain_ids, entry_name, gc};
use crate::digest::{Algorithm, Digest, HashingReader};
use crate::manifest::{Descriptor, Document, MAX_INDEX_DEPTH};

const BUFFER: usize = 256 << 10;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) images: usize,
    pub(crate) blobs: usize,
    pub(crate) problems: Vec<String>,
}

impl Store {
    /// Reads all blobs, and follows all references of the index.
    pub(crate) fn verify(&self) -> Result<Report> {
        let mut report = Report::default();
        for algorithm in Algorithm::ALL {
            for digest in gc::digests_in(&self.blob_dir(algorithm), algorithm)? {
                report.blobs += 1;
                let actual = self.hash(&digest)?;
                if actual != digest {
                    report.problems.push(format!("blob {digest} is damaged: it has {actual}"));
                }
            }
        }
        let mut seen = BTreeSet::new();
        let index = self.index()?;
        // However many names each has.
        let images: BTreeSet<_> = index.manifests.iter().map(|entry| &entry.digest).collect();
        report.images = images.len();
        for entry in &index.manifests {
            let name = entry_name(entry);
            let name = name.map_or_else(|| entry.digest.to_string(), |name| name.familiar());
            self.follow(entry, &name, true, 0, &mut seen, &mut report.problems);
        }
        Ok(report)
    }

    fn hash(&self, digest: &Digest) -> Result<Digest> {
        let file = BufReader::with_capacity(BUFFER, self.open_blob(digest)?);
        let mut reader = HashingReader::new(file, digest.algorithm());
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(reader.finish().0),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(|| format!("read blob {digest}")),
            }
        }
    }

    /// An index may name images that were not pulled; a manifest needs all it names.
    fn follow(
        &self,
        descriptor: &Descriptor,
        name: &str,
        needed: bool,
        depth: usize,
        seen: &mut BTreeSet<Digest>,
        problems: &mut Vec<String>,
    ) {
        let digest = &descriptor.digest;
        if !self.has_blob(digest) {
            if needed {
                problems.push(format!("{name}: {digest} is missing"));
            }
            return;
        }
        if depth > MAX_INDEX_DEPTH || !seen.insert(digest.clone()) {
            return;
        }
        match self.document(descriptor) {
            Ok(Document::Index(index)) => {
                for child in &index.manifests {
                    self.follow(child, name, false, depth + 1, seen, problems);
                }
            }
            Ok(Document::Manifest(manifest)) => {
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    match self.open_blob(&blob.digest).and_then(|file| Ok(file.metadata()?)) {
                        Ok(metadata) if metadata.len() == blob.size => {}
                        Ok(metadata) => problems.push(format!(
                            "{name}: {} has {} bytes, the manifest says {}",
                            blob.digest,
                            metadata.len(),
                            blob.size
                        )),
                        Err(_) => problems.push(format!("{name}: {} is missing", blob.digest)),
                    }
                }
                if let Ok(image) = self.image(descriptor) {
                    let chain = chain_ids(&image.diff_ids);
                    // A layer may not be unpacked; one that is has its directory.
                    for id in chain {
                        let home = self.layers_dir().join(id.hex());
                        if home.exists() && !home.join("diff").is_dir() {
                            problems.push(format!("{name}: unpacked layer {id} is damaged"));
                        }
                    }
                }
            }
            Err(error) => problems.push(format!("{name}: {error:#}")),
        }
    }
}
