//! `imgtool list-tags`: the tags of a repository.

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::json;

use super::access;
use crate::error::printable;
use crate::output;
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::registry::{Action, Repository};

/// List the tags of a repository in a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the repository
    #[arg(value_name = "[docker://]NAME")]
    repository: String,
    /// Print a JSON object, as skopeo does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: access::Flags,
}

pub(crate) fn run(_store: &Store, args: &Args) -> Result<()> {
    let text = args.repository.strip_prefix("docker://").unwrap_or(&args.repository);
    let name = Reference::parse(text)?;
    anyhow::ensure!(
        name.tag().is_none() && name.digest().is_none(),
        "{}: a repository has no tag or digest in its name",
        name.familiar()
    );
    let tags = Repository::open(&name, &args.access.access()?, Action::Pull)
        .and_then(|repository| repository.tags())
        .with_context(|| format!("list tags of {}", name.familiar()))?;
    let mut out = output::stdout();
    if args.json {
        let list = json!({ "Repository": name.to_string(), "Tags": tags });
        serde_json::to_writer_pretty(&mut out, &list).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    for tag in tags {
        writeln!(out, "{}", printable(&tag))?;
    }
    Ok(())
}
