//! Decisions, pure over what was asked for and what there is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use crate::netlink::link::Mac;
use crate::netlink::route::Route;
use crate::port::PortSpec;
use crate::state::Bridge;
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
const NOT_FOR_LINKS: [(IpAddr, u8, &str); 7] = [
    (IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8, "unspecified"),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8, "loopback"),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4, "multicast"),
    (IpAddr::V4(Ipv4Addr::new(240, 0, 0, 0)), 4, "reserved"),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 64, "unspecified and loopback"),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10, "link-local"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8, "multicast"),
];

/// The first subnet of the pools that overlaps neither a route nor a subnet promised already.
pub(crate) fn choose_subnet(routes: &[Route], promised: &[Subnet]) -> Result<Subnet> {
    for (first, length, count) in POOLS {
        for index in 0..count {
            let base = u32::from(first) + (index << (32 - u32::from(length)));
            let subnet = Subnet::containing(Ipv4Addr::from(base).into(), length);
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

/// A random unique local subnet of RFC 4193 that overlaps neither a route nor a promised one.
pub(crate) fn choose_subnet6(
    random: [u8; 7],
    routes: &[Route],
    promised: &[Subnet],
) -> Result<Subnet> {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&random);
    let subnet = Subnet::containing(Ipv6Addr::from(octets).into(), 64);
    if route_in_the_way(subnet, routes).is_some() || promised.iter().any(|it| it.overlaps(subnet)) {
        bail!("subnet {subnet}, chosen by chance, is in use: choose one with --subnet");
    }
    Ok(subnet)
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
    let longest = subnet.family().bits() - 2;
    if subnet.length() > longest || subnet.length() < 8 {
        bail!(
            "subnet {subnet} is too small or too large: a bridge takes a prefix length of 8 to {longest}"
        );
    }
    for (first, length, meaning) in NOT_FOR_LINKS {
        if Subnet::containing(first, length).overlaps(subnet) {
            bail!("subnet {subnet} is of the {meaning} addresses, which no link can have");
        }
    }
    Ok(())
}

/// Checks the source addresses that outgoing packets are to have.
pub(crate) fn check_outbound(addresses: &[IpAddr]) -> Result<()> {
    for (index, address) in addresses.iter().enumerate() {
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            bail!("packets can't leave with the source address {address}");
        }
        if addresses.iter().take(index).any(|it| it.is_ipv4() == address.is_ipv4()) {
            bail!("packets leave with one source address of each family: {address} is one more");
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

/// What tells a link from others: names, hardware addresses and groups are made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seed {
    /// An IPv4 address, which is on one link at most.
    Address(u32),
    /// A digest of whatever the link is known by.
    Digest(u32),
}

impl Seed {
    /// From the addresses of a link that were given out by us.
    pub(crate) fn of_addresses(addresses: &[IpAddr]) -> Option<Seed> {
        let v4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(Seed::Address(u32::from(*address))),
            IpAddr::V6(_) => None,
        });
        v4.or_else(|| addresses.first().map(|address| Seed::of_words(&[&address.to_string()])))
    }

    /// From words that no other link is known by.
    pub(crate) fn of_words(words: &[&str]) -> Seed {
        // FNV-1a; a zero ends each word, so that no two lists of words are one text.
        let bytes = words.iter().flat_map(|word| word.bytes().chain([0]));
        let digest = bytes.fold(0x811c_9dc5_u32, |digest, byte| {
            (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Seed::Digest(digest)
    }

    fn number(self) -> u32 {
        match self {
            Seed::Address(number) | Seed::Digest(number) => number,
        }
    }
}

/// A hardware address made from an IP address: whoever gets the address next answers with the
/// same, so that no neighbour's table is ever stale. The second byte tells the ends apart.
pub(crate) fn mac(seed: Seed, end: End) -> Mac {
    let [a, b, c, d] = seed.number().to_be_bytes();
    [0x02, end as u8, a, b, c, d]
}

/// Which link a hardware address is for.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Container = 0x6e,
    Host = 0x6f,
    Bridge = 0x70,
}

/// Name of the host's end of a container's link: `veth` keeps NetworkManager away from it.
pub(crate) fn host_interface(seed: Seed) -> String {
    match seed {
        Seed::Address(number) => format!("veth{number:08x}"),
        Seed::Digest(number) => format!("veth{number:08x}x"),
    }
}

fn bridge_seed(bridge: &Bridge) -> Seed {
    let gateways: Vec<IpAddr> = bridge.gateways().map(|(gateway, _)| gateway).collect();
    match Seed::of_addresses(&gateways) {
        Some(seed @ Seed::Address(_)) => seed,
        _ => Seed::of_words(&["bridge", &bridge.name]),
    }
}

/// The hardware address of a bridge.
pub(crate) fn bridge_mac(bridge: &Bridge) -> Mac {
    mac(bridge_seed(bridge), End::Bridge)
}

/// The group of a bridge and of its containers' links, by which they are removed at once: far
/// from the numbers that people choose, and another for every bridge.
pub(crate) fn link_group(bridge: &Bridge) -> u32 {
    bridge_seed(bridge).number()
}

/// Reads a hardware address as people write it.
pub(crate) fn parse_mac(text: &str) -> Result<Mac, String> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        let parsed = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte =
            parsed.ok_or_else(|| format!("{text:?} is no MAC address, as 02:00:00:00:00:01"))?;
    }
    if parts.next().is_some() || mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(format!("{text:?} is no MAC address that one link can have"));
    }
    Ok(mac)
}

