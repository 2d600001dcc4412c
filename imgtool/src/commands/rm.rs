//! `imgtool rm`: bundles away, with their mounts.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::bundle;
use crate::output;
use crate::store::Store;

/// The state of a container is small; this is a hundred times what any runtime sends.
const MAX_STATE_BYTES: u64 = 1 << 20;

/// Unmount and remove bundles that no container uses
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directories, or names of bundles in the store
    #[arg(required_unless_present = "from_hook", value_name = "BUNDLE")]
    bundles: Vec<String>,
    /// As a poststop hook: remove this bundle of the container whose state is on standard input
    #[arg(long, value_name = "DIR", conflicts_with = "bundles")]
    from_hook: Option<PathBuf>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    if let Some(directory) = &args.from_hook {
        return remove_for_hook(store, directory);
    }
    let mut failed = super::Failures::default();
    // A look at each of thousands is what `bundles` and `prune` are for.
    bundle::clear(store).into_iter().for_each(|left| failed.collect(Err(left)));
    for word in &args.bundles {
        let removed = bundle::locate(store, word)
            .and_then(|directory| bundle::remove(store, &directory, None));
        failed.collect(removed.and_then(|()| {
            writeln!(output::stdout(), "{word}")?;
            Ok(())
        }));
    }
    failed.into_result()
}

/// The container itself may still be on record while its hooks run; others must not be.
fn remove_for_hook(store: &Store, directory: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct ContainerState {
        id: String,
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(MAX_STATE_BYTES)
        .read_to_end(&mut bytes)
        .context("read the container's state")?;
    let state: ContainerState =
        serde_json::from_slice(&bytes).context("parse the container's state")?;
    if !directory.exists() {
        let mut failed = super::Failures::default();
        bundle::collect(store).into_iter().for_each(|left| failed.collect(Err(left)));
        return failed.into_result();
    }
    bundle::remove(store, directory, Some(&state.id))
}
