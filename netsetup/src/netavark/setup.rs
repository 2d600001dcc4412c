//! `netavark setup`: every check of every network before the first change, then one attachment
//! after another; a failure takes back those before it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::Arguments;
use super::dns::{Server, Usable};
use super::options::{Network, NetworkRoute, Options, Wishes};
use crate::apply::Host;
use crate::netlink::{Connection, address, link};
use crate::netns::NetworkNamespace;
use crate::output;
use crate::plan;
use crate::port::PortSpec;
use crate::request::{Addresses, AttachRequest, Target};
use crate::state::{Address, Attachment, Bridge, BridgeSubnet, Isolation, Kind, StaticRoute};
use crate::subnet::{Family, Subnet};
use crate::sysctl;

/// Of default routes, where a network says nothing: room for others before and behind it.
const METRIC: u32 = 100;
/// A container that is on a network of the host's too goes there without the host.
const METRIC_OF_SUBLINKS: u32 = 99;

/// What podman is told of a network.
#[derive(Debug, Serialize)]
struct Status {
    dns_search_domains: Vec<String>,
    dns_server_ips: Vec<IpAddr>,
    interfaces: BTreeMap<String, InterfaceStatus>,
}

#[derive(Debug, Serialize)]
struct InterfaceStatus {
    mac_address: String,
    subnets: Vec<SubnetStatus>,
}

#[derive(Debug, Serialize)]
struct SubnetStatus {
    gateway: Option<IpAddr>,
    ipnet: String,
}

/// One network of a container, checked.
struct Wanted<'a> {
    wishes: &'a Wishes,
    network: &'a Network,
    bridge: Option<Bridge>,
    addresses: Vec<Address>,
    routes: Vec<StaticRoute>,
    ports: Vec<PortSpec>,
    unmanaged: bool,
}

pub(super) fn run(arguments: &Arguments, namespace: &Path) -> Result<()> {
    let netns = match std::fs::metadata(namespace) {
        Ok(_) => NetworkNamespace::open(namespace)?,
        Err(error) => return Err(error).context("invalid namespace path"),
    };
    let options: Options = arguments.document("network options")?;
    let has_firewall = arguments.has_firewall()?;
    let mut inside = netns.enter(Connection::route)?;
    let lo = link::find(&mut inside, "lo")?.context("the container has no loopback link")?;
    inside.transact(vec![link::set_up(lo.index)]).context("switch the loopback link on")?;
    let store = arguments.open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let wanted = wanted(&options, has_firewall)?;
    let server = Server::new(arguments);
    for one in &wanted {
        check_links(&mut host, &mut inside, &options, one)?;
    }
    let mut statuses = BTreeMap::new();
    let mut made: Vec<Attachment> = Vec::new();
    let outcome = wanted.iter().try_for_each(|one| {
        let attachment = attach(&mut host, &options, namespace, one)?;
        made.push(attachment.clone());
        let usable = server.announce(&mut host, &options, one.wishes, one.network, &attachment)?;
        statuses.insert(&one.wishes.name, status(one, &attachment, usable));
        Ok(())
    });
    let refreshed = || server.refresh().context("error while applying dns entries");
    let outcome = outcome.and_then(|()| refreshed());
    if let Err(error) = outcome {
        for one in &wanted {
            server.forget(&options.container_id, &one.network.name)?;
        }
        for attachment in made.iter().rev() {
            host.detach_interface(&attachment.id, &attachment.interface)?;
        }
        return Err(error);
    }
    let text = serde_json::to_string(&statuses).context("encode the answer")?;
    output::text(&(text + "\n"))
}

fn wanted(options: &Options, has_firewall: bool) -> Result<Vec<Wanted<'_>>> {
    let mut ports = Vec::new();
    for mapping in options.port_mappings.iter().flatten() {
        ports.extend(mapping.specs()?);
    }
    let mut all = Vec::new();
    for wishes in &options.networks {
        let name = &wishes.name;
        let network = options.network_info.get(name);
        let network =
            network.with_context(|| format!("network info for network {name} not found"))?;
        let mut one = check(wishes, network, has_firewall)?;
        if one.bridge.as_ref().is_some_and(|bridge| !bridge.bare && !bridge.internal) {
            one.ports.clone_from(&ports);
        }
        all.push(one);
    }
    keep_ports_of_first(&mut all);
    Ok(all)
}

