//! `imgtool rebase`: an image on another base, without building it again.

use std::io::Write;

use anyhow::{Context, Result};

use crate::digest::Digest;
use crate::output;
use crate::reference::Reference;
use crate::rewrite::{self, Parts};
use crate::store::{Image, Store};

const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Put the layers of an image on another base
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ID
    image: String,
    /// The base it was made from [default: what its annotations say]
    #[arg(long, value_name = "IMAGE")]
    old_base: Option<String>,
    /// The base it is to have [default: what the annotated name stands for now]
    #[arg(long, value_name = "IMAGE")]
    new_base: Option<String>,
    /// Name of the new image [default: the name of the old one]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let _lock = store.lock_shared()?;
    let id = rebase(store, args).with_context(|| format!("rebase {}", args.image))?;
    writeln!(output::stdout(), "{id}")?;
    Ok(())
}

fn rebase(store: &Store, args: &Args) -> Result<Digest> {
    let image = store.resolve(&args.image)?;
    let mut parts = Parts::of(store, &image)?;
    let base = |chosen: &Option<String>, key: &str, flag: &str| -> Result<Image> {
        let word = chosen
            .as_ref()
            .or_else(|| parts.annotations.get(key))
            .with_context(|| format!("it does not say what its base is: use {flag}"))?;
        store.resolve(word)
    };
    let old = base(&args.old_base, BASE_DIGEST, "--old-base")?;
    let new = base(&args.new_base, BASE_NAME, "--new-base")?;
    rewrite::rebase(&mut parts, &old, &new)?;
    parts.annotations.insert(BASE_DIGEST.to_owned(), new.manifest.digest.to_string());
    if let Some(name) = &new.name {
        parts.annotations.insert(BASE_NAME.to_owned(), name.to_string());
    }
    let name = match &args.tag {
        Some(name) => Some(Reference::parse(name)?.with_default_tag()),
        None => image.name.clone().filter(|name| name.tag().is_some()),
    };
    let (id, entry) = parts.write(store, rewrite::now()?)?;
    match name {
        Some(name) => drop(store.tag(&name.without_digest(), &entry)?),
        None => store.add_unnamed(&entry)?,
    }
    Ok(id)
}
