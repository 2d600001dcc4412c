//! Registries, by the distribution specification.

mod access;
mod body;
mod download;
mod hub;
mod listing;
mod push;
mod repository;
mod session;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};

use super::Source;
use super::endpoints::{Endpoint, Registries};
use super::http::{Cancel, Failure};
use crate::digest::Digest;
use crate::manifest::{Descriptor, MAX_MANIFEST_SIZE};
use crate::output;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Arrivals, Store};

pub(crate) use access::Access;
pub(crate) use hub::{Found, search_hub};
pub(crate) use listing::catalog;
pub(crate) use push::{ByDigest, Push};
pub(crate) use repository::{Action, Repository};
pub(crate) use session::Session;
pub(crate) use upload::Upload;

/// One repository of a registry, to read images from.
pub(crate) struct Registry<'a> {
    store: &'a Store,
    access: &'a Access,
    /// Where else it may be found, next first.
    other_endpoints: Vec<Endpoint>,
    repository: Repository,
    progress: &'a Progress,
    cancel: Cancel,
    /// Whether it was the network that failed, so that trying again later is
    /// worth keeping what came so far.
    interrupted: AtomicBool,
    /// Manifests that were read already.
    documents: HashMap<Digest, Vec<u8>>,
    arrivals: Arc<Arrivals>,
}

impl<'a> Registry<'a> {
    /// Finds out how to talk to the registry of `name`, or to a mirror of it.
    pub(crate) fn open(
        store: &'a Store,
        name: &Reference,
        access: &'a Access,
        progress: &'a Progress,
    ) -> Result<Self> {
        let registries = Registries::read(access.registries.as_deref(), access.hosts.as_deref())?;
        let mut endpoints = registries.for_pull(name)?;
        loop {
            let endpoint = endpoints.remove(0);
            match Repository::at(&endpoint, name, access, Action::Pull) {
                Ok(repository) => {
                    return Ok(Self {
                        store,
                        access,
                        other_endpoints: endpoints,
                        repository,
                        progress,
                        cancel: Cancel::default(),
                        interrupted: AtomicBool::new(false),
                        documents: HashMap::new(),
                        arrivals: Arc::default(),
                    });
                }
                Err(error) if !endpoints.is_empty() => mirror_failed(&endpoint.host, &error),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the manifest or index that the name stands for now, where it is found first.
    pub(crate) fn resolve(&mut self) -> Result<Descriptor> {
        let reference = Repository::reference_of(&self.repository.name)?;
        let (descriptor, bytes) = loop {
            match self.repository.manifest(&reference) {
                Ok(found) => break found,
                Err(error) if self.other_endpoints.is_empty() => return Err(error),
                Err(error) => {
                    mirror_failed(&self.repository.session.host, &error);
                    let endpoint = self.other_endpoints.remove(0);
                    let name = &self.repository.name;
                    self.repository = Repository::at(&endpoint, name, self.access, Action::Pull)?;
                }
            }
        };
        self.documents.insert(descriptor.digest.clone(), bytes);
        Ok(descriptor)
    }

    /// Says what is pulled from where.
    pub(crate) fn announce(&self) -> Result<()> {
        let reference = Repository::reference_of(&self.repository.name)?;
        self.progress.say(&format!("{reference}: Pulling from {}", self.repository.name.path()))
    }

    /// Waits before another attempt, or says why there is none.
    fn wait(&self, failure: Failure, failures: &mut u32) -> Result<()> {
        let patience = self.repository.session.patience;
        self.cancel.pause(failure, failures, patience).map_err(|(error, interrupted)| {
            self.interrupted.fetch_or(interrupted, Ordering::AcqRel);
            error
        })
    }

    /// Whether a later pull can go on from what this one left.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// What is on its way.
    pub(crate) fn arrivals(&self) -> Arc<Arrivals> {
        Arc::clone(&self.arrivals)
    }

    /// The repository that it reads.
    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }
}

fn mirror_failed(host: &str, error: &anyhow::Error) {
    output::say(&format!("mirror {host}: {error:#}"));
}

impl Source for Registry<'_> {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        let digest = &descriptor.digest;
        if let Some(bytes) = self.documents.get(digest) {
            return Ok(Some(bytes.clone()));
        }
        if self.store.has_blob(digest) {
            return self.store.read_blob(descriptor, MAX_MANIFEST_SIZE).map(Some);
        }
        ensure!(
            descriptor.size <= MAX_MANIFEST_SIZE,
            "manifest {digest} of {} bytes is larger than the limit",
            descriptor.size
        );
        let (found, bytes) = self.repository.manifest(&digest.to_string())?;
        ensure!(
            found.size == descriptor.size,
            "manifest {digest} has {} bytes, its descriptor says {}",
            found.size,
            descriptor.size
        );
        self.documents.insert(digest.clone(), bytes.clone());
        Ok(Some(bytes))
    }

    fn has_blob(&self, _descriptor: &Descriptor) -> bool {
        true
    }

    fn fetch_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        self.fetch_all(store, blobs)
            .with_context(|| format!("from {}", self.repository.session.host))
    }
}

#[cfg(test)]
mod tests;
