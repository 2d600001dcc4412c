//! `imgtool tag`: another name for an image.

use anyhow::{Result, ensure};

use crate::reference::Reference;
use crate::store::Store;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ID of the image
    image: String,
    /// The new names
    #[arg(required = true, value_name = "NAME[:TAG]")]
    names: Vec<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let mut names = Vec::with_capacity(args.names.len());
    for name in &args.names {
        let name = Reference::parse(name)?.with_default_tag();
        ensure!(name.digest().is_none(), "{name}: a digest can't be given");
        names.push(name);
    }
    let _lock = store.lock_shared()?;
    let entry = store.select(&args.image)?.entry;
    for name in &names {
        store.tag(name, &entry)?;
    }
    Ok(())
}
