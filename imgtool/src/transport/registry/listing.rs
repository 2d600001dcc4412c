//! Lists: tags, repositories, what refers to an image. Registries send them in
//! pages, as many as they like; we take only so many.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::Method;

use super::super::http::{Answer, Call, Failure, Url};
use super::body::{header, read_limited, refusal};
use super::repository::Repository;
use super::session::Session;
use crate::digest::Digest;
use crate::manifest::{Annotations, Descriptor, Index, MAX_MANIFEST_SIZE, media_type};

const PAGE: &str = "1000";
const MAX_PAGES: usize = 1000;
const MAX_PAGE_SIZE: u64 = 16 << 20;
/// Across all pages.
const MAX_ENTRIES: usize = 1_000_000;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Repository {
    /// All tags, in order: not every registry sends them so.
    pub(crate) fn tags(&self) -> Result<Vec<String>> {
        let url = self.url("tags", "list").with_query("n", PAGE);
        let mut tags = Vec::new();
        let ask = |url: &Url| self.persist(|| self.request(&Call::new(Method::GET, url.clone())));
        pages(&url, ask, |page: Tags| {
            tags.extend(page.tags.unwrap_or_default());
            tags.len()
        })?;
        tags.sort();
        Ok(tags)
    }

    /// The manifests that say they are about this one: signatures, bills of materials. By the
    /// registry's own list, or by a tag made of the digest where it has none.
    pub(crate) fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let url = self.url("referrers", &subject.to_string());
        let call = Call::new(Method::GET, url.clone()).header("Accept", media_type::OCI_INDEX);
        let first = self.persist(|| {
            let answer = self.ask(&call)?;
            match answer.response.status().as_u16() {
                200 => Ok(Some(answer)),
                404 | 400 | 405 | 501 => Ok(None),
                _ => Err(self.refused(answer)),
            }
        })?;
        let mut found = Vec::new();
        if let Some(first) = first {
            let mut first = Some(first);
            let ask = |url: &Url| match first.take() {
                Some(answer) => Ok(answer),
                None => self.persist(|| self.request(&Call::new(Method::GET, url.clone()))),
            };
            pages(&url, ask, |page: Index| {
                found.extend(page.manifests);
                found.len()
            })?;
            return Ok(found);
        }
        let tag = fallback_tag(subject);
        if self.digest(&tag)?.is_none() {
            return Ok(found);
        }
        let (_, bytes) = self.manifest(&tag)?;
        match crate::manifest::Document::parse(&bytes, media_type::OCI_INDEX)? {
            crate::manifest::Document::Index(index) => Ok(index.manifests),
            crate::manifest::Document::Manifest(_) => bail!("{tag} is no index of referrers"),
        }
    }
}

impl Repository {
    /// A registry without lists of referrers has them in an index under a tag made of the digest,
    /// which whoever pushes has to keep: this adds the manifest, if it refers to one.
    pub(super) fn list_referrer(&self, manifest: &Descriptor, bytes: &[u8]) -> Result<()> {
        let Some((subject, entry)) = referrer(manifest, bytes) else { return Ok(()) };
        let mut index = Index::empty();
        index.manifests = self.referrers(&subject)?;
        if index.manifests.iter().any(|other| other.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        let bytes = serde_json::to_vec(&index).context("write index")?;
        let size = bytes.len() as u64;
        let descriptor = Descriptor::new(media_type::OCI_INDEX, Digest::of(&bytes), size);
        self.put_manifest(&fallback_tag(&subject), &descriptor, &bytes).map(drop)
    }
}

/// What a manifest refers to, and itself as a list of referrers has it.
fn referrer(manifest: &Descriptor, bytes: &[u8]) -> Option<(Digest, Descriptor)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Referrer {
        subject: Descriptor,
        artifact_type: Option<String>,
        config: Option<Descriptor>,
        annotations: Option<Annotations>,
    }
    // Most refer to nothing; whether it is a manifest at all is found out elsewhere.
    let found: Referrer = serde_json::from_slice(bytes).ok()?;
    let mut entry = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size);
    let kind = found.artifact_type.filter(|kind| !kind.is_empty());
    if let Some(kind) = kind.or_else(|| found.config.map(|config| config.media_type)) {
        entry.other.insert("artifactType".to_owned(), kind.into());
    }
    entry.annotations = found.annotations.unwrap_or_default();
    Some((found.subject.digest, entry))
}

