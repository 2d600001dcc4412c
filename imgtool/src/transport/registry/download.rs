//! Blobs of a registry: several at a time, and on from where a connection broke.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use ureq::Body;
use ureq::http::Response;

use super::super::http::Failure;
use super::Registry;
use crate::manifest::{Descriptor, media_type};
use crate::progress::Item;
use crate::store::{Partial, Store};

/// A transfer that got this far between two failures is making headway.
const HEADWAY: u64 = 64 << 10;
const PARALLEL: usize = 4;
const BUFFER: usize = 256 << 10;

impl Registry<'_> {
    /// Brings all of them into the store; the first failure stops the others.
    pub(super) fn fetch_all(&self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let first_error: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let work = || {
            while !self.cancel.is_cancelled() {
                let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return;
                };
                let fetch = || {
                    let item = self.progress.begin(blob, is_layer(blob))?;
                    self.download(store, blob, &item)
                        .with_context(|| format!("fetch {}", blob.digest))?;
                    item.finish()
                };
                if let Err(error) = fetch() {
                    self.cancel.cancel();
                    first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL.min(blobs.len()) {
                // Where no more threads may be started fewer blobs come at a time.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn download(&self, store: &Store, blob: &Descriptor, item: &Item) -> Result<()> {
        let mut partial = store.partial(blob)?;
        let resumed = partial.length() > 0;
        if let Err(error) = self.fill(&mut partial, blob, item) {
            if self.is_interrupted() {
                partial.keep()?;
            }
            return Err(error);
        }
        match partial.commit() {
            // What an earlier process left may be what is wrong.
            Err(_) if resumed => {
                let mut partial = store.partial(blob)?;
                self.fill(&mut partial, blob, item)?;
                partial.commit()
            }
            result => result,
        }
    }

    /// Fetches what is missing, going on after broken connections.
    fn fill(&self, partial: &mut Partial, blob: &Descriptor, item: &Item) -> Result<()> {
        let mut failures = 0;
        while partial.length() < blob.size {
            let before = partial.length();
            match self.stream(partial, blob, item) {
                Ok(()) => break,
                Err(failure) => {
                    if partial.length() >= before.saturating_add(HEADWAY) {
                        failures = 0;
                    }
                    self.wait(failure, &mut failures)?;
                }
            }
        }
        Ok(())
    }

    fn stream(&self, partial: &mut Partial, blob: &Descriptor, item: &Item) -> Result<(), Failure> {
        let url = self.url("blobs", &blob.digest.to_string());
        let range = format!("bytes={}-", partial.length());
        let headers = [("Range", range.as_str())];
        let headers = if partial.length() > 0 { &headers[..] } else { &[] };
        let mut response = self.request(&url, headers)?;
        if !resumes_at(&response, partial.length()) {
            partial.restart()?;
        }
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.cancel.is_cancelled() {
                return Err(Failure::Final(anyhow!("cancelled")));
            }
            let n = match reader.read(&mut buffer) {
                Ok(n) => n,
                Err(error) => {
                    let error = anyhow::Error::new(error).context(format!("GET {url}"));
                    return Err(Failure::Again(error, None));
                }
            };
            if n == 0 {
                break;
            }
            partial.write(&buffer[..n])?;
            item.set(partial.length());
        }
        if partial.length() < blob.size {
            return Err(Failure::Again(
                anyhow!(
                    "GET {url}: connection ended after {} of {} bytes",
                    partial.length(),
                    blob.size
                ),
                None,
            ));
        }
        Ok(())
    }
}

/// Configs come with the layers but are not worth a line.
fn is_layer(blob: &Descriptor) -> bool {
    !matches!(blob.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
}

/// Whether the body begins at `offset`; otherwise it begins at 0.
fn resumes_at(response: &Response<Body>, offset: u64) -> bool {
    if offset == 0 {
        return true;
    }
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    response.status() == 206
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}
