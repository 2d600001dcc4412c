//! Registries, by the distribution specification.

mod download;

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, bail, ensure};
use ureq::Body;
use ureq::http::Response;

use super::Source;
use super::auth;
use super::http::{Cancel, Client, Failure, Url, backoff, wait_asked};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{Descriptor, MAX_MANIFEST_SIZE, media_type};
use crate::progress::Progress;
use crate::reference::{DEFAULT_HOST, Reference};
use crate::store::Store;

const DOCKER_HUB: &str = "registry-1.docker.io";
/// Failures in a row after which a request is given up.
const MAX_FAILURES: u32 = 5;
const MAX_ERROR_BODY: u64 = 64 << 10;
const MAX_TOKEN_BODY: u64 = 1 << 20;
const ACCEPT: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];

/// One repository of a registry.
pub(crate) struct Registry<'a> {
    store: &'a Store,
    client: Client,
    base: Url,
    name: Reference,
    progress: &'a Progress,
    token: Mutex<Option<String>>,
    cancel: Cancel,
    /// Whether it was the network that failed, so that trying again later is
    /// worth keeping what came so far.
    interrupted: AtomicBool,
    /// Manifests that were read already.
    documents: HashMap<Digest, Vec<u8>>,
}

impl<'a> Registry<'a> {
    /// Finds out how to talk to the registry of `name`.
    pub(crate) fn open(store: &'a Store, name: &Reference, progress: &'a Progress) -> Result<Self> {
        let host = match name.host() {
            DEFAULT_HOST => DOCKER_HUB,
            host => host,
        };
        let mut base = Url::parse(&format!("https://{host}"))?;
        let loopback = auth::is_loopback(base.host());
        let client = Client::new(!loopback)?;
        if loopback {
            base = loopback_base(&client, base)?;
        }
        Ok(Self {
            store,
            client,
            base,
            name: name.clone(),
            progress,
            token: Mutex::new(None),
            cancel: Cancel::default(),
            interrupted: AtomicBool::new(false),
            documents: HashMap::new(),
        })
    }

