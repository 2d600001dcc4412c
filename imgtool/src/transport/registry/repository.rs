//! One repository of a registry, by the distribution specification.

use anyhow::{Context, Result, anyhow, bail, ensure};
use ureq::http::Method;

use super::super::endpoints::{Endpoint, Registries};
use super::super::http::{Answer, Call, Cancel, Failure, Payload, Url};
use super::access::Access;
use super::body::{header, read_limited, refusal};
use super::session::Session;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{Descriptor, MAX_MANIFEST_SIZE, media_type};
use crate::reference::Reference;

const ACCEPT: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];

/// What is to be done with a repository, as scopes of tokens have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    fn words(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "pull,delete",
        }
    }
}

/// A repository at one address.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) session: Session,
    /// As the registry calls it.
    pub(crate) path: String,
    /// As the user calls it.
    pub(crate) name: Reference,
    scopes: Vec<String>,
}

impl Repository {
    /// The repository itself, no mirror of it.
    pub(crate) fn open(name: &Reference, access: &Access, action: Action) -> Result<Self> {
        let registries = Registries::read(access.registries.as_deref(), access.hosts.as_deref())?;
        Self::at(&registries.primary(name)?, name, access, action)
    }

    /// The repository at one of its addresses.
    pub(crate) fn at(
        endpoint: &Endpoint,
        name: &Reference,
        access: &Access,
        action: Action,
    ) -> Result<Self> {
        Ok(Self {
            session: Session::open(endpoint, access)?,
            path: endpoint.path.clone(),
            name: name.clone(),
            scopes: vec![format!("repository:{}:{}", endpoint.path, action.words())],
        })
    }

    pub(super) fn url(&self, kind: &str, reference: &str) -> Url {
        self.session.url(&format!("{}/{kind}/{reference}", self.path))
    }

    /// One request, whose answer is given as it is.
    pub(super) fn ask(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        self.session.send(call, &self.scopes)
    }

    /// The same without any credentials.
    pub(super) fn ask_anonymously(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        self.session.send_anonymously(call)
    }

    /// The same with a scope on another repository beside our own.
    pub(super) fn ask_also(&self, call: &Call<'_>, other: &str) -> Result<Answer, Failure> {
        let mut scopes = self.scopes.clone();
        scopes.push(format!("repository:{other}:pull"));
        self.session.send(call, &scopes)
    }

    /// One request, where anything but success is a failure.
    pub(super) fn request(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let answer = self.ask(call)?;
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        Err(self.refused(answer))
    }

    pub(super) fn refused(&self, answer: Answer) -> Failure {
        refusal(answer, &self.name.familiar(), self.session.has_credentials())
    }

