//! Blobs into a registry: by reference to another repository of it where that
//! is possible, else in one piece, or in chunks where the user says so.

use std::io::Read;

use anyhow::{Context, Result, anyhow};
use ureq::http::Method;

use super::super::http::{Answer, Call, Failure, Payload, Url};
use super::body::header;
use super::repository::Repository;
use crate::digest::Digest;
use crate::manifest::Descriptor;

/// Chunks of this size and more are sent without asking what the registry's smallest is.
const MAX_CHUNK: u64 = 1 << 40;

/// Opens a blob's content at an offset.
pub(crate) type Content<'a> = &'a dyn Fn(u64) -> Result<Box<dyn Read>>;

/// How blobs are sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Upload {
    /// Bytes of a chunk; all in one by default, since some registries lose what comes after the
    /// first chunk and don't say so.
    pub(crate) chunk: Option<u64>,
}

impl Repository {
    /// Has the registry take a blob from another of its repositories. False if it does not.
    pub(crate) fn mount(&self, blob: &Descriptor, from: &str) -> Result<bool> {
        let url = self
            .url("blobs", "uploads/")
            .with_query("mount", &blob.digest.to_string())
            .with_query("from", from);
        let answer = self.persist(|| self.ask_also(&Call::new(Method::POST, url.clone()), from))?;
        match answer.response.status().as_u16() {
            201 => Ok(true),
            202 => {
                // It began an upload instead; one that is left open ends by itself some day.
                if let Ok(location) = self.location(&answer) {
                    let _ = self.ask(&Call::new(Method::DELETE, location));
                }
                Ok(false)
            }
            // It may not be readable for us, or the registry does not know what this is.
            400..=499 => Ok(false),
            _ => Err(self.refused(answer).into_error()),
        }
    }

    /// Sends a blob; all of it again if that fails in between.
    pub(crate) fn upload(
        &self,
        blob: &Descriptor,
        content: Content<'_>,
        how: Upload,
    ) -> Result<()> {
        self.persist(|| self.upload_once(blob, content, how))
            .with_context(|| format!("push {}", blob.digest))
    }

    fn upload_once(
        &self,
        blob: &Descriptor,
        content: Content<'_>,
        how: Upload,
    ) -> Result<(), Failure> {
        let begin = Call::new(Method::POST, self.url("blobs", "uploads/"));
        let answer = self.request(&begin)?;
        let smallest = header(&answer.response, "oci-chunk-min-length")
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(1);
        let mut location = self.location(&answer)?;
        if blob.size > 0 {
            let chunk = how.chunk.map_or(MAX_CHUNK, |chunk| chunk.max(smallest).max(1));
            location = self.send_content(location, blob.size, content, chunk)?;
        }
        let end = location.with_query("digest", &blob.digest.to_string());
        let call = Call::new(Method::PUT, end).header("Content-Type", "application/octet-stream");
        let answer = self.request(&call)?;
        match header(&answer.response, "docker-content-digest") {
            Some(text) if text.parse::<Digest>().ok().as_ref() == Some(&blob.digest) => Ok(()),
            Some(text) => Err(self.malformed(&format!("another digest for the blob: {text:?}"))),
            None if self.has_blob(blob)? => Ok(()),
            None => Err(self.malformed("that the blob is stored, and does not have it")),
        }
    }

    fn send_content(
        &self,
        begin: Url,
        size: u64,
        content: Content<'_>,
        chunk: u64,
    ) -> Result<Url, Failure> {
        let (mut location, mut sent) = (begin, 0);
        let mut refusals = 0;
        while sent < size {
            let length = chunk.min(size - sent);
            let from = sent;
            let open = || Ok(Box::new(content(from)?.take(length)) as Box<dyn Read>);
            let mut call = Call::new(Method::PATCH, location.clone())
                .header("Content-Type", "application/octet-stream")
                .payload(Payload::Stream(&open, length));
            if chunk < size {
                call = call.header("Content-Range", format!("{from}-{}", from + length - 1));
            }
            let answer = self.ask(&call)?;
            match answer.response.status().as_u16() {
                // Some say "created" to a part of it.
                200..=299 => {
                    sent += length;
                    location = self.location(&answer)?;
                }
                // It has another part than we think: ask which.
                416 if refusals < 3 => {
                    refusals += 1;
                    let answer = self.request(&Call::new(Method::GET, location.clone()))?;
                    sent = header(&answer.response, "range")
                        .and_then(|range| range.trim_start_matches("bytes=").split_once('-'))
                        .and_then(|(_, last)| last.parse::<u64>().ok())
                        .map_or(0, |last| last.saturating_add(1))
                        .min(size);
                    location = self.location(&answer).unwrap_or(location);
                }
                _ => return Err(self.refused(answer)),
            }
        }
        Ok(location)
    }

    /// Where an upload goes on. A registry behind a proxy that speaks TLS for it may not know so.
    fn location(&self, answer: &Answer) -> Result<Url> {
        let location = header(&answer.response, "location").ok_or_else(|| {
            anyhow!("registry {} does not say where the upload goes on", self.session.host)
        })?;
        let mut url = answer.url.join(location).context("registry names a bad location")?;
        let base = &self.session.base;
        if base.https && !url.https && url.authority == base.authority {
            url.https = true;
        }
        Ok(url)
    }
}
