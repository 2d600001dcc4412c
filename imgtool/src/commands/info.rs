//! `imgtool info`: the store and what it holds.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;

use crate::bundle;
use crate::manifest::Platform;
use crate::output;
use crate::store::Store;
use crate::{table, userns};

/// Print where the store is and what it holds
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(store: &Store, _args: &Args) -> Result<()> {
    let index = store.index()?;
    let images: BTreeSet<_> = index.manifests.iter().map(|entry| &entry.digest).collect();
    let (blobs, bytes) = store.blob_usage()?;
    let owners = userns::enter()?;
    let mut out = output::stdout();
    let containers = bundle::containers();
    let running = containers.iter().filter(|container| container.running).count();
    writeln!(out, "Containers: {}", containers.len())?;
    writeln!(out, " Running: {running}")?;
    writeln!(out, " Stopped: {}", containers.len() - running)?;
    writeln!(out, "Version: {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "Store: {}", store.root().display())?;
    writeln!(out, "Platform: {}", Platform::host())?;
    writeln!(out, "Owners of files: {owners}")?;
    writeln!(out, "Images: {}", images.len())?;
    writeln!(out, "Blobs: {blobs} ({})", table::size(bytes))?;
    let bundles = bundle::list(store)?;
    let changed = bundles.iter().map(|bundle| bundle.size_bytes).sum();
    writeln!(out, "Bundles: {} ({} of their own)", bundles.len(), table::size(changed))?;
    for (what, directory) in [
        ("Unpacked layers", "layers"),
        ("Volumes", "volumes"),
        ("Build cache", "build"),
        ("Unfinished downloads", "staging"),
    ] {
        let bytes = bundle::bytes_beneath(&store.root().join(directory))?;
        writeln!(out, "{what}: {}", table::size(bytes))?;
    }
    Ok(())
}
