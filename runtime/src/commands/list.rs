//! `list`: all containers under the root, as a table, as JSON, or just their ids.

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};

use super::state::Document;
use crate::args::List;
use crate::error;
use crate::host::Host;
use crate::state::{Record, StateStore};

pub(super) fn run(args: &List, host: &Host, store: &StateStore) -> Result<u8> {
    let json = match args.format.as_str() {
        "table" => false,
        "json" => true,
        _ => bail!("invalid format option"),
    };
    let Some(ids) = store.ids()? else {
        if store.root() != host.default_root() {
            let root = store.root().display();
            return Err(nix::errno::Errno::ENOENT).with_context(|| format!("open {root}"));
        }
        return print(args.quiet, json, &[]);
    };
    let records: Vec<Record> =
        ids.iter().filter_map(|id| told(store, "load container", id, store.load(id))).collect();
    let mut rows = Vec::with_capacity(records.len());
    for record in &records {
        let row = owner(store, &record.id).and_then(|owner| Document::new(store, record, owner));
        rows.extend(told(store, "status for", &record.id, row));
    }
    print(args.quiet, json, &rows)
}

/// A broken entry must not hide the others: it is told on stderr, bare, as runc does. One that was
/// deleted while we looked is not broken.
fn told<T>(store: &StateStore, what: &str, id: &str, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            if store.directory(id).exists() {
                // Nobody is left to tell when stderr fails.
                let _ = writeln!(std::io::stderr(), "{what} {id}: {}", error::render(&error));
            }
            None
        }
    }
}

fn print(quiet: bool, json: bool, rows: &[Document]) -> Result<u8> {
    let text = if quiet {
        rows.iter().fold(String::new(), |text, row| text + row.id + "\n")
    } else if !json {
        table(rows)
    } else if rows.is_empty() {
        "null\n".to_owned()
    } else {
        serde_json::to_string(rows).context("write the list")? + "\n"
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the list")?;
    Ok(0)
}

/// Columns at least 12 wide, three blanks apart.
fn table(rows: &[Document]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut lines = vec![header];
    lines.extend(rows.iter().map(|row| {
        [
            row.id.to_owned(),
            row.pid.to_string(),
            row.status.to_string(),
            row.bundle.clone(),
            row.created.to_owned(),
            row.owner.clone(),
        ]
    }));
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count() + 3).max().unwrap_or(0).max(12)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(text, "{cell:width$}");
        }
        text.push_str(&line[5]);
        text.push('\n');
    }
    text
}

/// The owner of the state directory, by name where /etc/passwd has one.
fn owner(store: &StateStore, id: &str) -> Result<String> {
    let directory = store.directory(id);
    let uid = std::fs::metadata(&directory)
        .with_context(|| format!("stat {}", directory.display()))?
        .uid()
        .to_string();
    // No passwd file, no names.
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    Ok(name.unwrap_or_else(|| format!("#{uid}")))
}
