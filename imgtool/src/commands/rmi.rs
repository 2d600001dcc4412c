//! `imgtool rmi`: names away, and images that have none left.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Result, bail};

use crate::bundle;
use crate::digest::Digest;
use crate::error::{NoSuchImage, printable};
use crate::manifest::Descriptor;
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
        writeln!(out, "Untagged: {}", printable(&name.familiar()))?;
        return Ok(());
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
    let kept = kept(store)?;
    store.collect_garbage(lock)?;
    // All is done before anything is said: a reader that went away must not keep it from that.
    for name in &names {
        writeln!(out, "Untagged: {}", printable(&name.familiar()))?;
    }
    if !kept.contains(id) {
        writeln!(out, "Deleted: {id}")?;
    }
    let layers = image.as_ref().map(|image| chain_ids(&image.diff_ids));
    for layer in layers.unwrap_or_default().iter().rev() {
        if !kept.contains(layer) {
            writeln!(out, "Deleted: {layer}")?;
        }
    }
    Ok(())
}

/// IDs and chain IDs of the images that are left.
fn kept(store: &Store) -> Result<BTreeSet<Digest>> {
    let mut kept = BTreeSet::new();
    for entry in &store.index()?.manifests {
        // What can't be read keeps nothing but itself.
        if let Ok(image) = store.image(entry) {
            kept.insert(image.id().clone());
            kept.extend(chain_ids(&image.diff_ids));
        }
    }
    Ok(kept)
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
