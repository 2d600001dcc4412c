//! `imgtool prune`: what nobody needs any more.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::images::time;
use crate::bundle;
use crate::digest::Digest;
use crate::error::printable;
use crate::manifest::Descriptor;
use crate::output;
use crate::store::{Image, Store, cache, entry_name};
use crate::table;

/// Remove images without a name, bundles whose directory is gone, and what a kill left
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove all images that no bundle uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Remove what builds keep for the next ones too
    #[arg(long)]
    build_cache: bool,
    /// Only such: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
}

#[derive(Default)]
struct Filters {
    until: Option<Timestamp>,
    labels: Vec<(String, Option<String>, bool)>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let filters = filters(&args.filters)?;
    let mut out = output::stdout();
    if !args.force && !args.dry_run && !confirm(args, &mut out)? {
        return Ok(());
    }
    let mut failed = super::Failures::default();
    bundle::collect(store).into_iter().for_each(|left| failed.collect(Err(left)));
    let lock = store.lock_exclusive()?;
    let (_, before) = store.blob_usage()?;
    let mut lines = Vec::new();
    let chosen = chosen(store, args.all, &filters)?;
    for entry in &chosen {
        if let Some(name) = entry_name(entry) {
            lines.push(format!("untagged: {}", printable(&name.familiar())));
        }
    }
    lines.extend(deleted(store, &chosen)?);
    if !args.dry_run {
        for entry in &chosen {
            store.forget(entry)?;
        }
    }
    if !args.dry_run {
        if args.build_cache {
            cache::clear(store)?;
        }
        store.collect_garbage(&lock)?;
        store.forget_downloads(&lock)?;
    }
    let (_, after) = store.blob_usage()?;
    if !lines.is_empty() {
        writeln!(out, "{}", if args.dry_run { "Would delete:" } else { "Deleted Images:" })?;
        let mut seen = BTreeSet::new();
        for line in lines.iter().filter(|line| seen.insert(line.as_str())) {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "Total reclaimed space: {}", table::size(before.saturating_sub(after)))?;
    failed.into_result()
}

fn confirm(args: &Args, out: &mut impl Write) -> Result<bool> {
    let what = match args.all {
        true => "all images that no bundle uses",
        false => "all images without a name",
    };
    writeln!(out, "WARNING! This will remove {what}.")?;
    write!(out, "Are you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let stdin = std::io::stdin();
    let mut line = String::new();
    let read = stdin.read_line(&mut line).context("read the answer")?;
    if read == 0 && !stdin.is_terminal() {
        bail!("nobody answers: use --force");
    }
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// The entries that go.
fn chosen(store: &Store, all: bool, filters: &Filters) -> Result<Vec<Descriptor>> {
    let mut chosen = Vec::new();
    for entry in store.index()?.manifests {
        if entry_name(&entry).is_some() && !all {
            continue;
        }
        let image = store.image(&entry).ok();
        let id: &Digest = image.as_ref().map_or(&entry.digest, |image| image.id());
        if !bundle::users_of(store, id)?.is_empty() {
            continue;
        }
        let labels = image.as_ref().map(|image| &image.config.config.labels);
        let made = image.as_ref().and_then(Image::created);
        let has = |key: &String, value: &Option<String>| {
            labels
                .and_then(|labels| labels.get(key))
                .is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        let old = filters.until.is_none_or(|until| made.is_some_and(|made| made < until));
        if old && filters.labels.iter().all(|(key, value, wanted)| has(key, value) == *wanted) {
            chosen.push(entry);
        }
    }
    Ok(chosen)
}

/// The IDs of images, and the chain IDs of layers, that no image has any more without these: what
/// `rmi` says is deleted.
fn deleted(store: &Store, chosen: &[Descriptor]) -> Result<Vec<String>> {
    let kept = super::rmi::needed(store, |entry| !chosen.contains(entry))?;
    let mut lines = Vec::new();
    for entry in chosen {
        let gone = super::rmi::parts(store, entry).into_iter();
        lines.extend(gone.filter(|id| !kept.contains(id)).map(|id| format!("deleted: {id}")));
    }
    Ok(lines)
}

fn filters(texts: &[String]) -> Result<Filters> {
    let mut filters = Filters::default();
    for text in texts {
        let label = |rest: &str| match rest.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (rest.to_owned(), None),
        };
        if let Some(rest) = text.strip_prefix("label!=") {
            let (key, value) = label(rest);
            filters.labels.push((key, value, false));
        } else if let Some(rest) = text.strip_prefix("label=") {
            let (key, value) = label(rest);
            filters.labels.push((key, value, true));
        } else if let Some(rest) = text.strip_prefix("until=") {
            filters.until = Some(time(rest, Timestamp::now())?);
        } else {
            bail!("invalid filter {text:?}: there are until, label and label!");
        }
    }
    Ok(filters)
}
