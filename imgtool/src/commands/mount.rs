//! `imgtool mount`: the root file system of an overlay bundle, back after a reboot.

use std::io::Write;

use anyhow::Result;

use crate::bundle;
use crate::output;
use crate::store::Store;

/// Mount the root file systems of bundles, if they are not, and print where
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directories, or names of bundles in the store
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let mut failed = super::Failures::default();
    for word in &args.bundles {
        let mounted = bundle::locate(store, word).and_then(|bundle| bundle::mount(store, &bundle));
        failed.collect(mounted.and_then(|rootfs| {
            writeln!(output::stdout(), "{}", rootfs.display())?;
            Ok(())
        }));
    }
    failed.into_result()
}
