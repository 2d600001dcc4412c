//! `imgtool import`: a file system's archive becomes an image of one layer.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::commit::change::{self, Change};
use crate::layer::packed::store_archive;
use crate::manifest::{History, Platform};
use crate::output;
use crate::reference::Reference;
use crate::rewrite::{self, Parts};
use crate::store::Store;
use crate::transport::web;

/// Make an image of a file system's tar archive
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Archive, compressed or not: a file, an http(s) URL, or "-" for standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Apply a Dockerfile instruction, as commit does
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// What it is
    #[arg(short, long)]
    message: Option<String>,
    /// What it is for [default: this host]
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse)]
    platform: Option<Platform>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    let name = name.map(Reference::with_default_tag);
    let changes: Vec<Change> =
        args.changes.iter().map(|text| Change::parse(text)).collect::<Result<_>>()?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let created = rewrite::now()?;
    let step = History {
        created: Some(created.to_string()),
        comment: Some(
            args.message.clone().unwrap_or_else(|| format!("Imported from {}", args.source)),
        ),
        ..History::default()
    };
    let mut parts = Parts::empty(&platform.os, &platform.architecture, platform.variant.as_deref());
    change::apply(&changes, &mut parts.config.config);
    let lock = store.lock_shared()?;
    let import = || {
        let (layer, diff_id) = store_archive(store, open(&args.source)?)?;
        parts.add_layer(layer, diff_id, step);
        let (id, entry) = parts.write(store, created)?;
        match &name {
            Some(name) => drop(store.tag(name, &entry)?),
            None => store.add_unnamed(&entry)?,
        }
        anyhow::Ok(id)
    };
    let imported = import().with_context(|| format!("import {}", args.source));
    drop(lock);
    if imported.is_err() {
        store.discard_orphans()?;
    }
    writeln!(output::stdout(), "{}", imported?)?;
    Ok(())
}

fn open(source: &str) -> Result<Box<dyn Read + Send>> {
    if source == "-" {
        let stdin = std::io::stdin();
        ensure!(!stdin.is_terminal(), "it is a terminal: name a file, or pipe an archive in");
        return Ok(Box::new(stdin));
    }
    if source.starts_with("http://") || source.starts_with("https://") {
        return web::get(source);
    }
    Ok(Box::new(File::open(Path::new(source)).context("open")?))
}
