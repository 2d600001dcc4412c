//! What the plugin `tuning` changed of containers, as it was before.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::files::{entries, read_json, remove, remove_directory, write_json};
use super::{Place, Store};
use crate::netlink::link::Change;

/// What a container's link and its namespace were before they were changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tuned {
    /// Whose network changed it.
    pub(crate) origin: String,
    /// Where the namespace is, and which it is.
    pub(crate) place: String,
    pub(crate) link: Change,
    /// Settings by the names of their files, each with its value.
    pub(crate) settings: Vec<(String, String)>,
}

impl Store {
    fn tuned_path(&self, id: &str, interface: &str) -> PathBuf {
        self.root.join("tuned").join(format!("{id},{interface}.json"))
    }

    /// What was changed of a container's interface.
    pub(crate) fn tuned(&self, id: &str, interface: &str) -> Result<Option<Tuned>> {
        read_json(&self.tuned_path(id, interface))
    }

    /// Records what is about to be changed.
    pub(crate) fn save_tuned(&self, id: &str, interface: &str, tuned: &Tuned) -> Result<()> {
        write_json(&self.tuned_path(id, interface), tuned)
    }

    /// Forgets it, with what a killed command left of writing it.
    pub(crate) fn forget_tuned(&self, id: &str, interface: &str) -> Result<()> {
        let path = self.tuned_path(id, interface);
        remove(&path.with_extension("new"))?;
        remove(&path)?;
        remove_directory(&self.root.join("tuned"))
    }

    /// Of whom something was changed: (id, interface).
    pub(crate) fn tuned_ones(&self) -> Result<Vec<(String, String)>> {
        let names = entries(&self.root.join("tuned"))?;
        let names = names.iter().filter_map(|name| name.strip_suffix(".json"));
        let pairs = names.filter_map(|name| name.split_once(','));
        Ok(pairs.map(|(id, interface)| (id.to_owned(), interface.to_owned())).collect())
    }

    /// Forgets those whose namespace is gone.
    pub(crate) fn forget_tuned_dead(&self) -> Result<()> {
        for (id, interface) in self.tuned_ones()? {
            let tuned = self.tuned(&id, &interface)?;
            let place = tuned.and_then(|tuned| Place::parse(&tuned.place));
            if !place.is_some_and(|place| place.is_alive()) {
                self.forget_tuned(&id, &interface)?;
            }
        }
        Ok(())
    }
}
