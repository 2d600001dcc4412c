//! `imgtool bundles`: the bundles made from this store, and who uses them.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use crate::bundle::{self, Listed};
use crate::error::printable;
use crate::output;
use crate::reference::Reference;
use crate::store::Store;
use crate::table;

/// List the bundles of the store
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print directories only
    #[arg(short, long)]
    quiet: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns
    Table,
    /// One JSON object per line
    Json,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    for left in bundle::collect(store) {
        output::say(&format!("{left:#}"));
    }
    let bundles = bundle::list(store)?;
    let mut out = output::stdout();
    if args.quiet {
        for listed in &bundles {
            writeln!(out, "{}", listed.directory.display())?;
        }
        return Ok(());
    }
    if args.format == Format::Json {
        for listed in &bundles {
            serde_json::to_writer(&mut out, &json(listed)).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = bundles.iter().map(row).collect();
    table::write(&mut out, &["BUNDLE", "IMAGE", "CONTAINER", "MOUNTED", "SIZE"], &rows)?;
    Ok(())
}

fn row(listed: &Listed) -> Vec<String> {
    let mounted = match listed.mounted {
        Some(true) => "yes",
        Some(false) => "no",
        None => "copy",
    };
    vec![
        printable(&listed.directory.to_string_lossy()),
        printable(&familiar(&listed.record.image)),
        if listed.containers.is_empty() { "-".to_owned() } else { listed.containers.join(",") },
        mounted.to_owned(),
        table::size(listed.size_bytes),
    ]
}

fn json(listed: &Listed) -> serde_json::Value {
    json!({
        "bundle": listed.directory.to_string_lossy(),
        "image": listed.record.image,
        "imageID": listed.record.config.to_string(),
        "manifest": listed.record.manifest.digest.to_string(),
        "mode": listed.record.mode,
        "created": listed.record.created,
        "containers": listed.containers,
        "mounted": listed.mounted,
        "size": listed.size_bytes,
    })
}

/// The image's name as users write it; an image without a name has its ID.
fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}
