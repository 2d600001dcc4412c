//! Decisions, pure over what was asked for and what there is.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use crate::netlink::link::Mac;
use crate::netlink::route::Route;
use crate::port::PortSpec;
use crate::subnet::Subnet;

/// The bridge of those who name none.
pub(crate) const DEFAULT_BRIDGE: &str = "netsetup0";
/// Routes to more than this are not in the way of anybody: the default route, and the halves
/// and quarters of the world by which VPNs replace it.
const NARROWEST_IGNORED: u8 = 7;
const LONGEST_LINK_NAME: usize = 15;

/// Where subnets that nobody chose come from: (first, length, how many).
const POOLS: [(Ipv4Addr, u8, u32); 3] = [
    (Ipv4Addr::new(172, 18, 0, 0), 16, 14),
    (Ipv4Addr::new(192, 168, 0, 0), 20, 16),
    (Ipv4Addr::new(10, 64, 0, 0), 16, 128),
];

/// Addresses with a meaning of their own, which the kernel would never route to a container.
const NOT_FOR_LINKS: [(Ipv4Addr, u8, &str); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "unspecified"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// The first subnet of the pools that overlaps neither a route nor a subnet promised already.
pub(crate) fn choose_subnet(routes: &[Route], promised: &[Subnet]) -> Result<Subnet> {
    for (first, length, count) in POOLS {
        for index in 0..count {
            let base = u32::from(first) + (index << (32 - u32::from(length)));
            let subnet = Subnet::containing(Ipv4Addr::from(base), length);
            let is_free = route_in_the_way(subnet, routes).is_none()
                && !promised.iter().any(|other| other.overlaps(subnet));
            if is_free {
                return Ok(subnet);
            }
        }
    }
    bail!(
        "every subnet of 172.18-31, 192.168 and 10.64-191 overlaps a route of the host: choose one with --subnet"
    )
}

/// The route of the host that a subnet would shadow.
pub(crate) fn route_in_the_way(subnet: Subnet, routes: &[Route]) -> Option<&Route> {
    routes.iter().find(|route| {
        route.destination.length() > NARROWEST_IGNORED && route.destination.overlaps(subnet)
    })
}

/// Checks the name of a bridge, which is its link's name too.
pub(crate) fn check_bridge_name(name: &str) -> Result<()> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !starts_well || !name.bytes().all(is_word) {
        bail!("bridge name {name:?} is not made of letters, digits, '_', '.' and '-'");
    }
    if name.len() > LONGEST_LINK_NAME {
        bail!("bridge name {name:?} is longer than {LONGEST_LINK_NAME} bytes");
    }
    if ["none", "host", "all", "default", "lo"].contains(&name) {
        bail!("bridge name {name:?} has a meaning of its own");
    }
    Ok(())
}

/// Checks that a bridge may have a subnet at all, whatever routes the host has.
pub(crate) fn check_subnet(subnet: Subnet) -> Result<()> {
    if subnet.length() > 30 || subnet.length() < 8 {
        bail!(
            "subnet {subnet} is too small or too large: a bridge takes a prefix length of 8 to 30"
        );
    }
    for (first, length, meaning) in NOT_FOR_LINKS {
        if Subnet::containing(first, length).overlaps(subnet) {
            bail!("subnet {subnet} is of the {meaning} addresses, which no link can have");
        }
    }
    Ok(())
}

/// Checks an id under which a container is recorded, by the runtime's rule.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !id.bytes().all(is_word) {
        bail!("invalid container id {id:?}");
    }
    Ok(())
}

/// A hardware address made from an IP address: whoever gets the address next answers with the
/// same, so that no neighbour's table is ever stale. The second byte tells the ends apart.
pub(crate) fn mac(address: Ipv4Addr, end: End) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, end as u8, a, b, c, d]
}

/// Which link a hardware address is for.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Container = 0x6e,
    Host = 0x6f,
    Bridge = 0x70,
}

/// Name of the host's end of a container's link: `veth` keeps NetworkManager away from it. An
/// address is on one link at most, so that the address makes the name unique.
pub(crate) fn host_interface(address: Ipv4Addr) -> String {
    format!("veth{:08x}", u32::from(address))
}

