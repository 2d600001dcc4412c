//! `imgtool commit`: what a container changed becomes an image.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use crate::commit::change::Change;
use crate::commit::{Request, commit};
use crate::output;
use crate::reference::Reference;
use crate::store::Store;

/// Make an image from a container's changes and print its ID
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER,
    /// VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Who made it, such as "Jane Doe <jane@example.com>"
    #[arg(short, long)]
    author: Option<String>,
    /// What was changed
    #[arg(short, long)]
    message: Option<String>,
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
        created: created(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
    };
    let id = commit(store, &request)?;
    writeln!(output::stdout(), "{id}")?;
    Ok(())
}

/// The time of `SOURCE_DATE_EPOCH`, for images that come out the same each time, or now.
fn created(epoch: Option<&str>) -> Result<Timestamp> {
    let Some(epoch) = epoch.filter(|epoch| !epoch.is_empty()) else { return Ok(Timestamp::now()) };
    let invalid = || format!("SOURCE_DATE_EPOCH {epoch:?} is not a time in seconds");
    Timestamp::from_second(epoch.parse().with_context(invalid)?).with_context(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_sets_the_time() {
        assert_eq!(created(Some("1700000000")).unwrap().to_string(), "2023-11-14T22:13:20Z");
        assert!(created(Some("yesterday")).is_err());
        assert!(created(Some("")).is_ok());
    }
}
