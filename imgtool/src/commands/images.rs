//! `imgtool images`: what is in the store.

mod filter;
mod tree;

pub(super) use filter::time;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use self::filter::Filters;
use crate::digest::Digest;
use crate::error::printable;
use crate::manifest::Descriptor;
use crate::output;
use crate::reference::Reference;
use crate::store::{Store, entry_name};
use crate::table::{self, NONE};
use crate::template::Format;

/// List the images of the store
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only names that match; "*" and "?" stand for parts of a path component
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pattern: Option<String>,
    /// Accepted for docker's sake: there are no hidden images here
    #[arg(short, long)]
    all: bool,
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print the digests of manifests, too
    #[arg(long)]
    digests: bool,
    /// Print the images of each platform below their index, and what they take; U is for in use
    #[arg(long, conflicts_with_all = ["quiet", "digests", "format"])]
    tree: bool,
    /// Only such: dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME,
    /// reference=PATTERN, id=PREFIX
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// "table", "json", or a Go template of .ID .Repository .Tag .Digest .CreatedSince .CreatedAt
    /// .Size; "table TEMPLATE" with headings
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
}

struct Row {
    name: Option<Reference>,
    entry: Descriptor,
    id: Digest,
    created: Option<Timestamp>,
    size: u64,
    labels: BTreeMap<String, String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let format = Format::parse(&args.format)?;
    let filters = Filters::parse(store, &args.filters)?;
    let mut rows = rows(store)?;
    rows.retain(|row| filters.keep(row));
    if let Some(pattern) = &args.pattern {
        rows.retain(|row| row.name.as_ref().is_some_and(|name| matches_name(pattern, name)));
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    let shown = |id: &Digest| if args.no_trunc { id.to_string() } else { id.short().to_owned() };
    let id = |row: &Row| shown(&row.id);
    if args.tree {
        return tree::write(store, &rows, shown);
    }
    let mut out = output::stdout();
    if args.quiet {
        for row in &rows {
            writeln!(out, "{}", id(row))?;
        }
        return Ok(());
    }
    let now = Timestamp::now();
    if !matches!(format, Format::Table) {
        return format.write(&mut out, rows.iter().map(|row| json(row, &id(row), now)));
    }
    let mut header = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if args.digests {
        header.insert(2, "DIGEST");
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![
                repository(row),
                tag(row),
                id(row),
                table::age(row.created, now),
                table::size(row.size),
            ];
            if args.digests {
                cells.insert(2, row.entry.digest.to_string());
            }
            cells
        })
        .collect();
    table::write(&mut out, &header, &cells)?;
    Ok(())
}

fn rows(store: &Store) -> Result<Vec<Row>> {
    let index = store.index()?;
    let rows = index.manifests.iter().map(|entry| {
        let mut row = Row {
            name: entry_name(entry),
            entry: entry.clone(),
            id: entry.digest.clone(),
            created: None,
            size: 0,
            labels: BTreeMap::new(),
        };
        // What is no image of layers (an artifact) or can't be read still has
        // a line, so that it can be seen and removed.
        if let Ok(image) = store.any_image(entry) {
            row.id = image.id().clone();
            row.created = image.created();
            row.size = image.size();
            row.labels = image.config.config.labels;
        }
        row
    });
    Ok(rows.collect())
}

fn repository(row: &Row) -> String {
    row.name.as_ref().map_or_else(|| NONE.to_owned(), |name| printable(&name.familiar_repository()))
}

fn tag(row: &Row) -> String {
    let tag = row.name.as_ref().and_then(|name| name.tag());
    tag.map_or_else(|| NONE.to_owned(), printable)
}

fn json(row: &Row, id: &str, now: Timestamp) -> Value {
    let created_at = row.created.map_or_else(
        || "N/A".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
    );
    let labels: Vec<String> =
        row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Containers": "N/A",
        "CreatedAt": created_at,
        "CreatedSince": table::age(row.created, now),
        "Digest": row.entry.digest,
        "ID": id,
        "Labels": printable(&labels.join(",")),
        "Repository": repository(row),
        "SharedSize": "N/A",
        "Size": table::size(row.size),
        "Tag": tag(row),
        "UniqueSize": "N/A",
    })
}

/// Tries the pattern against the short and the full name, with and without tag.
fn matches_name(pattern: &str, name: &Reference) -> bool {
    let full = name.to_string();
    let full_repository = format!("{}/{}", name.host(), name.path());
    [name.familiar_repository(), name.familiar(), full_repository, full]
        .iter()
        .any(|text| glob(pattern.as_bytes(), text.as_bytes()))
}

/// `*` is any run of characters but `/`, `?` any one but `/`. Linear in the
/// text for each star: it remembers only the last one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(b'?') if text[t] != b'/' => {
                p += 1;
                t += 1;
                continue;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match star {
            Some((at, from)) if text[from] != b'/' => {
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stop_at_slashes() {
        let name = Reference::parse("alpine:3.18").unwrap();
        for (pattern, wanted) in [
            ("alpine", true),
            ("alp*", true),
            ("alpine:3*", true),
            ("a?pine", true),
            ("docker.io/library/alpine", true),
            ("docker.io/*", false),
            ("*/*/alpine", true),
            ("busybox", false),
            ("", false),
        ] {
            assert_eq!(matches_name(pattern, &name), wanted, "{pattern}");
        }
    }
}
