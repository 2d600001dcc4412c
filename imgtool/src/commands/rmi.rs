//! `imgtool rmi`: names away, and images that have none left.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Result, bail};

use crate::bundle;
use crate::digest::Digest;
use crate::error::{NoSuchImage, printable};
use crate::manifest::{Descriptor, Document};
use crate::output;
use crate::reference::Reference;
use crate::store::{Lock, Selection, Store, chain_ids, entry_name};

/// Remove images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image with names in several repositories; missing images are no failure
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let lock = store.lock_exclusive()?;
    let mut failed = super::Failures::default();
    for name in &args.images {
        let result = remove(store, &lock, name, args.force);
        match result {
            Err(error) if args.force && error.is::<NoSuchImage>() => {
                output::say(&error.to_string());
            }
            result => failed.collect(result),
        }
    }
    failed.into_result()
}

fn remove(store: &Store, lock: &Lock, word: &str, force: bool) -> Result<()> {
    let Selection { name, entry } = store.select(word)?;
    let names = names_of(store, &entry)?;
    let mut out = output::stdout();
    if let Some(name) = &name
        && names.iter().any(|other| other != name)
        && names.contains(name)
    {
        store.untag(name)?;
        let left: Vec<&Reference> = names.iter().filter(|other| *other != name).collect();
        return say_untagged(&mut out, &[name], &left, &entry.digest);
    }
    let repositories: BTreeSet<String> = names.iter().map(Reference::familiar_repository).collect();
    if name.is_none() && repositories.len() > 1 && !force {
        let list: Vec<String> = names.iter().map(Reference::familiar).collect();
        bail!(
            "unable to remove {word}: it has names in several repositories ({}): remove those, or use -f",
            list.join(", ")
        );
    }
    let image = store.image(&entry).ok();
    let id = image.as_ref().map_or(&entry.digest, |image| image.id());
    // A bundle keeps its image in the index, and so everything the image needs.
    if let Some(user) = bundle::users_of(store, id)?.first() {
        bail!(
            "unable to remove {word}: bundle {} uses it (imgtool rm removes that)",
            user.display()
        );
    }
    store.forget(&entry)?;
    let gone = parts(store, &entry);
    let kept = needed(store, |_| true)?;
    store.collect_garbage(lock)?;
    // All is done before anything is said: a reader that went away must not keep it from that.
    let names: Vec<&Reference> = names.iter().collect();
    say_untagged(&mut out, &names, &[], &entry.digest)?;
    for id in gone.iter().filter(|id| !kept.contains(id)) {
        writeln!(out, "Deleted: {id}")?;
    }
    Ok(())
}

/// The names that an image has no more; and where no name of a repository is left, the repository
/// with the digest, which docker counts among the names.
fn say_untagged(
    out: &mut impl Write,
    gone: &[&Reference],
    left: &[&Reference],
    digest: &Digest,
) -> Result<()> {
    let mut lines: Vec<String> = gone.iter().map(|name| name.familiar()).collect();
    let repositories: BTreeSet<String> =
        gone.iter().map(|name| name.familiar_repository()).collect();
    for repository in repositories {
        let line = format!("{repository}@{digest}");
        if !left.iter().any(|name| name.familiar_repository() == repository)
            && !lines.contains(&line)
        {
            lines.push(line);
        }
    }
    for line in lines {
        writeln!(out, "Untagged: {}", printable(&line))?;
    }
    Ok(())
}

/// The ID of an image and the chain IDs of its layers, the top first, and of an index all that of
/// the images that are here; of what can't be read only the digest.
pub(super) fn parts(store: &Store, entry: &Descriptor) -> Vec<Digest> {
    let images = match store.document(entry) {
        Ok(Document::Index(index)) => index.manifests,
        Ok(Document::Manifest(_)) | Err(_) => vec![entry.clone()],
    };
    let mut parts = Vec::new();
    for image in images.iter().filter_map(|entry| store.image(entry).ok()) {
        let layers = chain_ids(&image.diff_ids);
        parts.extend(std::iter::once(image.id().clone()).chain(layers.into_iter().rev()));
    }
    let mut seen = BTreeSet::new();
    parts.retain(|part| seen.insert(part.clone()));
    if parts.is_empty() { vec![entry.digest.clone()] } else { parts }
}

/// The parts of all the store's images that stay. What can't be read keeps nothing but itself.
pub(super) fn needed(
    store: &Store,
    stays: impl Fn(&Descriptor) -> bool,
) -> Result<BTreeSet<Digest>> {
    let index = store.index()?;
    let staying = index.manifests.iter().filter(|entry| stays(entry));
    Ok(staying.flat_map(|entry| parts(store, entry)).collect())
}

fn names_of(store: &Store, entry: &Descriptor) -> Result<Vec<Reference>> {
    let index = store.index()?;
    Ok(index
        .manifests
        .iter()
        .filter(|other| other.digest == entry.digest)
        .filter_map(entry_name)
        .collect())
}
