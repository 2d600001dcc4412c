//! `netavark create`: checks the definition of a network, fills in what it leaves open, and prints
//! it. Nothing is made.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use jiff::{Timestamp, Unit};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Deserialize;

use super::Arguments;
use super::options::{Network, NetworkSubnet, masked, masked_all};
use super::setup::check_subnets;
use crate::apply::parse_mode;
use crate::netlink::{Connection, link};
use crate::output;
use crate::state::Kind;
use crate::subnet::{Family, Subnet, number};

const MTU: &str = "mtu";
const PREFIX_WITHOUT_GATEWAY: u8 = 31;

#[derive(Debug, Deserialize)]
struct Wanted {
    network: Network,
    #[serde(default)]
    used: Used,
    #[serde(default)]
    options: Choices,
}

/// What other networks have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Used {
    interfaces: Vec<String>,
    /// Names of networks, each with its id.
    names: BTreeMap<String, String>,
    #[serde(deserialize_with = "masked_all")]
    subnets: Vec<Subnet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choices {
    subnet_pools: Vec<Pool>,
    default_interface_name: Option<String>,
    check_used_subnets: bool,
}

#[derive(Debug, Deserialize)]
struct Pool {
    #[serde(deserialize_with = "masked")]
    base: Subnet,
    size: u8,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let wanted: Wanted = arguments.document("network create")?;
    let mut network = wanted.network;
    check_names(&network, &wanted.used)?;
    check_ipam(&network)?;
    let is_checked = match network.driver.as_str() {
        "bridge" => complete_bridge(&mut network, &wanted.used, &wanted.options)?,
        "macvlan" | "ipvlan" => {
            complete_sublink(&mut network)?;
            false
        }
        other => bail!("unknown network driver {other:?}"),
    };
    if network.ipam_driver() == "none" {
        network.dns_enabled = false;
    }
    if network.network_dns_servers.is_some() && !network.dns_enabled {
        bail!("cannot set NetworkDNSServers if DNS is not enabled for the network");
    }
    complete_subnets(&mut network, is_checked, &wanted.used)?;
    for route in network.routes.iter().flatten() {
        route.checked()?;
    }
    let now = Timestamp::now().round(Unit::Second).context("read the clock")?;
    network.created = Some(now.to_string());
    let text = serde_json::to_string(&network).context("encode the network")?;
    output::text(&(text + "\n"))
}

fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(is_word)
}

fn check_names(network: &Network, used: &Used) -> Result<()> {
    let Network { name, id, .. } = network;
    if name.is_empty() {
        bail!("Network name must be supplied");
    }
    if !is_name(name) {
        bail!("Invalid characters in network name {name:?}: must match [a-zA-Z0-9][a-zA-Z0-9_.-]*");
    }
    if id.is_empty() {
        bail!("Network id must be supplied");
    }
    if used.names.contains_key(name) {
        bail!("network already exists {name}");
    }
    if let Some(interface) = &network.network_interface
        && (interface.is_empty() || interface.len() > 15 || interface.contains(['/', ':', ' ']))
    {
        bail!("interface name {interface} is invalid");
    }
    Ok(())
}

fn check_ipam(network: &Network) -> Result<()> {
    match network.ipam_driver() {
        "" | "host-local" | "dhcp" => Ok(()),
        "none" if network.subnets().is_empty() => Ok(()),
        "none" => bail!("None ipam driver is set but subnets are given"),
        other => bail!("unsupported ipam driver {other}"),
    }
}

/// Completes a bridge's network; says whether its subnets must be nobody else's.
fn complete_bridge(network: &mut Network, used: &Used, choices: &Choices) -> Result<bool> {
    if let Some(options) = &mut network.options {
        // docker's words for the same.
        if let Some(mtu) = options.remove("com.docker.network.driver.mtu") {
            options.insert(MTU.to_owned(), mtu);
        }
        if let Some(name) = options.remove("com.docker.network.bridge.name") {
            network.network_interface = Some(name);
        }
    }
    network.vlan()?;
    network.outbound()?;
    network.number(MTU)?;
    network.number("metric")?;
    network.switch("no_default_route")?;
    if !["true", "false", "strict"].contains(&network.option("isolate").unwrap_or("true")) {
        bail!("unable to parse \"isolate\": it is true, false or strict");
    }
    let is_managed = match network.option("mode") {
        None | Some("managed") => true,
        Some("unmanaged") => false,
        Some(other) => bail!("unknown mode {other:?}: managed or unmanaged"),
    };
    let is_own = is_managed && network.option("vlan").is_none();
    match &network.network_interface {
        Some(name) if is_own && used.interfaces.contains(name) => {
            bail!("bridge name {name} already in use")
        }
        Some(name) if !is_name(name) => bail!("bridge name {name} is invalid"),
        Some(_) => {}
        None => network.network_interface = Some(free_interface(used, choices)?),
    }
    let is_checked = is_own && choices.check_used_subnets;
    if ["", "host-local"].contains(&network.ipam_driver()) {
        let mut subnets = network.subnets.take().unwrap_or_default();
        let has = |subnets: &[NetworkSubnet], family| {
            subnets.iter().any(|it| it.subnet.family() == family)
        };
        let needs_v4 = subnets.is_empty() || (network.ipv6_enabled && !has(&subnets, Family::V4));
        if needs_v4 {
            subnets.push(plain(free_subnet(used, choices, is_checked)?));
        }
        if network.ipv6_enabled && !has(&subnets, Family::V6) {
            subnets.push(plain(random_subnet(used)?));
        }
        network.subnets = Some(subnets);
        set_ipam(network, "host-local");
    }
    Ok(is_checked)
}

