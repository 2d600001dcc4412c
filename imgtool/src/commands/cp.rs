//! `imgtool cp`: files and directories between the host and a bundle.

use std::io::{self, BufReader, BufWriter, Write};

use anyhow::{Result, bail, ensure};

use crate::bundle;
use crate::exchange::{self, Place, Side, Source};
use crate::layer::pack::Owner;
use crate::output;
use crate::store::Store;
use crate::userns;

const BUFFER: usize = 256 << 10;

/// Copy files or directories between a bundle and the host
///
/// BUNDLE is the directory of a bundle, or the name of a bundle or of its container. A directory is
/// copied into one that exists, or becomes what does not exist; DIR/. stands for what is in it.
/// `-` is a tar archive on standard input or output.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Copy what a symbolic link at SOURCE leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Keep owners; else all belongs to root in a bundle, and to the caller on the host
    #[arg(short, long)]
    archive: bool,
    /// Accepted and of no effect: nothing is printed
    #[arg(short, long)]
    quiet: bool,
    /// BUNDLE:PATH, a path on the host, or -
    source: String,
    /// BUNDLE:PATH, a path on the host, or -
    destination: String,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let from = Side::parse(store, &args.source)?;
    let to = Side::parse(store, &args.destination)?;
    let owner = if args.archive { Owner::Kept } else { Owner::Root };
    match (&from, &to) {
        (Side::Bundle(..), Side::Bundle(..)) => bail!(
            "between bundles: imgtool cp {} - | imgtool cp - {}",
            args.source,
            args.destination
        ),
        (Side::Bundle(..), _) | (_, Side::Bundle(..)) => {}
        _ => bail!("neither {} nor {} is in a bundle: BUNDLE:PATH", args.source, args.destination),
    }
    let stdout = output::stdout();
    ensure!(
        to != Side::Stream || !stdout.is_terminal(),
        "cowardly refusing to write an archive to a terminal: redirect it"
    );
    let ids = |side: &Side| match side {
        Side::Bundle(directory, _) => bundle::ids(directory),
        Side::Host(_) | Side::Stream => Ok(None),
    };
    let (read, written) = (ids(&from)?, ids(&to)?);
    // Roots are found while all processes can still be seen.
    let (from, to) = (from.root(store)?, to.root(store)?);
    userns::enter()?;
    if let Some(ids) = &read {
        userns::shift::read_as(ids);
    }
    if let Some(ids) = &written {
        userns::shift::write_as(ids)?;
    }
    match (from, to) {
        (Some(from), Some(to)) => {
            let source = Source::find(&from, args.follow_link)?;
            let destination = Place::find(&to)?.for_source(&source)?;
            exchange::copy(&source, &destination, owner).map(say)
        }
        (Some(from), None) => {
            let source = Source::find(&from, args.follow_link)?;
            let mut out = BufWriter::with_capacity(BUFFER, stdout);
            exchange::pack(&source, source.archive_name(), Owner::Kept, &mut out)?;
            Ok(out.flush()?)
        }
        (None, Some(to)) => {
            let directory = Place::find(&to)?.directory()?;
            let mut input = BufReader::with_capacity(BUFFER, io::stdin().lock());
            exchange::unpack(&mut input, &directory).map(say)
        }
        (None, None) => Ok(()),
    }
}

fn say(warnings: Vec<String>) {
    for warning in warnings {
        output::say(&warning);
    }
}
