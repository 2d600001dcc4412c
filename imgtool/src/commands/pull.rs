//! `imgtool pull`: an image from a registry.

use std::io::Write;

use anyhow::{Context, Result, ensure};

use crate::copy::{self, Wanted};
use crate::error::printable;
use crate::manifest::{Descriptor, Platform};
use crate::output;
use crate::progress::Progress;
use crate::reference::{DEFAULT_TAG, Reference};
use crate::store::{Store, entry_name};
use crate::transport::registry::Registry;

/// Pull an image from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
    /// The image of an index to take [default: this host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// Print the full name only
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let typed = Reference::parse(&args.image)?;
    let defaulted = typed.tag().is_none() && typed.digest().is_none();
    let name = typed.with_default_tag().digest_over_tag();
    let say = |text: String| -> Result<()> {
        if !args.quiet {
            writeln!(output::stdout(), "{text}")?;
        }
        Ok(())
    };
    if defaulted {
        say(format!("Using default tag: {DEFAULT_TAG}"))?;
    }
    let progress = Progress::new(args.quiet);
    let lock = store.lock_shared()?;
    let mut registry = Registry::open(store, &name, &progress)
        .with_context(|| format!("pull {}", name.familiar()))?;
    let pulled = pull(store, &name, args.platform.as_ref(), &mut registry);
    drop(lock);
    let (entry, newer) = match pulled {
        Ok(pulled) => pulled,
        Err(error) => {
            if !registry.is_interrupted() {
                store.discard_orphans()?;
            }
            return Err(error.context(format!("pull {}", name.familiar())));
        }
    };
    say(format!("Digest: {}", entry.digest))?;
    let familiar = printable(&name.familiar());
    say(if newer {
        format!("Status: Downloaded newer image for {familiar}")
    } else {
        format!("Status: Image is up to date for {familiar}")
    })?;
    writeln!(output::stdout(), "{name}")?;
    Ok(())
}

/// Brings the image into the store; also says whether anything was new.
fn pull(
    store: &Store,
    name: &Reference,
    platform: Option<&Platform>,
    registry: &mut Registry<'_>,
) -> Result<(Descriptor, bool)> {
    let from_environment = std::env::var("DOCKER_DEFAULT_PLATFORM")
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| Platform::parse(&text))
        .transpose()
        .context("read DOCKER_DEFAULT_PLATFORM")?;
    let chosen = platform.or(from_environment.as_ref());
    let host = Platform::host();
    let wanted = chosen.unwrap_or(&host);
    let entry = registry.resolve()?;
    registry.announce()?;
    let had = store
        .index()?
        .manifests
        .iter()
        .any(|e| e.digest == entry.digest && entry_name(e).as_ref() == Some(name))
        && store.image_for(&entry, Some(wanted)).is_ok();
    copy::copy(registry, store, &entry, &Wanted::Platform(wanted.clone()))?;
    let image = store.image_for(&entry, Some(wanted))?;
    let actual = image.config.platform();
    if chosen.is_some() {
        ensure!(wanted.runs(&actual), "image is for {actual}, not for {wanted}");
    } else if !wanted.runs(&actual) {
        output::say(&format!("warning: image is for {actual}, this host is {wanted}"));
    }
    store.tag(name, &entry)?;
    Ok((entry, !had))
}