/// The tag that stands for the list of referrers where the registry keeps none.
fn fallback_tag(subject: &Digest) -> String {
    let hex: String = subject.hex().chars().take(64).collect();
    format!("{}-{hex}", subject.algorithm().name())
}

/// All repositories of a registry.
pub(crate) fn catalog(session: &Session) -> Result<Vec<String>> {
    let url = session.url("_catalog").with_query("n", PAGE);
    let scopes = ["registry:catalog:*".to_owned()];
    let mut repositories = Vec::new();
    let ask = |url: &Url| {
        let answer = session.send(&Call::new(Method::GET, url.clone()), &scopes);
        let answer = answer.map_err(Failure::into_error)?;
        if !answer.response.status().is_success() {
            let name = format!("the catalog of {}", session.host);
            return Err(refusal(answer, &name, session.has_credentials()).into_error());
        }
        Ok(answer)
    };
    pages(&url, ask, |page: Catalog| {
        repositories.extend(page.repositories.unwrap_or_default());
        repositories.len()
    })?;
    Ok(repositories)
}

/// Follows a list from page to page; `take` says how many entries there are now.
fn pages<T: DeserializeOwned>(
    first: &Url,
    mut ask: impl FnMut(&Url) -> Result<Answer>,
    mut take: impl FnMut(T) -> usize,
) -> Result<()> {
    let mut at = first.clone();
    for _ in 0..MAX_PAGES {
        let mut answer = ask(&at)?;
        let next = header(&answer.response, "link").and_then(next_link).map(str::to_owned);
        let limit = MAX_PAGE_SIZE.max(MAX_MANIFEST_SIZE);
        let bytes = read_limited(answer.response.body_mut(), limit).map_err(Failure::into_error)?;
        let page = serde_json::from_slice(&bytes).map_err(|error| {
            anyhow::anyhow!("GET {at}: not the list that was asked for: {error}")
        })?;
        if take(page) > MAX_ENTRIES {
            bail!("GET {first}: the list has more than {MAX_ENTRIES} entries");
        }
        let Some(next) = next else { return Ok(()) };
        let next = at.join(&next)?;
        if !next.same_origin(first) {
            bail!("GET {at}: the list goes on at another server, {}", next.authority);
        }
        if next == at {
            bail!("GET {at}: the list goes on with itself");
        }
        at = next;
    }
    bail!("GET {first}: the list has more than {MAX_PAGES} pages")
}

/// The target of `Link: <…>; rel="next"`.
fn next_link(header: &str) -> Option<&str> {
    let (target, parameters) = header.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters
        .split(';')
        .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
    is_next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page_are_read() {
        assert_eq!(next_link("</v2/a?last=x>; rel=\"next\""), Some("/v2/a?last=x"));
        assert_eq!(next_link("<x>; title=y; rel=next"), Some("x"));
        assert_eq!(next_link("<x>; rel=\"prev\""), None);
        assert_eq!(next_link("x"), None);
    }

    #[test]
    fn manifests_say_what_they_refer_to() {
        let (subject, own) = (Digest::of(b"subject"), Digest::of(b"own"));
        let manifest = Descriptor::new(media_type::OCI_MANIFEST, own, 3);
        let about = |rest: &str| {
            let text =
                format!(r#"{{"subject":{{"mediaType":"x","digest":"{subject}","size":1}}{rest}}}"#);
            let (found, entry) = referrer(&manifest, text.as_bytes()).unwrap();
            assert_eq!(found, subject);
            entry
        };
        let kind = |entry: &Descriptor| entry.other.get("artifactType").cloned();
        assert_eq!(kind(&about("")), None);
        let config = format!(r#","config":{{"mediaType":"c","digest":"{subject}","size":1}}"#);
        assert_eq!(kind(&about(&config)), Some("c".into()));
        let entry = about(&format!(r#"{config},"artifactType":"a","annotations":{{"k":"v"}}"#));
        assert_eq!((kind(&entry), entry.annotations["k"].as_str()), (Some("a".into()), "v"));
        for none in ["{}", "[]", r#"{"subject":null}"#, r#"{"subject":{}}"#] {
            assert!(referrer(&manifest, none.as_bytes()).is_none(), "{none}");
        }
    }
}
