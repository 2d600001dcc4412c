//! `imgtool verify`: whether the store is what it says.

use std::io::Write;

use anyhow::{Result, bail};

use crate::error::printable;
use crate::output;
use crate::store::Store;

/// Check every blob and every reference of the store
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print nothing but what is wrong
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let _lock = store.lock_reading()?;
    let report = store.verify()?;
    let mut out = output::stdout();
    for problem in &report.problems {
        writeln!(out, "{}", printable(problem))?;
    }
    if !report.problems.is_empty() {
        bail!("store {} has {} faults", store.root().display(), report.problems.len());
    }
    if !args.quiet {
        writeln!(out, "{} images and {} blobs are whole", report.images, report.blobs)?;
    }
    Ok(())
}
