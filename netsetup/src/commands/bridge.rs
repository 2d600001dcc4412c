//! `netsetup bridge`

use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::apply::Host;
use crate::args::{
    BridgeCommand, BridgeCreate, BridgeDelete, BridgeInspect, BridgeList, Directories, Format,
};
use crate::ipam::Pool;
use crate::output;
use crate::plan;
use crate::state::{Bridge, BridgeRecord, Store};

/// A bridge, as programs read it.
#[derive(Serialize)]
struct BridgeView {
    #[serde(flatten)]
    bridge: Bridge,
    /// Goes with its last container.
    automatic: bool,
    /// It exists in the kernel, not only as a definition.
    active: bool,
    containers: Vec<ContainerView>,
}

#[derive(Serialize)]
struct ContainerView {
    id: String,
    address: String,
}

/// Runs one of the verbs of `bridge`.
pub(crate) fn run(command: &BridgeCommand, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let mut host = Host::open(&store)?;
    match command {
        BridgeCommand::Create(create) => run_create(create, &mut host),
        BridgeCommand::List(list) => run_list(list, &store),
        BridgeCommand::Inspect(inspect) => run_inspect(inspect, &store),
        BridgeCommand::Delete(delete) => run_delete(delete, &mut host),
    }
}

fn run_create(create: &BridgeCreate, host: &mut Host) -> Result<()> {
    plan::check_bridge_name(&create.name)?;
    let existing = match host.store.definition(&create.name)? {
        Some(definition) => Some(definition),
        None => host.store.bridge(&create.name)?.map(|record| record.bridge),
    };
    let subnet = match (create.subnet, existing) {
        (Some(subnet), _) => subnet,
        (None, Some(existing)) => existing.subnet,
        (None, None) => host.free_subnet()?,
    };
    plan::check_subnet(subnet)?;
    let mut bridge = Bridge::new(&create.name, subnet);
    if let Some(gateway) = create.gateway {
        Pool { subnet, gateway: Ipv4Addr::UNSPECIFIED }.check(gateway)?;
        bridge.gateway = gateway;
    }
    bridge.mtu = create.mtu;
    bridge.masquerade = !create.no_masquerade;
    bridge.internal = create.internal;
    host.create_bridge(bridge)?;
    output::lines([create.name.clone()])
}

fn run_list(list: &BridgeList, store: &Store) -> Result<()> {
    let views = views(store)?;
    if list.quiet {
        return output::lines(views.into_iter().map(|view| view.bridge.name));
    }
    match list.output.format {
        Format::Json => output::json(&views),
        Format::Table => {
            let rows: Vec<_> = views.iter().map(row).collect();
            output::table(["NAME", "SUBNET", "GATEWAY", "CONTAINERS", "STATE"], &rows)
        }
    }
}

fn row(view: &BridgeView) -> [String; 5] {
    let state = match (view.active, view.automatic) {
        (false, _) => "defined",
        (true, true) => "automatic",
        (true, false) => "active",
    };
    let Bridge { name, subnet, gateway, .. } = &view.bridge;
    [
        name.clone(),
        subnet.to_string(),
        gateway.to_string(),
        view.containers.len().to_string(),
        state.to_owned(),
    ]
}

fn run_inspect(inspect: &BridgeInspect, store: &Store) -> Result<()> {
    let mut found = Vec::new();
    let mut all = views(store)?;
    for name in &inspect.names {
        match all.iter().position(|view| view.bridge.name == *name) {
            Some(index) => found.push(all.swap_remove(index)),
            None => bail!("no bridge named {name}"),
        }
    }
    output::json(&found)
}

fn run_delete(delete: &BridgeDelete, host: &mut Host) -> Result<()> {
    for name in &delete.names {
        host.delete_bridge(name)?;
    }
    output::lines(delete.names.iter().cloned())
}

/// Bridges that exist and bridges that are only defined, by name.
fn views(store: &Store) -> Result<Vec<BridgeView>> {
    let mut views = Vec::new();
    for BridgeRecord { bridge, automatic } in store.bridges()? {
        let leases = store.leases(&bridge.name)?.into_iter();
        let containers = leases.map(|(address, id)| ContainerView { id, address }).collect();
        views.push(BridgeView { bridge, automatic, active: true, containers });
    }
    for bridge in store.definitions()? {
        if !views.iter().any(|view| view.bridge.name == bridge.name) {
            views.push(BridgeView {
                bridge,
                automatic: false,
                active: false,
                containers: Vec::new(),
            });
        }
    }
    views.sort_by(|one, other| one.bridge.name.cmp(&other.bridge.name));
    Ok(views)
}