    /// Does something until it works or there is no hope.
    pub(super) fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let (cancel, mut failures) = (Cancel::default(), 0);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => cancel
                    .pause(failure, &mut failures, self.session.patience)
                    .map_err(|(error, _)| error)?,
            }
        }
    }

    /// The manifest or index that a tag or digest stands for now.
    pub(crate) fn manifest(&self, reference: &str) -> Result<(Descriptor, Vec<u8>)> {
        let wanted = reference.parse::<Digest>().ok();
        let call = self.manifest_call(Method::GET, reference);
        let (bytes, kind, announced) = self.persist(|| {
            let mut answer = self.request(&call)?;
            let kind = content_type(&answer);
            let announced = header(&answer.response, "docker-content-digest").map(str::to_owned);
            let bytes = read_limited(answer.response.body_mut(), MAX_MANIFEST_SIZE)
                .map_err(|failure| failure.context(format!("GET {}", call.url)))?;
            Ok((bytes, kind, announced))
        })?;
        let algorithm = wanted.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = hash(algorithm, &bytes);
        if let Some(wanted) = wanted {
            ensure!(
                digest == wanted,
                "registry sent another manifest than {wanted}: its digest is {digest}"
            );
        } else if let Some(announced) = announced {
            let announced: Digest = announced.parse().context("registry names a bad digest")?;
            let actual = hash(announced.algorithm(), &bytes);
            ensure!(
                actual == announced,
                "GET {}: manifest has digest {actual}, the registry says {announced}",
                call.url
            );
        }
        Ok((Descriptor::new(&kind, digest, bytes.len() as u64), bytes))
    }

    /// The digest of what a tag stands for now; `None` if there is no such tag.
    pub(crate) fn digest(&self, reference: &str) -> Result<Option<Digest>> {
        let call = self.manifest_call(Method::HEAD, reference);
        let found = self.persist(|| {
            let answer = self.ask(&call)?;
            match answer.response.status().as_u16() {
                200 => {
                    Ok(Some(header(&answer.response, "docker-content-digest").map(str::to_owned)))
                }
                404 => Ok(None),
                _ => Err(self.refused(answer)),
            }
        })?;
        match found {
            None => Ok(None),
            Some(Some(digest)) => digest.parse().map(Some).context("registry names a bad digest"),
            // Some registries don't say it without the manifest.
            Some(None) => Ok(Some(self.manifest(reference)?.0.digest)),
        }
    }

    fn manifest_call(&self, method: Method, reference: &str) -> Call<'static> {
        Call::new(method, self.url("manifests", reference)).header("Accept", ACCEPT.join(", "))
    }

    /// Stores a manifest under a tag or under its digest. Says whether the registry keeps track
    /// of what it refers to.
    pub(crate) fn put_manifest(
        &self,
        reference: &str,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<bool> {
        let call = Call::new(Method::PUT, self.url("manifests", reference))
            .header("Content-Type", &descriptor.media_type)
            .payload(Payload::Bytes(bytes));
        let (announced, subject) = self.persist(|| {
            let answer = self.request(&call)?;
            let text = |name| header(&answer.response, name).map(str::to_owned);
            Ok((text("docker-content-digest"), text("oci-subject").is_some()))
        })?;
        if let Some(announced) = announced {
            let announced: Digest = announced.parse().context("registry names a bad digest")?;
            ensure!(
                announced.algorithm() != descriptor.digest.algorithm()
                    || announced == descriptor.digest,
                "registry stored {reference} as {announced}, it is {}",
                descriptor.digest
            );
        }
        Ok(subject)
    }

    /// Deletes a tag or a digest; false if the registry does not delete by this.
    pub(crate) fn delete_manifest(&self, reference: &str) -> Result<bool> {
        let call = Call::new(Method::DELETE, self.url("manifests", reference));
        self.persist(|| {
            let answer = self.ask(&call)?;
            match answer.response.status().as_u16() {
                200..=299 => Ok(true),
                400 | 405 => Ok(false),
                _ => Err(self.refused(answer)),
            }
        })
    }

    /// Whether the registry has the blob.
    pub(crate) fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let call = Call::new(Method::HEAD, self.url("blobs", &blob.digest.to_string()));
        self.persist(|| {
            let answer = self.ask(&call)?;
            match answer.response.status().as_u16() {
                200..=299 => {
                    let length = header(&answer.response, "content-length");
                    // One that is there in another length is not this one.
                    Ok(length
                        .and_then(|text| text.parse().ok())
                        .is_none_or(|n: u64| n == blob.size))
                }
                404 => Ok(false),
                _ => Err(self.refused(answer)),
            }
        })
    }

    /// The tag or digest of a name.
    pub(crate) fn reference_of(name: &Reference) -> Result<String> {
        match (name.digest(), name.tag()) {
            (Some(digest), _) => Ok(digest.to_string()),
            (None, Some(tag)) => Ok(tag.to_owned()),
            (None, None) => bail!("{name} has neither tag nor digest"),
        }
    }

    pub(super) fn malformed(&self, what: &str) -> Failure {
        Failure::Final(anyhow!("registry {} sent {what}", self.session.host))
    }
}

/// The media type of an answer, empty where the registry has no better word than "bytes".
fn content_type(answer: &Answer) -> String {
    let kind = header(&answer.response, "content-type").unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        "text/plain" | "application/json" | "application/octet-stream" => String::new(),
        kind => kind.to_owned(),
    }
}

fn hash(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}