    /// Reads the manifest or index that the name stands for now.
    pub(crate) fn resolve(&mut self) -> Result<Descriptor> {
        let wanted = self.name.digest().cloned();
        let reference = match (&wanted, self.name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => bail!("{} has neither tag nor digest", self.name),
        };
        let (bytes, kind) = self.get_manifest(&reference)?;
        let algorithm = wanted.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&bytes);
        let digest = hasher.finish();
        if let Some(wanted) = wanted {
            ensure!(
                digest == wanted,
                "registry sent another manifest than {wanted}: its digest is {digest}"
            );
        }
        let descriptor = Descriptor::new(&kind, digest, bytes.len() as u64);
        self.documents.insert(descriptor.digest.clone(), bytes);
        Ok(descriptor)
    }

    /// Says what is pulled from where.
    pub(crate) fn announce(&self) -> Result<()> {
        let reference = match (self.name.digest(), self.name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or_default().to_owned(),
        };
        self.progress.say(&format!("{reference}: Pulling from {}", self.name.path()))
    }

    fn get_manifest(&self, reference: &str) -> Result<(Vec<u8>, String)> {
        let url = self.url("manifests", reference);
        let accept = ACCEPT.join(", ");
        let mut failures = 0;
        loop {
            let result = self
                .request(&url, &[("Accept", &accept)])
                .and_then(|response| read_manifest(response, &url));
            match result {
                Ok(manifest) => return Ok(manifest),
                Err(failure) => self.wait(failure, &mut failures)?,
            }
        }
    }

    fn url(&self, kind: &str, reference: &str) -> Url {
        self.base.with_path(format!("/v2/{}/{kind}/{reference}", self.name.path()))
    }

    /// Waits before another attempt, or says why there is none.
    fn wait(&self, failure: Failure, failures: &mut u32) -> Result<()> {
        match failure {
            Failure::Again(error, asked) => {
                *failures += 1;
                if *failures >= MAX_FAILURES {
                    self.interrupted.store(true, Ordering::Release);
                    return Err(error);
                }
                if self.cancel.wait(backoff(*failures, asked)) {
                    return Err(error);
                }
                Ok(())
            }
            Failure::Final(error) => Err(error),
        }
    }

    /// One GET, with a token if the registry asks for one.
    fn request(&self, url: &Url, headers: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let token = self.token();
        let response = self.client.get(url, headers, token.as_deref())?;
        let response = if response.status() == 401 {
            let token = self.renew_token(&response, token.as_ref())?;
            self.client.get(url, headers, Some(&token))?
        } else {
            response
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let asked = wait_asked(&response);
        let error = self.answer_error(response);
        Err(match asked {
            Some(time) => Failure::Again(error, time),
            None => Failure::Final(error),
        })
    }

    fn token(&self) -> Option<String> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }

    /// Gets a token unless another thread did so since `used` was read.
    fn renew_token(
        &self,
        response: &Response<Body>,
        used: Option<&String>,
    ) -> Result<String, Failure> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = token.as_ref()
            && Some(current) != used
        {
            return Ok(current.clone());
        }
        let challenges: Vec<_> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(auth::parse_challenges)
            .collect();
        let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") else {
            return Err(Failure::Final(anyhow!(
                "registry {} asks for a login",
                self.base.authority
            )));
        };
        let scope = format!("repository:{}:pull", self.name.path());
        let url = auth::token_url(bearer, &self.base, &scope)?;
        let mut answer = self.client.get(&url, &[("Accept", "application/json")], None)?;
        if !answer.status().is_success() {
            let error = anyhow!(
                "token server {} answered {}: {}",
                url.authority,
                answer.status(),
                self.denied()
            );
            return Err(match wait_asked(&answer) {
                Some(time) => Failure::Again(error, time),
                None => Failure::Final(error),
            });
        }
        let body = read_limited(answer.body_mut(), MAX_TOKEN_BODY)?;
        let value = format!("Bearer {}", auth::parse_token(&body)?);
        *token = Some(value.clone());
        Ok(value)
    }

    fn denied(&self) -> String {
        format!(
            "access to {} denied: it does not exist or needs a login",
            self.name.familiar_repository()
        )
    }

    /// What the registry said went wrong, in one line.
    fn answer_error(&self, mut response: Response<Body>) -> anyhow::Error {
        #[derive(serde::Deserialize)]
        struct Answer {
            errors: Vec<Entry>,
        }
        #[derive(serde::Deserialize)]
        struct Entry {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = response.status();
        // The reason is a courtesy; a registry that sends none still answered.
        let body = read_limited(response.body_mut(), MAX_ERROR_BODY).unwrap_or_default();
        let reason = serde_json::from_slice::<Answer>(&body)
            .ok()
            .and_then(|answer| answer.errors.into_iter().next())
            .map(|error| match error.message.as_str() {
                "" => error.code,
                _ => error.message,
            })
            .filter(|reason| !reason.is_empty())
            .unwrap_or_else(|| status.to_string());
        match status.as_u16() {
            401 | 403 => anyhow!("{} ({reason})", self.denied()),
            404 => {
                anyhow!("{} not found at {}: {reason}", self.name.familiar(), self.base.authority)
            }
            429 => {
                anyhow!("registry {} refuses more requests for now: {reason}", self.base.authority)
            }
            _ => anyhow!("registry {} answered {status}: {reason}", self.base.authority),
        }
    }

    /// Whether a later pull can go on from what this one left.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }
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
        let (bytes, _) = self.get_manifest(&digest.to_string())?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        ensure!(
            actual == *digest && bytes.len() as u64 == descriptor.size,
            "registry sent another manifest than {digest}: its digest is {actual}"
        );
        Ok(Some(bytes))
    }

    fn has_blob(&self, _descriptor: &Descriptor) -> bool {
        true
    }

    fn already_here(&self, layer: &Descriptor) -> Result<()> {
        self.progress.exists(layer)
    }

    fn fetch_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        self.fetch_all(store, blobs)
    }
}

/// A registry on this host speaks plain HTTP, usually.
fn loopback_base(client: &Client, https: Url) -> Result<Url> {
    let http = Url { https: false, ..https.clone() };
    let ping = |base: &Url| client.get(&base.with_path("/v2/".to_owned()), &[], None);
    match ping(&http) {
        // This is how a server of TLS answers plain HTTP.
        Ok(response) if response.status() == 400 => Ok(https),
        Ok(_) => Ok(http),
        Err(error) => match ping(&https) {
            Ok(_) => Ok(https),
            Err(_) => Err(error.into_error()),
        },
    }
}

fn read_manifest(mut response: Response<Body>, url: &Url) -> Result<(Vec<u8>, String), Failure> {
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let kind = header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    // Some registries have no better word for what they store.
    let kind = match kind.as_str() {
        "text/plain" | "application/json" | "application/octet-stream" => String::new(),
        _ => kind,
    };
    let announced = header("docker-content-digest");
    let bytes =
        read_limited(response.body_mut(), MAX_MANIFEST_SIZE).map_err(|failure| match failure {
            Failure::Again(error, time) => {
                Failure::Again(error.context(format!("GET {url}")), time)
            }
            Failure::Final(error) => Failure::Final(error.context(format!("GET {url}"))),
        })?;
    if let Some(announced) = announced {
        let announced: Digest = announced.parse()?;
        let mut hasher = Hasher::new(announced.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != announced {
            return Err(Failure::Final(anyhow!(
                "GET {url}: manifest has digest {actual}, the registry says {announced}"
            )));
        }
    }
    Ok((bytes, kind))
}

fn read_limited(body: &mut Body, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    body.as_reader()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Again(error.into(), None))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::Final(anyhow!("answer is larger than the limit of {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
