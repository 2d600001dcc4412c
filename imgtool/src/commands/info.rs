//! `imgtool info`: the store and what it holds.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use serde_json::Value;

use crate::bundle;
use crate::manifest::Platform;
use crate::output;
use crate::store::Store;
use crate::{table, userns};

/// The program, and the directory of its containers.
const RUNTIME: &str = "runtime";

/// Print where the store is and what it holds
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(store: &Store, _args: &Args) -> Result<()> {
    let index = store.index()?;
    let images: BTreeSet<_> = index.manifests.iter().map(|entry| &entry.digest).collect();
    let (blobs, bytes) = store.blob_usage()?;
    let owners = userns::enter()?;
    let mut out = output::stdout();
    let Containers { running, paused, stopped } = Containers::count();
    writeln!(out, "Containers: {}", running + paused + stopped)?;
    writeln!(out, " Running: {running}")?;
    writeln!(out, " Paused: {paused}")?;
    writeln!(out, " Stopped: {stopped}")?;
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

/// How many containers there are, whatever runtime has them.
#[derive(Default)]
struct Containers {
    running: usize,
    paused: usize,
    /// Those that were created and not started, too.
    stopped: usize,
}

impl Containers {
    /// Ours by what the runtime says, which knows those of before a reboot as well; others, and
    /// ours where it does not answer, by their records.
    fn count() -> Self {
        let mut counts = Self::default();
        let listed = listed();
        let ours = |root: &Path| root.file_name() == Some(RUNTIME.as_ref());
        for container in bundle::containers() {
            match container.running {
                _ if listed.is_some() && ours(&container.root) => {}
                true => counts.running += 1,
                false => counts.stopped += 1,
            }
        }
        for container in listed.iter().flatten() {
            match container["status"].as_str() {
                Some("running") => counts.running += 1,
                Some("paused") => counts.paused += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }
}

/// The containers of our own runtime; `None` where there is no runtime, or none that answers.
fn listed() -> Option<Vec<Value>> {
    let mut list = Command::new(bundle::sibling(RUNTIME));
    list.args(["list", "-f", "json"]).stdin(Stdio::null()).stderr(Stdio::null());
    let told = list.output().ok().filter(|told| told.status.success())?;
    serde_json::from_slice::<Option<Vec<Value>>>(&told.stdout).ok().map(Option::unwrap_or_default)
}