/// The group of a bridge and of its containers' links, by which they are removed at once. Made
/// from an address that no other bridge can have, and far from the numbers that people choose.
pub(crate) fn link_group(gateway: Ipv4Addr) -> u32 {
    u32::from(gateway)
}

/// Name of the next interface of a container that has these.
pub(crate) fn next_interface(present: &[String]) -> String {
    let mut names = (0..).map(|number| format!("eth{number}"));
    names.find(|name| !present.contains(name)).unwrap_or_default()
}

/// One container port and the host ports that it may get, first choice first. No host port
/// leaves the choice to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortChoice {
    pub(crate) host: Vec<u16>,
    pub(crate) container: u16,
}

/// The ports of a spec: ranges of one length pair off, and a range for a single container port
/// means its first free port.
pub(crate) fn port_choices(spec: &PortSpec) -> Vec<PortChoice> {
    match spec.host {
        None => spec
            .container
            .iter()
            .map(|container| PortChoice { host: Vec::new(), container })
            .collect(),
        Some(host) if host.count() == spec.container.count() => {
            let pairs = host.iter().zip(spec.container.iter());
            pairs.map(|(host, container)| PortChoice { host: vec![host], container }).collect()
        }
        Some(host) => {
            vec![PortChoice { host: host.iter().collect(), container: spec.container.first }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str) -> Route {
        Route { destination: destination.parse().unwrap(), gateway: None, link: None, metric: 0 }
    }

    #[test]
    fn the_chosen_subnet_overlaps_no_route() {
        let choose = |routes: &[Route], promised: &[Subnet]| {
            choose_subnet(routes, promised).unwrap().to_string()
        };
        assert_eq!(choose(&[], &[]), "172.18.0.0/16");
        assert_eq!(
            choose(&[route("172.18.5.0/24")], &["172.19.0.0/16".parse().unwrap()]),
            "172.20.0.0/16"
        );
        assert_eq!(choose(&[route("172.16.0.0/12")], &[]), "192.168.0.0/20");
        assert_eq!(choose(&[route("0.0.0.0/0"), route("128.0.0.0/1")], &[]), "172.18.0.0/16");
    }

    #[test]
    fn no_subnet_left_is_an_error() {
        assert!(
            choose_subnet(&[route("172.0.0.0/8"), route("192.0.0.0/8"), route("10.0.0.0/8")], &[])
                .is_err()
        );
    }

    #[test]
    fn bridge_names_are_link_names() {
        assert!(check_bridge_name("br-12.x").is_ok());
        for name in ["", "-x", "a/b", "..", "sixteen-bytes-xx", "host", "a b"] {
            assert!(check_bridge_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn subnets_are_of_addresses_that_a_link_can_have() {
        for subnet in ["10.1.0.0/24", "172.18.0.0/16", "203.0.113.0/30", "169.254.7.0/24"] {
            check_subnet(subnet.parse().unwrap()).unwrap();
        }
        for subnet in ["127.0.0.0/8", "224.0.1.0/24", "240.0.0.0/24", "0.0.0.0/8", "10.0.0.0/31"] {
            assert!(check_subnet(subnet.parse().unwrap()).is_err(), "{subnet}");
        }
    }

    #[test]
    fn interfaces_fill_gaps() {
        assert_eq!(next_interface(&["eth0".into(), "eth2".into()]), "eth1");
    }

    #[test]
    fn ranges_pair_off_or_offer_a_choice() {
        let choices = |text: &str| port_choices(&text.parse().unwrap());
        assert_eq!(
            choices("7000-7001:80-81"),
            [
                PortChoice { host: vec![7000], container: 80 },
                PortChoice { host: vec![7001], container: 81 }
            ]
        );
        assert_eq!(choices("7000-7001:80"), [PortChoice { host: vec![7000, 7001], container: 80 }]);
        assert_eq!(choices("80"), [PortChoice { host: vec![], container: 80 }]);
    }
}
