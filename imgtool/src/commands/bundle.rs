//! `imgtool bundle`: an image becomes a bundle that a runtime can run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::bundle::{self, Request, flags};
use crate::error::printable;
use crate::store::Store;

/// Make an OCI bundle from an image and print its directory
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    words: flags::Words,
    /// Make a plain tree instead of an overlay mount
    #[arg(long)]
    copy: bool,
    /// Name or ID of the image
    image: String,
    /// Directory to make [default: one in the store]
    directory: Option<PathBuf>,
    /// Command to run in place of the image's
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(store: &Store, args: Args) -> Result<()> {
    let cwd = std::env::current_dir().context("find the current directory")?;
    let options = flags::resolve(args.words, args.command, &cwd, |key| std::env::var(key).ok())?;
    let request =
        Request { image: args.image, directory: args.directory, copy: args.copy, options };
    let created = bundle::create(store, &request)?;
    for note in &created.notes {
        writeln!(std::io::stderr(), "imgtool: {}", printable(note))?;
    }
    writeln!(std::io::stdout(), "{}", created.directory.display())?;
    Ok(())
}
