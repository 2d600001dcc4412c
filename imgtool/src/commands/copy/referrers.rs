//! What refers to an image goes along: signatures and attestations by the
//! registry's list of referrers, and by the tags that sigstore's tools make.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::destination::Target;
use super::origin::Origin;
use crate::copy::{self, Wanted};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document};
use crate::progress::Progress;
use crate::store::Store;
use crate::transport::Source;
use crate::transport::registry::{ByDigest, Push};

/// A signature of a signature of a signature; deeper is no use to anybody.
const MAX_DEPTH: usize = 4;
const MAX_REFERRERS: usize = 10_000;
const SIGSTORE: [&str; 3] = ["sig", "att", "sbom"];

/// Copies what refers to the image at `entry`, and to the images of an index.
pub(super) fn copy(
    store: &Store,
    origin: &mut Origin<'_>,
    target: &mut Target<'_>,
    entry: &Descriptor,
    progress: &Progress,
) -> Result<()> {
    ensure!(origin.repository().is_some(), "--referrers needs a registry as the source");
    let push = target.push().context("--referrers needs a registry as the destination")?;
    let mut subjects = vec![(entry.digest.clone(), 0)];
    if let Some(bytes) = origin.document(entry)?
        && let Document::Index(index) = Document::parse(&bytes, &entry.media_type)?
    {
        subjects.extend(index.manifests.into_iter().map(|child| (child.digest, 0)));
    }
    let mut seen = BTreeSet::new();
    while let Some((subject, depth)) = subjects.pop() {
        if depth >= MAX_DEPTH || !seen.insert(subject.clone()) {
            continue;
        }
        ensure!(seen.len() <= MAX_REFERRERS, "more than {MAX_REFERRERS} things refer to it");
        let found = referrers(origin, &subject)?;
        for referrer in &found {
            let read = Descriptor { platform: None, ..referrer.clone() };
            copy::transfer(origin, store, &mut ByDigest(push), &read, &Wanted::All)
                .with_context(|| format!("copy {} of {subject}", referrer.digest))?;
            progress.say(&format!("Referrer: {}", referrer.digest))?;
            subjects.push((referrer.digest.clone(), depth + 1));
        }
        copy_tags(store, origin, push, &subject)?;
    }
    Ok(())
}

fn referrers(origin: &Origin<'_>, subject: &Digest) -> Result<Vec<Descriptor>> {
    match origin.repository() {
        Some(repository) => repository.referrers(subject),
        None => Ok(Vec::new()),
    }
}

/// `sha256-<hex>.sig` and its like.
fn copy_tags(
    store: &Store,
    origin: &mut Origin<'_>,
    push: &mut Push<'_>,
    subject: &Digest,
) -> Result<()> {
    for suffix in SIGSTORE {
        let tag = format!("{}-{}.{suffix}", subject.algorithm().name(), subject.hex());
        // A longer digest makes no tag.
        let Some(repository) = origin.repository().filter(|_| tag.len() <= 128) else { continue };
        if repository.digest(&tag)?.is_none() {
            continue;
        }
        let (descriptor, bytes) = repository.manifest(&tag)?;
        copy::transfer(origin, store, &mut ByDigest(push), &descriptor, &Wanted::All)
            .with_context(|| format!("copy {tag}"))?;
        push.repository().put_manifest(&tag, &descriptor, &bytes)?;
    }
    Ok(())
}
