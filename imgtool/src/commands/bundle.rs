//! `imgtool bundle`: an image becomes a bundle that a runtime can run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{access, pull};
use crate::bundle::{self, Created, Request, flags};
use crate::error::{NoSuchImage, NoSuchPlatform};
use crate::manifest::Platform;
use crate::output;
use crate::progress::Progress;
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
    /// Whether the image is pulled first: never, missing or always [default: never]
    #[arg(long, value_name = "WHEN")]
    pull: Option<When>,
    /// Show nothing of the pull
    #[arg(short, long)]
    quiet: bool,
    /// The image of an index to take [default: this host's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
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

/// When an image is pulled.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "lower")]
enum When {
    #[default]
    Never,
    Missing,
    Always,
}

impl When {
    /// Pulls it, if it is to be.
    fn pull(
        self,
        store: &Store,
        image: &str,
        platform: Option<&Platform>,
        progress: &Progress,
    ) -> Result<()> {
        let is_missing = || match store.resolve_for(image, platform) {
            Ok(found) => Ok(!platform.is_none_or(|wanted| wanted.runs(&found.config.platform()))),
            Err(error) if error.is::<NoSuchImage>() || error.is::<NoSuchPlatform>() => Ok(true),
            Err(error) => Err(error),
        };
        if self == Self::Always || (self == Self::Missing && is_missing()?) {
            let access = access::Flags::default().access()?;
            pull::bring(store, image, platform, &access, progress)?;
        }
        Ok(())
    }
}

pub(crate) fn run(store: &Store, args: Args) -> Result<()> {
    let cwd = std::env::current_dir().context("find the current directory")?;
    let options = flags::resolve(args.words, args.command, &cwd, |key| std::env::var(key).ok())?;
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let progress = Progress::aside(args.quiet);
    args.pull.unwrap_or_default().pull(store, &args.image, platform.as_ref(), &progress)?;
    let request = Request {
        image: args.image,
        platform,
        directory: args.directory,
        copy: args.copy,
        options,
    };
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
