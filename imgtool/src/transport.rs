//! Where images come from and go to. Each kind of place says what documents
//! and blobs it has; `copy` decides what is moved.

pub(crate) mod archive;
mod auth;
pub(crate) mod docker_archive;
mod http;
pub(crate) mod layout;
pub(crate) mod registry;
pub(crate) mod writer;

use anyhow::Result;

use crate::manifest::Descriptor;
use crate::store::Store;

/// A place that images are read from.
pub(crate) trait Source {
    /// The bytes of a manifest or an index, verified against its descriptor,
    /// or `None` if the place does not have it.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>>;

    /// Whether the place has the blob, as far as can be told without reading it.
    fn has_blob(&self, descriptor: &Descriptor) -> bool;

    /// Brings blobs into the store, each verified against its descriptor.
    /// None of them is there yet.
    fn fetch_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()>;

    /// Told of each layer that is not fetched since the store has it.
    fn already_here(&self, _layer: &Descriptor) -> Result<()> {
        Ok(())
    }
}
