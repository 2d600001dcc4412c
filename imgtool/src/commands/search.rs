//! `imgtool search`: repositories whose names contain a word, by Docker Hub's
//! own interface or by a registry's catalog.

use anyhow::{Context, Result, bail, ensure};

use super::access;
use crate::error::printable;
use crate::output;
use crate::reference::{DEFAULT_HOST, Reference};
use crate::store::Store;
use crate::table;
use crate::template::Format;
use crate::transport::registry::{Action, Found, Repository, catalog, search_hub};

const MAX_LIMIT: usize = 100;
const DESCRIPTION: usize = 45;

/// Search Docker Hub, or a registry by its catalog
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to look for; in front of it the registry, if not Docker Hub
    #[arg(value_name = "[REGISTRY/]TERM")]
    term: String,
    /// How many results at most, up to 100
    #[arg(long, default_value_t = 25, value_name = "N")]
    limit: usize,
    /// Only such: stars=N, is-official=BOOL
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Print whole descriptions
    #[arg(long)]
    no_trunc: bool,
    /// "json", or a Go template of .Name .Description .StarCount .IsOfficial
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Where Docker Hub's interface is
    #[arg(long, value_name = "URL", default_value = "https://index.docker.io")]
    hub_url: String,
    #[command(flatten)]
    access: access::Flags,
}

pub(crate) fn run(_store: &Store, args: &Args) -> Result<()> {
    ensure!((1..=MAX_LIMIT).contains(&args.limit), "--limit is from 1 to {MAX_LIMIT}");
    let keep = filter(&args.filter)?;
    let access = args.access.access()?;
    let (host, term) = match args.term.split_once('/') {
        Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => (host, term),
        _ => (DEFAULT_HOST, args.term.as_str()),
    };
    let term = term.strip_prefix("library/").unwrap_or(term);
    let mut found = if host == DEFAULT_HOST {
        ensure!(!term.is_empty(), "search for what?");
        search_hub(&args.hub_url, term, args.limit, &access)
    } else {
        search_catalog(host, term, &access)
    }
    .with_context(|| format!("search {host}"))?;
    found.retain(keep);
    found.truncate(args.limit);
    print(args, &found)
}

fn search_catalog(
    host: &str,
    term: &str,
    access: &crate::transport::registry::Access,
) -> Result<Vec<Found>> {
    let name = Reference::on_host(host)?;
    let session = Repository::open(&name, access, Action::Pull)?.session;
    let mut names: Vec<String> =
        catalog(&session)?.into_iter().filter(|name| name.contains(term)).collect();
    // What was named exactly comes first.
    names.sort_by_key(|name| (name != term, name.clone()));
    Ok(names
        .into_iter()
        .map(|name| Found { name: format!("{host}/{name}"), ..Found::default() })
        .collect())
}

fn filter(filters: &[String]) -> Result<impl Fn(&Found) -> bool> {
    let (mut stars, mut official) = (0, None);
    for filter in filters {
        match filter.split_once('=') {
            Some(("stars", number)) => {
                stars = number.parse().with_context(|| format!("invalid filter {filter:?}"))?;
            }
            Some(("is-official", flag)) => {
                official =
                    Some(flag.parse().with_context(|| format!("invalid filter {filter:?}"))?);
            }
            _ => bail!("invalid filter {filter:?}: there are stars=N and is-official=BOOL"),
        }
    }
    Ok(move |found: &Found| {
        found.star_count >= stars && official.is_none_or(|flag: bool| flag == found.is_official)
    })
}

fn print(args: &Args, found: &[Found]) -> Result<()> {
    let cut = |text: &str| {
        let text = printable(text.trim());
        match text.char_indices().nth(DESCRIPTION - 1) {
            Some((end, _)) if !args.no_trunc && text.chars().count() > DESCRIPTION => {
                format!("{}…", &text[..end])
            }
            _ => text,
        }
    };
    let official = |found: &Found| if found.is_official { "[OK]" } else { "" };
    let mut out = output::stdout();
    if let Some(format) = &args.format {
        let format = Format::parse(format)?;
        let values = found.iter().map(|found| {
            serde_json::json!({
                "Name": found.name, "Description": cut(&found.description),
                "StarCount": found.star_count.to_string(), "IsOfficial": official(found),
                "IsAutomated": "",
            })
        });
        return format.write(&mut out, values);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|found| {
            let stars = found.star_count.to_string();
            vec![printable(&found.name), cut(&found.description), stars, official(found).into()]
        })
        .collect();
    table::write(&mut out, &["NAME", "DESCRIPTION", "STARS", "OFFICIAL"], &rows)?;
    Ok(())
}