/// A port of the host leads to one address of a family: that of the first network which has one.
fn keep_ports_of_first(all: &mut [Wanted]) {
    let mut served: Vec<Family> = Vec::new();
    for one in all {
        let own: Vec<Family> = Family::BOTH
            .into_iter()
            .filter(|family| one.addresses.iter().any(|it| Family::of(it.address) == *family))
            .collect();
        let new: Vec<Family> = own.iter().copied().filter(|it| !served.contains(it)).collect();
        let specs = std::mem::take(&mut one.ports);
        for spec in specs {
            match spec.host_ip {
                Some(ip) if new.contains(&Family::of(ip)) => one.ports.push(spec),
                None if new == own => one.ports.push(spec),
                None => one.ports.extend(
                    new.iter().map(|it| PortSpec { host_ip: Some(it.unspecified()), ..spec }),
                ),
                // What a network can not serve is not its business.
                Some(_) => {}
            }
        }
        if one.bridge.is_some() {
            served.extend(new);
        }
    }
}

fn check<'a>(wishes: &'a Wishes, network: &'a Network, has_firewall: bool) -> Result<Wanted<'a>> {
    let unmanaged = match network.option("mode") {
        Some("unmanaged") if network.driver == "bridge" => true,
        None | Some("managed") => false,
        Some(other) if network.driver == "bridge" => bail!("unsupported bridge mode {other:?}"),
        Some(_) => false,
    };
    let has_addresses = match network.ipam_driver() {
        "" | "host-local" => true,
        "none" => false,
        "dhcp" if network.driver == "bridge" && !unmanaged => {
            bail!("cannot use dhcp ipam driver without using the option mode=unmanaged")
        }
        "dhcp" => bail!("ipam driver dhcp is not supported: give the network a subnet"),
        other => bail!("unsupported ipam driver {other}"),
    };
    check_subnets(network)?;
    let mut addresses = Vec::new();
    for ip in wishes.static_ips.iter().flatten().filter(|_| has_addresses) {
        let subnet = network.subnets().iter().find(|it| it.subnet.contains(*ip));
        let Some(subnet) = subnet else {
            if unmanaged {
                continue;
            }
            bail!(
                "not all static IPs matched a subnet: {ip} is in none of network {}",
                network.name
            );
        };
        let gateway = subnet.gateway.filter(|_| !network.internal);
        addresses.push(Address { address: *ip, subnet: subnet.subnet, gateway });
    }
    let routes = network.routes.iter().flatten().map(NetworkRoute::checked);
    let bridge = match network.driver.as_str() {
        "bridge" => Some(bridge(network, unmanaged, has_firewall)?),
        "macvlan" | "ipvlan" => None,
        other => bail!("unknown network driver {other:?}"),
    };
    Ok(Wanted {
        wishes,
        network,
        bridge,
        addresses,
        routes: routes.collect::<Result<_>>()?,
        ports: Vec::new(),
        unmanaged,
    })
}

pub(super) fn check_subnets(network: &Network) -> Result<()> {
    let all: Vec<Subnet> = network.subnets().iter().map(|it| it.subnet).collect();
    for (index, subnet) in all.iter().enumerate() {
        for other in all.iter().take(index) {
            if other == subnet {
                bail!("duplicate subnet defined: {subnet}");
            }
            if other.overlaps(*subnet) {
                bail!("overlapping subnets: {other} and {subnet}");
            }
        }
    }
    Ok(())
}

fn bridge(network: &Network, unmanaged: bool, has_firewall: bool) -> Result<Bridge> {
    let name = network.interface();
    plan::check_bridge_name(name)?;
    let subnets = network.subnets().iter().filter(|_| !unmanaged);
    let subnets = subnets.map(|it| BridgeSubnet::with_gateway(it.subnet, it.gateway)).collect();
    let mut bridge = Bridge::new(name, subnets);
    bridge.mtu = network.number("mtu")?.filter(|mtu| *mtu > 0);
    bridge.internal = network.internal;
    bridge.isolation = match network.option("isolate").unwrap_or("strict") {
        "false" => Isolation::None,
        "true" | "strict" => Isolation::Bridges,
        other => bail!("unable to parse \"isolate\": {other:?} is not true, false or strict"),
    };
    bridge.routed = bridge.isolation == Isolation::None && !bridge.internal;
    bridge.bare = unmanaged || !has_firewall;
    bridge.vrf = network.option("vrf").map(str::to_owned);
    bridge.vlan = network.vlan()?;
    bridge.outbound = network.outbound()?;
    Ok(bridge)
}

