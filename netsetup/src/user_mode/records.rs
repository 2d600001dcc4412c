//! What is attached, in files of the user's own.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Attachment, detach};
use crate::state::Store;
use crate::state::files::{entries, read_json, remove_tree, write_json};

const RECORD: &str = "attachment.json";

/// Where all about a container lies.
pub(super) fn directory(store: &Store, id: &str) -> PathBuf {
    store.root().join("user").join(id)
}

pub(super) fn ids(store: &Store) -> Result<Vec<String>> {
    entries(&store.root().join("user"))
}

pub(super) fn read(store: &Store, id: &str) -> Result<Option<Attachment>> {
    read_json(&directory(store, id).join(RECORD))
}

/// Returns the container's directory.
pub(super) fn write(store: &Store, attachment: &Attachment) -> Result<PathBuf> {
    let directory = directory(store, &attachment.id);
    write_json(&directory.join(RECORD), attachment)?;
    Ok(directory)
}

pub(super) fn remove(store: &Store, id: &str) -> Result<()> {
    remove_tree(&directory(store, id))
}

/// Takes away what is left of containers that are gone.
pub(super) fn collect(store: &Store) -> Result<()> {
    for id in ids(store)? {
        if !read(store, &id)?.is_some_and(|attachment| attachment.is_alive()) {
            detach(store, &id).with_context(|| format!("collect what container {id} left"))?;
        }
    }
    Ok(())
}
