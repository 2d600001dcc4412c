//! `imgtool delete`: an image out of a registry.
//!
//! Registries delete tags, if they can, or the manifest with all its tags. The
//! second takes away more than was named, so it has to be asked for.

use std::io::Write;

use anyhow::{Context, Result, bail};

use super::access;
use crate::digest::Digest;
use crate::error::printable;
use crate::output;
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::registry::{Action, Repository};

/// Delete an image in a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names of the images
    #[arg(required = true, value_name = "[docker://]NAME[:TAG|@DIGEST]")]
    images: Vec<String>,
    /// Delete the image with all its tags, where a tag alone can't be deleted
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    access: access::Flags,
}

pub(crate) fn run(_store: &Store, args: &Args) -> Result<()> {
    let access = args.access.access()?;
    let mut failed = super::Failures::default();
    for text in &args.images {
        let text = text.strip_prefix("docker://").unwrap_or(text);
        let delete = || -> Result<()> {
            let name = Reference::parse(text)?.with_default_tag();
            let repository = Repository::open(&name, &access, Action::Delete)?;
            delete(&repository, &name, args.force)
                .with_context(|| format!("delete {}", name.familiar()))
        };
        failed.collect(delete());
    }
    failed.into_result()
}

fn delete(repository: &Repository, name: &Reference, force: bool) -> Result<()> {
    let mut out = output::stdout();
    let familiar = printable(&name.familiar());
    if let Some(digest) = name.digest() {
        return delete_digest(repository, digest, &mut out);
    }
    let tag = name.tag().unwrap_or_default();
    let Some(digest) = repository.digest(tag)? else {
        bail!("it does not exist");
    };
    let others = others(repository, tag, &digest)?;
    if others.is_empty() {
        return delete_digest(repository, &digest, &mut out);
    }
    if repository.delete_manifest(tag)? {
        writeln!(out, "Untagged: {familiar}")?;
        return Ok(());
    }
    let list = others.join(", ");
    if !force {
        bail!(
            "the registry can't delete a tag alone, and the image has other tags: {}; --force deletes it with all of them",
            printable(&list)
        );
    }
    delete_digest(repository, &digest, &mut out)?;
    for other in others {
        writeln!(out, "Untagged: {}:{}", name.familiar_repository(), printable(&other))?;
    }
    Ok(())
}

fn delete_digest(repository: &Repository, digest: &Digest, out: &mut impl Write) -> Result<()> {
    if !repository.delete_manifest(&digest.to_string())? {
        bail!("the registry does not delete images");
    }
    writeln!(out, "Deleted: {digest}")?;
    Ok(())
}

/// The other tags that stand for the same image.
fn others(repository: &Repository, tag: &str, digest: &Digest) -> Result<Vec<String>> {
    let mut others = Vec::new();
    for other in repository.tags()? {
        // A list may have names in it that are no tags; those we don't ask for.
        let is_tag = Reference::parse(&format!("x:{other}")).is_ok();
        if other != tag && is_tag && repository.digest(&other)?.as_ref() == Some(digest) {
            others.push(other);
        }
    }
    Ok(others)
}
