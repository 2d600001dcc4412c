//! `imgtool commit`: what a container changed becomes an image.

use std::io::Write;

use anyhow::{Result, ensure};
use jiff::Timestamp;

use crate::commit::change::Change;
use crate::commit::{Pause, Request, commit};
use crate::output;
use crate::reference::Reference;
use crate::rewrite;
use crate::store::Store;

/// Make an image from a container's changes and print its ID
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Who made it, such as "Jane Doe <jane@example.com>"
    #[arg(short, long)]
    author: Option<String>,
    /// What was changed
    #[arg(short, long)]
    message: Option<String>,
    /// Pause the container while its files are read [default: if its runtime can]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pause: Option<bool>,
    /// Make one layer of the whole file system, and one step of the history
    #[arg(short, long)]
    squash: bool,
    /// Directory of a bundle, or the name of a bundle or of its container
    bundle: String,
    /// Name of the new image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    let name = name.map(Reference::with_default_tag);
    if let Some(name) = &name {
        ensure!(name.digest().is_none(), "{name}: a digest can't be given");
    }
    let request = Request {
        bundle: args.bundle.clone(),
        name,
        changes: args.changes.iter().map(|text| Change::parse(text)).collect::<Result<_>>()?,
        author: args.author.clone(),
        message: args.message.clone(),
        created: rewrite::now()?,
        newest: rewrite::epoch()?.map(Timestamp::as_second),
        squash: args.squash,
        pause: match args.pause {
            None => Pause::IfPossible,
            Some(true) => Pause::Always,
            Some(false) => Pause::Never,
        },
    };
    let id = commit(store, &request)?;
    writeln!(output::stdout(), "{id}")?;
    Ok(())
}
