//! `imgtool untag`: names away, the images stay.

use anyhow::Result;

use crate::error::NoSuchImage;
use crate::reference::Reference;
use crate::store::Store;

/// Take names from images; the images stay
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The names
    #[arg(required = true, value_name = "NAME[:TAG]")]
    names: Vec<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let _lock = store.lock_shared()?;
    let mut failed = super::Failures::default();
    for word in &args.names {
        let untag = || -> Result<()> {
            let name = Reference::parse(word)?.with_default_tag();
            match store.untag(&name)? {
                Some(_) => Ok(()),
                None => Err(NoSuchImage { name: word.clone(), pullable: false }.into()),
            }
        };
        failed.collect(untag());
    }
    failed.into_result()
}
