//! `netsetup status`

use anyhow::Result;
use serde::Serialize;

use crate::apply::Host;
use crate::args::{Directories, Format, Status};
use crate::nft::{self, foreign};
use crate::output;
use crate::state::Store;
use crate::sysctl;

/// What exists, and what stands in the way.
#[derive(Serialize)]
struct StatusView {
    version: &'static str,
    state_directory: String,
    forwarding: bool,
    /// We switched forwarding on, and will switch it off with the last bridge.
    forwarding_is_ours: bool,
    /// Our nf_tables table exists.
    table: bool,
    bridges: usize,
    containers: usize,
    ports: usize,
    problems: Vec<String>,
}

/// Shows what exists and what stands in the way.
pub(crate) fn run(status: &Status, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let mut host = Host::open(&store)?;
    let view = look(&store, &mut host)?;
    if status.output.format == Format::Json {
        return output::json(&view);
    }
    let yes = |answer: bool| if answer { "yes" } else { "no" };
    let by_whom = if view.forwarding_is_ours { " (switched on by netsetup)" } else { "" };
    let mut lines = vec![
        format!("version:     {}", view.version),
        format!("state:       {}", view.state_directory),
        format!("forwarding:  {}{by_whom}", yes(view.forwarding)),
        format!("nf_tables:   {}", yes(view.table)),
        format!("bridges:     {}", view.bridges),
        format!("containers:  {}", view.containers),
        format!("ports:       {}", view.ports),
    ];
    lines.extend(view.problems.iter().map(|problem| format!("problem:     {problem}")));
    output::lines(lines)
}

fn look(store: &Store, host: &mut Host) -> Result<StatusView> {
    let bridges = store.bridges()?;
    let containers = store.container_ids()?;
    let mut ports = 0;
    for id in &containers {
        ports += store.bindings(id)?.len();
    }
    let forwarding = sysctl::read(sysctl::FORWARDING)?.as_deref() == Some("1");
    let table = nft::exists(&mut host.netfilter)?;
    let mut problems = Vec::new();
    if !bridges.is_empty() && !forwarding {
        problems
            .push("forwarding is off: 'netsetup forward on' lets packets through again".to_owned());
    }
    if !bridges.is_empty() && !table {
        problems.push(
            "somebody removed the nf_tables table: the next attach makes it again".to_owned(),
        );
    }
    for chain in foreign::dropping_chains(&mut host.netfilter)? {
        let bridged = bridges.iter().map(|record| record.bridge.name.as_str());
        if chain.is_opened_by_us() && foreign::is_open(&mut host.netfilter, bridged)? {
            continue;
        }
        problems.push(format!(
            "chain {} of table {} {} drops forwarded packets: accept those of our bridges there",
            chain.name, chain.family, chain.table
        ));
    }
    Ok(StatusView {
        version: env!("CARGO_PKG_VERSION"),
        state_directory: store.root().display().to_string(),
        forwarding,
        forwarding_is_ours: store.owns_forwarding()?,
        table,
        bridges: bridges.len(),
        containers: containers.len(),
        ports,
        problems,
    })
}
