//! `netsetup bridge`

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::apply::Host;
use crate::args::{
    BridgeCommand, BridgeCreate, BridgeDelete, BridgeFilter, BridgeInspect, BridgeList,
    BridgePrune, Directories, Format,
};
use crate::ipam::Pool;
use crate::output;
use crate::plan;
use crate::state::{Bridge, BridgeRecord, BridgeSubnet, Store, Vlan};
use crate::subnet::{Family, Subnet};

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
    interface: String,
    addresses: Vec<String>,
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
        BridgeCommand::Prune(prune) => run_prune(prune, &mut host),
    }
}

fn run_create(create: &BridgeCreate, host: &mut Host) -> Result<()> {
    plan::check_bridge_name(&create.name)?;
    let existing = match host.store.definition(&create.name)? {
        Some(definition) => Some(definition),
        None => host.store.bridge(&create.name)?.map(|record| record.bridge),
    };
    let subnets = match existing {
        Some(existing) if create.subnet.is_empty() => existing.subnets,
        _ => chosen_subnets(create, host)?,
    };
    let mut bridge = Bridge::new(&create.name, subnets);
    bridge.mtu = create.mtu;
    bridge.masquerade = !create.no_masquerade;
    bridge.internal = create.internal;
    bridge.isolation = create.isolation;
    bridge.routed = create.routed;
    bridge.vlan = create.vlan.map(|id| Vlan { id, hears_default: false });
    plan::check_outbound(&create.outbound)?;
    bridge.outbound.clone_from(&create.outbound);
    if let Some(address) = create.outbound.iter().find(|it| !bridge.has(Family::of(**it))) {
        bail!("bridge {} has no subnet whose packets {address} could be given to", create.name);
    }
    bridge.labels = create.label.iter().map(|it| (it.key.clone(), it.value.clone())).collect();
    if create.dry_run {
        return output::lines(host.foresee_bridge(&bridge)?);
    }
    host.create_bridge(bridge)?;
    output::lines([create.name.clone()])
}

/// The subnets that were asked for or are free, with gateways and ranges.
fn chosen_subnets(create: &BridgeCreate, host: &mut Host) -> Result<Vec<BridgeSubnet>> {
    let mut subnets = create.subnet.clone();
    let has = |subnets: &[Subnet], family| subnets.iter().any(|it| it.family() == family);
    if subnets.is_empty() {
        subnets.push(host.free_subnet()?);
    }
    if create.ipv6 && !has(&subnets, Family::V6) {
        subnets.push(host.free_subnet6()?);
    }
    for (index, subnet) in subnets.iter().enumerate() {
        plan::check_subnet(*subnet)?;
        if let Some(other) = subnets.iter().take(index).find(|other| other.overlaps(*subnet)) {
            bail!("subnets {other} and {subnet} overlap");
        }
    }
    let mut subnets: Vec<BridgeSubnet> = subnets.into_iter().map(BridgeSubnet::new).collect();
    for gateway in &create.gateway {
        let subnet = holding(&mut subnets, *gateway)?;
        whole(subnet.subnet).check(*gateway)?;
        subnet.gateway = Some(*gateway);
    }
    for range in &create.range {
        let subnet = holding(&mut subnets, range.first)?;
        for end in [range.first, range.last] {
            whole(subnet.subnet).check(end)?;
        }
        subnet.range = Some((range.first, range.last));
    }
    for address in &create.reserve {
        let subnet = holding(&mut subnets, *address)?;
        subnet.pool().check(*address)?;
        subnet.reserved.push(*address);
    }
    Ok(subnets)
}

/// Every address that a subnet's hosts can have.
fn whole(subnet: Subnet) -> Pool<'static> {
    Pool { subnet, gateway: None, range: None, reserved: &[] }
}

/// The subnet that an address is in.
fn holding(subnets: &mut [BridgeSubnet], address: IpAddr) -> Result<&mut BridgeSubnet> {
    let found = subnets.iter_mut().find(|it| it.subnet.contains(address));
    found.with_context(|| format!("address {address} is in none of the bridge's subnets"))
}

/// Removes what no container uses, and says what that was.
fn run_prune(prune: &BridgePrune, host: &mut Host) -> Result<()> {
    let mut removed = Vec::new();
    for view in views(host.store)? {
        if view.containers.is_empty() && !view.automatic && matches(&view.bridge, &prune.filter) {
            host.delete_bridge(&view.bridge.name)?;
            removed.push(view.bridge.name);
        }
    }
    output::lines(removed)
}

fn run_list(list: &BridgeList, store: &Store) -> Result<()> {
    let mut views = views(store)?;
    views.retain(|view| matches(&view.bridge, &list.filter));
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

/// Whether a bridge is one of those that are asked for: by one filter at least of each key.
fn matches(bridge: &Bridge, filters: &[BridgeFilter]) -> bool {
    let names: Vec<&str> = filters.iter().filter_map(BridgeFilter::name).collect();
    let has_label = |filter: &BridgeFilter| match filter {
        BridgeFilter::Name(_) => true,
        BridgeFilter::Label(key, value) => {
            let present = bridge.labels.get(key);
            present.is_some_and(|present| value.as_ref().is_none_or(|value| value == present))
        }
    };
    (names.is_empty() || names.iter().any(|name| bridge.name.contains(name)))
        && filters.iter().all(has_label)
}

fn row(view: &BridgeView) -> [String; 5] {
    let state = match (view.active, view.automatic) {
        (false, _) => "defined",
        (true, true) => "automatic",
        (true, false) => "active",
    };
    let gateways = view.bridge.gateways().map(|(gateway, _)| gateway.to_string());
    let gateways: Vec<String> = gateways.collect();
    [
        view.bridge.name.clone(),
        view.bridge.subnets_text(),
        if gateways.is_empty() { "none".to_owned() } else { gateways.join(",") },
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
    for BridgeRecord { bridge, automatic, .. } in store.bridges()? {
        let mut containers = Vec::new();
        for (id, interface) in store.members(&bridge.name)? {
            let attachments = store.attachments(&id)?;
            let attachment = attachments.into_iter().find(|it| it.interface == interface);
            let addresses = attachment.map(|it| it.addresses).unwrap_or_default();
            let addresses = addresses.into_iter().map(|it| it.address.to_string()).collect();
            containers.push(ContainerView { id, interface, addresses });
        }
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
