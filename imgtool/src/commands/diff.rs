//! `imgtool diff`: what a container changed.

use std::io::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::json;

use crate::bundle;
use crate::commit::tree::{Tree, bundle_config};
use crate::error::printable;
use crate::layer::diff::{Change, Changes, changes};
use crate::output;
use crate::store::Store;
use crate::userns;

use std::os::fd::AsFd;

/// List what was added (A), changed (C) or deleted (D) in a bundle since it was made
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of a bundle, or the name of a bundle or of its container
    bundle: String,
    /// How to print
    #[arg(long, value_enum, default_value = "plain")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A letter and a path per line
    Plain,
    /// One JSON object per line
    Json,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let directory = bundle::locate(store, &args.bundle)?;
    let changes = {
        let _lock = store.lock_shared()?;
        let held = bundle::hold(store, &directory)?;
        userns::enter()?;
        let record = &held.entry.record;
        let image = store
            .image(&record.manifest)
            .with_context(|| format!("read the image {} of the bundle", record.image))?;
        let tree = Tree::open(store, &image, &directory, record, &bundle_config(&directory)?)?;
        changes(tree.root.as_fd(), &tree.baseline(), &tree.mount_points)
            .with_context(|| format!("compare {}", directory.display()))?
    };
    print(&changes, args.format)
}

fn print(changes: &Changes, format: Format) -> Result<()> {
    let mut out = output::stdout();
    for (path, change) in changes {
        let letter = match change {
            Change::Added => "A",
            Change::Changed => "C",
            Change::Deleted => "D",
        };
        let path = format!("/{}", String::from_utf8_lossy(path));
        match format {
            Format::Plain => writeln!(out, "{letter} {}", printable(&path))?,
            Format::Json => writeln!(out, "{}", json!({"kind": letter, "path": path}))?,
        }
    }
    Ok(())
}
