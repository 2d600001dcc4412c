//! Blobs of a registry: several at a time, and on from where a connection broke.

use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ureq::Body;
use ureq::http::{Method, Response};

use super::super::http::{Call, Failure, Url};
use super::super::parallel::for_each;
use super::Registry;
use crate::manifest::Descriptor;
use crate::progress::{Direction, Item};
use crate::store::{Partial, Store};

/// A transfer that got this far between two failures is making headway.
const HEADWAY: u64 = 64 << 10;
const BUFFER: usize = 256 << 10;
/// As many bytes have to come in the time that a server may be silent.
const SLOWEST: usize = 1024;

impl Registry<'_> {
    /// Brings all of them into the store; the first failure stops the others.
    pub(super) fn fetch_all(&self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        for_each(blobs, &self.cancel, |blob| {
            let item = self.progress.begin(blob, blob.is_layer(), Direction::Pull)?;
            self.download(store, blob, &item).with_context(|| format!("fetch {}", blob.digest))?;
            item.finish()
        })
    }

    fn download(&self, store: &Store, blob: &Descriptor, item: &Item) -> Result<()> {
        let mut partial = store.partial(blob)?;
        self.arrivals.begin(&blob.digest, partial.reader()?, partial.length());
        let resumed = partial.length() > 0;
        if let Err(error) = self.fill(&mut partial, blob, item) {
            if self.is_interrupted() {
                partial.keep()?;
            }
            return Err(error);
        }
        // Who unpacks it need not wait until it is on the disk.
        let whole = || self.arrivals.whole(&blob.digest);
        match partial.commit(whole) {
            // What an earlier process left may be what is wrong.
            Err(_) if resumed => {
                let mut partial = store.partial(blob)?;
                self.arrivals.begin(&blob.digest, partial.reader()?, partial.length());
                self.fill(&mut partial, blob, item)?;
                partial.commit(whole)
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

    /// The registry's answer, or that of another server where the registry has only its address.
    fn open_blob(&self, call: &Call<'_>, blob: &Descriptor) -> Result<Response<Body>, Failure> {
        let answer = self.repository.ask(call)?;
        if answer.response.status().is_success() {
            return Ok(answer.response);
        }
        let urls = blob.other.get("urls").and_then(|urls| urls.as_array());
        let urls = urls.into_iter().flatten().filter_map(|url| url.as_str());
        if answer.response.status() == 404 {
            for url in urls {
                let elsewhere = Call { url: Url::parse(url)?, ..call.clone() };
                // Such an address is not the registry's: nothing of ours is shown to it.
                let found = self.repository.ask_anonymously(&elsewhere)?;
                if found.response.status().is_success() {
                    return Ok(found.response);
                }
            }
        }
        Err(self.repository.refused(answer))
    }

    fn stream(&self, partial: &mut Partial, blob: &Descriptor, item: &Item) -> Result<(), Failure> {
        let url = self.repository.url("blobs", &blob.digest.to_string());
        let mut call = Call::new(Method::GET, url.clone());
        if partial.length() > 0 {
            call = call.header("Range", format!("bytes={}-", partial.length()));
        }
        let mut response = self.open_blob(&call, blob)?;
        if !resumes_at(&response, partial.length()) {
            partial.restart()?;
            self.arrivals.grown(&blob.digest, 0);
        }
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; BUFFER];
        let mut pace = Pace::new(self.repository.session.patience.silence);
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
            if !pace.keeps_up(n) {
                let error = anyhow!("GET {url}: next to nothing comes");
                return Err(Failure::Again(error, None));
            }
            partial.write(&buffer[..n])?;
            self.arrivals.grown(&blob.digest, partial.length());
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

/// Whether a server sends enough to be waited for: one that sends a byte now and then would keep
/// us for ever.
struct Pace {
    window: Duration,
    since: Instant,
    bytes: usize,
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, since: Instant::now(), bytes: 0 }
    }

    fn keeps_up(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        if self.bytes >= SLOWEST {
            *self = Self::new(self.window);
        }
        self.since.elapsed() <= self.window
    }
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