fn plain(subnet: Subnet) -> NetworkSubnet {
    NetworkSubnet { subnet, gateway: None, lease_range: None }
}

fn set_ipam(network: &mut Network, driver: &str) {
    let options = network.ipam_options.get_or_insert_default();
    options.insert("driver".to_owned(), driver.to_owned());
}

fn complete_sublink(network: &mut Network) -> Result<()> {
    if let Some(parent) = network.network_interface.as_deref().filter(|name| !name.is_empty())
        && link::find(&mut Connection::route()?, parent)?.is_none()
    {
        bail!("parent interface {parent} does not exist");
    }
    let is_macvlan = network.driver == "macvlan";
    // Nobody could reach a server of the host's from there.
    network.dns_enabled = false;
    let has_subnets = !network.subnets().is_empty();
    match network.ipam_driver() {
        "" if has_subnets => set_ipam(network, "host-local"),
        "" | "dhcp" if !is_macvlan => bail!("ipam driver dhcp is not supported with ipvlan"),
        "" => set_ipam(network, "dhcp"),
        "dhcp" if has_subnets => bail!("ipam driver dhcp set but subnets are set"),
        "host-local" if !has_subnets => bail!(
            "{} driver needs at least one subnet specified when the host-local ipam driver is set",
            network.driver
        ),
        _ => {}
    }
    let kind = if is_macvlan { Kind::Macvlan } else { Kind::Ipvlan };
    parse_mode(kind, network.option("mode"))?;
    network.number(MTU)?;
    network.number("metric")?;
    if !is_macvlan && network.option("bclim").is_some() {
        bail!("unsupported ipvlan network option bclim");
    }
    Ok(())
}

/// The first of `podman1`, `podman2`, … that is no link, no bridge and no network's name.
fn free_interface(used: &Used, choices: &Choices) -> Result<String> {
    let prefix = choices.default_interface_name.as_deref();
    let prefix = prefix.context("default interface name is not set")?;
    let links = link::list(&mut Connection::route()?)?;
    let is_free = |name: &String| {
        !used.interfaces.contains(name)
            && !used.names.contains_key(name)
            && !links.iter().any(|link| link.name == *name)
    };
    let mut names = (1..1_000_000).map(|number| format!("{prefix}{number}"));
    names.find(is_free).context("could not find a free device name")
}

/// The first part of the pools that overlaps no other network.
fn free_subnet(used: &Used, choices: &Choices, is_checked: bool) -> Result<Subnet> {
    let pools = choices.subnet_pools.iter().filter(|pool| pool.base.family() == Family::V4);
    for pool in pools {
        if pool.size > 32 || pool.size < pool.base.length() {
            continue;
        }
        let step = 1_u128 << (32 - pool.size);
        let mut first = number(pool.base.first());
        while first <= number(pool.base.last()) {
            let subnet = Subnet::containing(pool.base.host(first), pool.size);
            if !is_checked || !used.subnets.iter().any(|other| other.overlaps(subnet)) {
                return Ok(subnet);
            }
            first += step;
        }
    }
    bail!("could not find free subnet from subnet pools")
}

/// A unique local subnet of RFC 4193.
fn random_subnet(used: &Used) -> Result<Subnet> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let mut octets = [0; 16];
        getrandom(&mut octets[1..8], GetRandomFlags::empty()).context("get random bytes")?;
        octets[0] = 0xfd;
        let subnet = Subnet::containing(IpAddr::from(octets), 64);
        if !used.subnets.iter().any(|other| other.overlaps(subnet)) {
            return Ok(subnet);
        }
    }
    bail!("could not find free IPv6 subnet")
}

/// Gateways and ranges, checked and filled in.
fn complete_subnets(network: &mut Network, is_checked: bool, used: &Used) -> Result<()> {
    let has_gateway = !network.internal || network.dns_enabled;
    check_subnets(network)?;
    let all: Vec<Subnet> = network.subnets().iter().map(|it| it.subnet).collect();
    for subnet in &all {
        if is_checked && used.subnets.iter().any(|other| other.overlaps(*subnet)) {
            bail!("subnet {subnet} is already used on the host or by another config");
        }
    }
    for it in network.subnets.iter_mut().flatten() {
        let subnet = it.subnet;
        if let Some(gateway) = it.gateway {
            if !subnet.contains(gateway) {
                bail!("gateway {gateway} not in subnet {subnet}");
            }
        } else if has_gateway {
            let no_room =
                subnet.family() == Family::V4 && subnet.length() >= PREFIX_WITHOUT_GATEWAY;
            if no_room {
                bail!(
                    "could not create gateway for subnet {subnet} because it has a {PREFIX_WITHOUT_GATEWAY} or greater subnet prefix"
                );
            }
            it.gateway = Some(subnet.first_host());
        }
        let range = it.lease_range.iter();
        for (name, end) in range.flat_map(|it| [("start_ip", it.start_ip), ("end_ip", it.end_ip)]) {
            if let Some(end) = end.filter(|end| !subnet.contains(*end)) {
                bail!("lease range {name} {end} not in subnet {subnet}");
            }
        }
    }
    if all.iter().any(|subnet| subnet.family() == Family::V6) {
        network.ipv6_enabled = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_subnets_overlap_no_other_network() {
        let used = Used { subnets: vec!["10.89.0.0/23".parse().unwrap()], ..Used::default() };
        let pool = Pool { base: "10.89.0.0/16".parse().unwrap(), size: 24 };
        let choices = Choices { subnet_pools: vec![pool], ..Choices::default() };
        assert_eq!(free_subnet(&used, &choices, true).unwrap().to_string(), "10.89.2.0/24");
        assert_eq!(free_subnet(&used, &choices, false).unwrap().to_string(), "10.89.0.0/24");
    }
}
