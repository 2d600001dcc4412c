//! `list`: all containers under the root, those that have ended among them if they are supervised:
//! as a table, as JSON, for people, or just their ids.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::state::Document;
use crate::args::List;
use crate::error;
use crate::host::Host;
use crate::records::{Records, Supervised, health};
use crate::state::{Record, StateStore};

mod filter;
mod fit;
pub(super) mod table;
mod wide;

use filter::Filter;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Json,
    Wide,
}

/// What is known of one container: its live state, its record, or both.
struct Found {
    id: String,
    live: Option<Record>,
    kept: Option<Supervised>,
    /// What its checks came to, if it is checked.
    health: Option<health::Word>,
}

pub(super) fn run(args: &List, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    let format = match args.format.as_str() {
        "table" => Format::Table,
        "json" => Format::Json,
        "wide" if host.program == crate::host::Program::Runtime => Format::Wide,
        _ => bail!("invalid format option"),
    };
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let found = find(host, store, records)?;
    let found: Vec<Found> = found
        .into_iter()
        .filter(|one| filters.is_empty() || wide::Row::new(one, store).matches(&filters))
        .collect();
    let text = if args.quiet {
        found.iter().fold(String::new(), |text, one| text + &one.id + "\n")
    } else if format == Format::Wide {
        wide::text(&found, store, fit::width())
    } else {
        let documents = found.iter().filter_map(|one| document(one, store, records));
        of_documents(&documents.collect::<Vec<_>>(), format)?
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the list")?;
    Ok(0)
}

/// All there are, by id.
fn find(host: &Host, store: &StateStore, records: &Records) -> Result<Vec<Found>> {
    let live = store.ids()?;
    let kept = records.all()?;
    if live.is_none() && kept.is_empty() && store.root() != host.default_root() {
        let root = store.root().display();
        return Err(nix::errno::Errno::ENOENT).with_context(|| format!("open {root}"));
    }
    let mut found: Vec<Found> = Vec::new();
    for id in live.unwrap_or_default() {
        let record = told(&store.directory(&id), "load container", &id, store.load(&id));
        found.extend(record.map(|live| Found { id, live: Some(live), kept: None, health: None }));
    }
    for (id, record) in kept {
        let directory = records.directory(&id)?;
        let Some(record) = told(&directory, "load the record of", &id, record) else { continue };
        match found.iter_mut().find(|one| one.id == id) {
            Some(one) => {
                if record.is_checked() {
                    let health = told(&directory, "load the health of", &id, records.health(&id));
                    one.health = health.flatten().map(|health| health.status);
                }
                one.kept = Some(record);
            }
            None => found.push(Found { id, live: None, kept: Some(record), health: None }),
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn document<'a>(one: &'a Found, store: &StateStore, records: &Records) -> Option<Document<'a>> {
    let directory = match &one.live {
        Some(_) => store.directory(&one.id),
        None => records.directory(&one.id).ok()?,
    };
    let row = owner(&directory).and_then(|owner| match (&one.live, &one.kept) {
        (Some(live), _) => Document::new(store, live, owner),
        (None, Some(kept)) => Ok(Document::of_exited(kept, owner)),
        (None, None) => bail!("nothing is known of it"),
    });
    told(&directory, "status for", &one.id, row)
}

/// A broken entry must not hide the others: it is told on stderr, bare, as runc does. One that was
/// deleted while we looked is not broken.
fn told<T>(directory: &Path, what: &str, id: &str, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            if directory.exists() {
                // Nobody is left to tell when stderr fails.
                let _ = writeln!(std::io::stderr(), "{what} {id}: {}", error::render(&error));
            }
            None
        }
    }
}

fn of_documents(rows: &[Document], format: Format) -> Result<String> {
    if format == Format::Table {
        let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
        let lines = rows.iter().map(|row| {
            [
                row.id.to_owned(),
                row.pid.to_string(),
                row.status.to_string(),
                row.bundle.clone(),
                row.created.to_owned(),
                row.owner.clone(),
            ]
        });
        return Ok(table::columns(&std::iter::once(header).chain(lines).collect::<Vec<_>>(), 12));
    }
    if rows.is_empty() {
        return Ok("null\n".to_owned());
    }
    Ok(serde_json::to_string(rows).context("write the list")? + "\n")
}

/// The owner of the container's directory, by name where /etc/passwd has one.
fn owner(directory: &Path) -> Result<String> {
    let uid = std::fs::metadata(directory)
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
