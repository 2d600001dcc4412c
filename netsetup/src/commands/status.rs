//! `netsetup status`

use anyhow::Result;
use serde::Serialize;

use crate::apply::Host;
use crate::args::{Directories, Format, Status};
use crate::nft;
use crate::output;
use crate::state::Store;
use crate::subnet::Family;
use crate::sysctl;

/// What exists, and what stands in the way.
#[derive(Serialize)]
struct StatusView {
    version: &'static str,
    state_directory: String,
    forwarding: bool,
    forwarding_ipv6: bool,
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
        format!(
            "forwarding:  {}, IPv6: {}{by_whom}",
            yes(view.forwarding),
            yes(view.forwarding_ipv6)
        ),
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
    let on = |family| -> Result<bool> {
        Ok(sysctl::read(sysctl::forwarding(family))?.as_deref() == Some("1"))
    };
    let ours = store.owns_forwarding(Family::V4)? || store.owns_forwarding(Family::V6)?;
    let table = nft::exists(&mut host.netfilter)?;
    let problems = host.problems()?;
    Ok(StatusView {
        version: env!("CARGO_PKG_VERSION"),
        state_directory: store.root().display().to_string(),
        forwarding: on(Family::V4)?,
        forwarding_ipv6: on(Family::V6)?,
        forwarding_is_ours: ours,
        table,
        bridges: bridges.len(),
        containers: containers.len(),
        ports,
        problems,
    })
}