/// A hardware address as people read it.
pub(crate) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Checks the name of a link in a container.
pub(crate) fn check_interface(name: &str) -> Result<()> {
    let bad = |byte: u8| byte == b'/' || byte == b':' || byte <= b' ' || byte == 127;
    if name.is_empty()
        || name.len() > LONGEST_LINK_NAME
        || [".", "..", "lo"].contains(&name)
        || name.bytes().any(bad)
    {
        bail!(
            "{name:?} is no name for an interface: 1 to {LONGEST_LINK_NAME} bytes without '/', ':' and blanks"
        );
    }
    Ok(())
}

/// Whether a hosts file may hold this name.
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.len() <= 255 && name.bytes().all(is_word)
}

/// Reads a name under which a container is found.
pub(crate) fn parse_host_name(text: &str) -> Result<String, String> {
    if is_host_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no host name: letters, digits, '.', '-' and '_'"))
    }
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
        let destination = destination.parse().unwrap();
        Route {
            destination,
            gateway: None,
            link: None,
            metric: 0,
            from_router: false,
            is_main: true,
        }
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
        for subnet in
            ["10.1.0.0/24", "172.18.0.0/16", "203.0.113.0/30", "169.254.7.0/24", "fd00:1::/64"]
        {
            check_subnet(subnet.parse().unwrap()).unwrap();
        }
        for subnet in ["127.0.0.0/8", "224.0.1.0/24", "240.0.0.0/24", "0.0.0.0/8", "10.0.0.0/31"]
            .into_iter()
            .chain(["fe80::/64", "ff02::/64", "::/64", "fd00::/127"])
        {
            assert!(check_subnet(subnet.parse().unwrap()).is_err(), "{subnet}");
        }
    }

    #[test]
    fn chosen_ipv6_subnets_are_unique_local_ones() {
        let subnet = choose_subnet6([1, 2, 3, 4, 5, 6, 7], &[], &[]).unwrap();
        assert_eq!(subnet.to_string(), "fd01:203:405:607::/64");
        assert!(choose_subnet6([1, 2, 3, 4, 5, 6, 7], &[], &[subnet]).is_err());
    }

    #[test]
    fn macs_are_those_of_single_links() {
        assert_eq!(parse_mac("02:00:0a:ff:00:01"), Ok([2, 0, 10, 255, 0, 1]));
        for text in
            ["", "02:00:0a:ff:00", "02:00:0a:ff:00:01:02", "01:00:00:00:00:01", "2:0:0:0:0:1"]
        {
            assert!(parse_mac(text).is_err(), "{text}");
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
