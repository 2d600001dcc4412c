//! Where images come from and go to. Each kind of place says what documents
//! and blobs it has; `copy` decides what is moved.

pub(crate) mod archive;
pub(crate) mod auth;
pub(crate) mod credentials;
pub(crate) mod dir;
mod directory;
pub(crate) mod docker_archive;
mod endpoints;
pub(crate) mod http;
pub(crate) mod layout;
mod parallel;
pub(crate) mod place;
pub(crate) mod policy;
pub(crate) mod registry;
pub(crate) mod web;
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
}

/// A place that images are written to.
pub(crate) trait Destination {
    /// Those of the blobs that it does not have and can't get by itself.
    fn lacks(&mut self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>>;

    /// Takes blobs out of the store, all of which are there.
    fn put_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()>;

    /// Whether it has a manifest or index with all that belongs to it.
    fn has_document(&mut self, descriptor: &Descriptor) -> Result<bool>;

    /// Takes a manifest or an index, after all that it names. The one that the whole transfer is
    /// about comes last and is at the top.
    fn put_document(&mut self, descriptor: &Descriptor, bytes: &[u8], is_top: bool) -> Result<()>;
}

/// A destination that stays whose it is.
impl<D: Destination + ?Sized> Destination for &mut D {
    fn lacks(&mut self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        (**self).lacks(blobs)
    }

    fn put_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        (**self).put_blobs(store, blobs)
    }

    fn has_document(&mut self, descriptor: &Descriptor) -> Result<bool> {
        (**self).has_document(descriptor)
    }

    fn put_document(&mut self, descriptor: &Descriptor, bytes: &[u8], is_top: bool) -> Result<()> {
        (**self).put_document(descriptor, bytes, is_top)
    }
}
