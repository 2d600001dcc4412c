//! `imgtool bundle`: an image becomes a bundle that a runtime can run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::bundle::{self, Created, Request, flags};
use crate::output;
use crate::store::Store;

/// Make an OCI bundle from an image and print its directory
#[derive(Debug, clap::Args)]
// As with docker, -h is the host name.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
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
    // A bundle whose place nobody learns would stay for ever.
    print(&created).or_else(|error| {
        bundle::remove(store, &created.directory, None).context("remove the bundle again")?;
        Err(error)
    })
}

fn print(created: &Created) -> Result<()> {
    for note in &created.notes {
        output::say(note);
    }
    writeln!(output::stdout(), "{}", created.directory.display())?;
    Ok(())
}
