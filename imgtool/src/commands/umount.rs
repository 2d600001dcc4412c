//! `imgtool umount`: takes an overlay off; the bundle stays as it is.

use anyhow::Result;

use crate::bundle;
use crate::store::Store;

/// Unmount the root file systems of bundles that nobody uses
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directories, or names of bundles in the store
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let mut failed = super::Failures::default();
    for word in &args.bundles {
        failed.collect(
            bundle::locate(store, word).and_then(|bundle| bundle::unmount(store, &bundle)),
        );
    }
    failed.into_result()
}