/// What stands in the way, in the words that podman's users know.
fn check_links(
    host: &mut Host,
    inside: &mut Connection,
    options: &Options,
    one: &Wanted,
) -> Result<()> {
    let name = one.network.interface();
    let outer = link::find(&mut host.route, name)?;
    let outer_is_missing = outer.is_none();
    if one.unmanaged && outer_is_missing {
        bail!(
            "in unmanaged mode, the bridge must already exist on the host: \
             Netlink error: No such device (os error 19)"
        );
    }
    if one.unmanaged && one.network.dns_enabled {
        let index = outer.map(|link| link.index);
        let own = address::list(&mut host.route)?;
        if !own.iter().any(|(of, ip)| Some(*of) == index && is_usable(*ip)) {
            bail!(
                "bridge '{name}' in unmanaged mode has no usable IP addresses. Aardvark-dns requires \
                 at least one address (should not be an IPv6 link-local address) to bind to. \
                 Please add an IP address or disable DNS for this network (--disable-dns)."
            );
        }
    }
    let domain = one.bridge.as_ref().and_then(|bridge| bridge.vrf.as_deref());
    if let Some(domain) = domain.filter(|_| outer_is_missing)
        && link::find(&mut host.route, domain)?.is_none()
    {
        bail!("get vrf to set up bridge interface: Netlink error: No such device (os error 19)");
    }
    let has_v6 = one.addresses.iter().any(|it| it.address.is_ipv6());
    if one.bridge.is_some() && has_v6 && is_ipv6_off()? {
        bail!(
            "add ip addr to bridge: failed to add ipv6 address, is ipv6 enabled in the kernel?: \
             Netlink error: Permission denied (os error 13)"
        );
    }
    let known = host.store.attachments(&options.container_id)?;
    if known.iter().any(|it| it.interface == one.wishes.interface_name) {
        return Ok(());
    }
    let exists = "Netlink error: File exists (os error 17)";
    let interface = &one.wishes.interface_name;
    if let Some(end) = host_end(one.wishes) {
        let is_taken = link::find(&mut host.route, end)?.is_some() || end == name;
        if is_taken {
            bail!(
                "create veth pair: interface {interface} already exists on container namespace \
                 or {end} exists on host namespace: {exists}"
            );
        }
    }
    if link::find(inside, interface)?.is_some() {
        bail!(
            "create veth pair: interface {interface} already exists on container namespace: {exists}"
        );
    }
    Ok(())
}

pub(super) fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// An administrator who switches IPv6 off for all links means those to come as well.
fn is_ipv6_off() -> Result<bool> {
    Ok(sysctl::read("net/ipv6/conf/all/disable_ipv6")?.as_deref() == Some("1"))
}

fn host_end(wishes: &Wishes) -> Option<&str> {
    wishes.options.as_ref()?.get("host_interface_name").map(String::as_str)
}

fn attach(
    host: &mut Host,
    options: &Options,
    namespace: &Path,
    one: &Wanted,
) -> Result<Attachment> {
    let Wanted { wishes, network, .. } = one;
    let target = Target::at_path(&options.container_id, namespace);
    let mut request = AttachRequest::plain(target, network.interface().to_owned())?;
    request.kind = match network.driver.as_str() {
        "macvlan" => Kind::Macvlan,
        "ipvlan" => Kind::Ipvlan,
        _ => Kind::Bridge,
    };
    if request.kind == Kind::Bridge {
        request.host_interface = Some(match host_end(wishes) {
            Some(name) => name.to_owned(),
            None => free_name(host)?,
        });
    } else {
        request.mode = network.option("mode").map(str::to_owned);
    }
    request.bridge.clone_from(&one.bridge);
    request.interface = Some(wishes.interface_name.clone());
    request.addresses = Addresses::Given(one.addresses.clone());
    let mac = wishes.static_mac.as_deref().map(plan::parse_mac).transpose();
    request.mac = mac.map_err(anyhow::Error::msg)?;
    request.ports.clone_from(&one.ports);
    request.routes.clone_from(&one.routes);
    request.default_route = !network.internal && !network.switch("no_default_route")?;
    let usual = if request.kind == Kind::Bridge { METRIC } else { METRIC_OF_SUBLINKS };
    request.default_details.metric = Some(network.number("metric")?.unwrap_or(usual));
    request.mtu = network.number("mtu")?.filter(|mtu| *mtu > 0);
    request.names = wishes.aliases.clone().unwrap_or_default();
    request.origin = Some(format!("podman/{}", network.name));
    host.attach(&request)
}

/// The first of `veth0`, `veth1`, … that the host does not have.
fn free_name(host: &mut Host) -> Result<String> {
    let links = link::list(&mut host.route)?;
    let taken: std::collections::HashSet<&str> = links.iter().map(|it| it.name.as_str()).collect();
    let mut names = (0..).map(|number| format!("veth{number}"));
    names.find(|name| !taken.contains(name.as_str())).context("name a link")
}

fn status(one: &Wanted, attachment: &Attachment, usable: Option<Usable>) -> Status {
    let subnets = one.addresses.iter().map(|it| SubnetStatus {
        gateway: it.gateway,
        ipnet: format!("{}/{}", it.address, it.subnet.length()),
    });
    let interface =
        InterfaceStatus { mac_address: attachment.mac.clone(), subnets: subnets.collect() };
    let usable = usable.unwrap_or_default();
    Status {
        dns_search_domains: usable.domains,
        dns_server_ips: usable.servers,
        interfaces: BTreeMap::from([(attachment.interface.clone(), interface)]),
    }
}
