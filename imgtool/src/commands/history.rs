//! `imgtool history`: how an image came about, step by step, newest first.

use std::io::Write;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::printable;
use crate::manifest::{History, Platform};
use crate::output;
use crate::store::{Image, Store};
use crate::table;
use crate::template::Format;

const CREATED_BY: usize = 45;
const MISSING: &str = "<missing>";

/// Print how an image came about
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ID
    image: String,
    /// Sizes and times for people
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Print whole IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
    /// "table", "json", or a Go template of .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// The image of an index to take [default: this host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse)]
    platform: Option<Platform>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let format = Format::parse(&args.format)?;
    let image = store.resolve_for(&args.image, args.platform.as_ref())?;
    let rows = rows(&image, args);
    let mut out = output::stdout();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    if args.quiet {
        for row in &rows {
            writeln!(out, "{}", text(row, "ID"))?;
        }
        return Ok(());
    }
    if !matches!(format, Format::Table) {
        return format.write(&mut out, rows.into_iter());
    }
    let created = if args.human { "CreatedSince" } else { "CreatedAt" };
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| ["ID", created, "CreatedBy", "Size", "Comment"].map(|key| text(row, key)).into())
        .collect();
    table::write(&mut out, &["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &cells)?;
    Ok(())
}

fn rows(image: &Image, args: &Args) -> Vec<Value> {
    // Steps with a layer and the layers go in step; there may be fewer steps than layers.
    let mut layers = image.layers.iter();
    let mut steps: Vec<(History, Option<(u64, String)>)> = image
        .config
        .history
        .iter()
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            (step.clone(), layer.map(|layer| (layer.size, layer.digest.to_string())))
        })
        .collect();
    steps.extend(
        layers.map(|layer| (History::default(), Some((layer.size, layer.digest.to_string())))),
    );
    steps.reverse();
    let now = Timestamp::now();
    let id = match args.no_trunc {
        true => image.id().to_string(),
        false => image.id().short().to_owned(),
    };
    let row = |(number, (step, layer)): (usize, (History, Option<(u64, String)>))| {
        let time: Option<Timestamp> = step.created.as_ref().and_then(|time| time.parse().ok());
        let (size, digest) = layer.unwrap_or_default();
        json!({
            "ID": if number == 0 { id.as_str() } else { MISSING },
            "CreatedSince": table::age(time, now),
            "CreatedAt": time.map_or_else(|| "N/A".to_owned(), |time| time.to_string()),
            "CreatedBy": command(step.created_by.as_deref().unwrap_or_default(), args.no_trunc),
            "Size": if args.human { table::size(size) } else { size.to_string() },
            "Comment": printable(step.comment.as_deref().unwrap_or_default()),
            "Layer": digest,
        })
    };
    steps.into_iter().enumerate().map(row).collect()
}

/// The command of a step on one line.
fn command(text: &str, whole: bool) -> String {
    let text = printable(&text.replace(['\t', '\n'], " "));
    match text.char_indices().nth(CREATED_BY - 1) {
        Some((end, _)) if !whole && text.chars().count() > CREATED_BY => {
            format!("{}…", &text[..end])
        }
        _ => text,
    }
}
