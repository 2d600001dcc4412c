//! Where those images of an index lie that are in registries and not here. It stands beside the
//! index's name in `index.json`: the index itself, and so its digest, knows nothing of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Store;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Index};
use crate::reference::Reference;

/// A JSON object: of each digest, the repository.
pub(crate) const ELSEWHERE: &str = "org.imgtool.elsewhere";

/// Repositories by the digests of images in them.
pub(crate) type Elsewhere = BTreeMap<Digest, Reference>;

impl Store {
    /// Gives `name` to an index some of whose images lie elsewhere.
    pub(crate) fn tag_index(
        &self,
        name: &Reference,
        entry: &Descriptor,
        elsewhere: &Elsewhere,
    ) -> Result<()> {
        self.tag(name, entry)?;
        if elsewhere.is_empty() {
            return Ok(());
        }
        let names: BTreeMap<String, String> =
            elsewhere.iter().map(|(digest, name)| (digest.to_string(), name.to_string())).collect();
        let text = serde_json::to_string(&names).context("write names")?;
        self.change_index(|index| {
            for same in index.manifests.iter_mut().filter(|same| same.digest == entry.digest) {
                same.annotations.insert(ELSEWHERE.to_owned(), text.clone());
            }
            Ok(())
        })
    }

    /// What is known of where the images of an index lie; what can't be read is not known.
    pub(crate) fn elsewhere(&self, entry: &Descriptor) -> Result<Elsewhere> {
        let index = self.index()?;
        let Some(text) = known(&index, &entry.digest) else { return Ok(Elsewhere::new()) };
        let names: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
        Ok(names
            .iter()
            .filter_map(|(digest, name)| Some((digest.parse().ok()?, Reference::parse(name).ok()?)))
            .collect())
    }
}

/// What any entry for this digest says.
pub(super) fn known(index: &Index, digest: &Digest) -> Option<String> {
    let same = index.manifests.iter().filter(|entry| entry.digest == *digest);
    same.filter_map(|entry| entry.annotations.get(ELSEWHERE)).next().cloned()
}
