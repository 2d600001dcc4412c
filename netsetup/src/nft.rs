//! Our nf_tables table: from a change to one transaction whose size does not depend on what is
//! published already. The whole table is sent only when it does not exist.

mod expression;
pub(crate) mod foreign;
mod message;
mod table;
mod verify;

use std::net::IpAddr;

use anyhow::{Context, Result};
use nix::errno::Errno;

use self::message::{Change, Element, add_elements, address, interface, remove_elements};
use crate::netlink::{Connection, is_errno};
use crate::port::Binding;
use crate::state::{Bridge, Isolation};
use crate::subnet::{self, Family, Subnet};

pub(crate) use self::verify::missing;

/// A published port and the container that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) binding: Binding,
    pub(crate) container: String,
}

/// What the table should come to hold, or hold no longer.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) ports: Vec<Published>,
}

impl Contents {
    /// Whether nothing of this needs a table.
    pub(crate) fn is_empty(&self) -> bool {
        self.bridges.is_empty() && self.ports.is_empty()
    }
}

/// Whether our table exists.
pub(crate) fn exists(connection: &mut Connection) -> Result<bool> {
    match connection.query(&message::get_table()) {
        Ok(_) => Ok(true),
        Err(error) if is_errno(&error, Errno::ENOENT) => Ok(false),
        Err(error) => Err(error).context("look up nf_tables table netsetup"),
    }
}

/// Makes the table and fills it.
pub(crate) fn create(connection: &mut Connection, contents: &Contents) -> Result<()> {
    let mut changes = table::whole();
    changes.extend(additions(contents));
    commit(connection, changes)
}

/// Makes the table anew, whatever was there, in one transaction: no packet sees it empty.
pub(crate) fn replace(connection: &mut Connection, contents: &Contents) -> Result<()> {
    let mut changes = vec![message::ensure_table(), message::delete_table()];
    changes.extend(table::whole());
    changes.extend(additions(contents));
    commit(connection, changes)
}

/// Adds to the table.
pub(crate) fn add(connection: &mut Connection, contents: &Contents) -> Result<()> {
    commit(connection, additions(contents))
}

/// Takes out of the table; what is out already is no error.
pub(crate) fn remove(connection: &mut Connection, contents: &Contents) -> Result<()> {
    let sets: Vec<Vec<Change>> = elements(contents)
        .into_iter()
        .map(|(set, elements)| remove_elements(set, &elements))
        .collect();
    match commit(connection, sets.concat()) {
        Err(error) if is_errno(&error, Errno::ENOENT) => {
            // A set is gone, which must not keep the others' elements where they are.
            sets.into_iter().try_for_each(|changes| match commit(connection, changes) {
                Err(error) if is_errno(&error, Errno::ENOENT) => Ok(()),
                outcome => outcome,
            })
        }
        outcome => outcome,
    }
}

/// Removes the table with everything in it; that there is none is no error.
pub(crate) fn delete(connection: &mut Connection) -> Result<()> {
    match commit(connection, vec![message::delete_table()]) {
        Err(error) if is_errno(&error, Errno::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

fn commit(connection: &mut Connection, changes: Vec<Change>) -> Result<()> {
    message::commit(connection, changes).map_err(|error| {
        let missing = is_errno(&error, Errno::ENOENT) || is_errno(&error, Errno::EOPNOTSUPP);
        let error = error.context("change nf_tables");
        if missing {
            error.context("the kernel lacks a part of nf_tables (nft_chain_nat, nft_fib_inet, nft_nat, nft_masq)")
        } else {
            error
        }
    })
}

fn additions(contents: &Contents) -> Vec<Change> {
    elements(contents)
        .into_iter()
        .flat_map(|(set, elements)| add_elements(set, &elements))
        .collect()
}

/// The elements of each set that stand for the contents.
fn elements(contents: &Contents) -> Vec<(&'static str, Vec<Element>)> {
    let bridges: Vec<&Bridge> = contents.bridges.iter().filter(|bridge| !bridge.bare).collect();
    let mut sets = link_elements(&bridges);
    for family in Family::BOTH {
        let names = table::names(family);
        let pairs = bridges.iter().copied().flat_map(|bridge| {
            let subnets = bridge.subnets.iter().map(move |it| (bridge, it.subnet));
            subnets.filter(move |(_, subnet)| subnet.family() == family)
        });
        let (mut masqueraded, mut outbound) = (Vec::new(), Vec::new());
        let mut subnets = Vec::new();
        for (bridge, subnet) in pairs {
            if bridge.masquerade && !bridge.internal {
                match bridge.outbound(family) {
                    Some(source) => outbound.extend(mapped(range(subnet), source)),
                    None => masqueraded.extend(range(subnet)),
                }
            }
            subnets.extend(range(subnet));
        }
        let ports = contents.ports.iter();
        let ports = ports.filter(|port| Family::of(port.binding.host_ip) == family);
        let (anywhere, somewhere): (Vec<_>, Vec<_>) =
            ports.partition(|port| port.binding.host_ip.is_unspecified());
        sets.extend([
            (names.masqueraded, masqueraded),
            (names.outbound, outbound),
            (names.subnets, subnets),
            (names.ports, anywhere.into_iter().map(port).collect()),
            (names.ports_at, somewhere.into_iter().map(port).collect()),
        ]);
    }
    sets.retain(|(_, elements)| !elements.is_empty());
    sets
}

/// What stands for bridges in the sets of link names.
fn link_elements(bridges: &[&Bridge]) -> Vec<(&'static str, Vec<Element>)> {
    let key = |key: Vec<u8>| Element { key, ..Element::default() };
    let link = |bridge: &Bridge| interface(&bridge.name);
    let links = |wanted: fn(&Bridge) -> bool| {
        let wanted = bridges.iter().filter(|bridge| wanted(bridge));
        wanted.map(|bridge| key(link(bridge))).collect::<Vec<_>>()
    };
    let inside = bridges.iter().filter(|bridge| bridge.isolation != Isolation::Containers);
    let inside = inside.map(|bridge| key([link(bridge), link(bridge)].concat()));
    vec![
        (table::BRIDGES, links(|_| true)),
        (table::INSIDE, inside.collect()),
        (table::INTERNAL, links(|bridge| bridge.internal)),
        (table::OPEN, links(|bridge| bridge.isolation == Isolation::None)),
        (table::ROUTED, links(|bridge| bridge.routed)),
    ]
}

/// The first address of a subnet, and the first behind it.
fn range(subnet: Subnet) -> Vec<Element> {
    let mut range = vec![Element { key: address(subnet.first()), ..Element::default() }];
    if subnet::number(subnet.last()) < subnet::number(Subnet::containing(subnet.first(), 0).last())
    {
        let behind = subnet.host(subnet::number(subnet.last()) + 1);
        range.push(Element { key: address(behind), ends_range: true, ..Element::default() });
    }
    range
}

/// A range that leads to an address.
fn mapped(range: Vec<Element>, target: IpAddr) -> impl Iterator<Item = Element> {
    range.into_iter().map(move |element| {
        let data = (!element.ends_range).then(|| address(target));
        Element { data, ..element }
    })
}

fn port(published: &Published) -> Element {
    let binding = &published.binding;
    let [high, low] = binding.host_port.to_be_bytes();
    let mut key = Vec::new();
    if !binding.host_ip.is_unspecified() {
        key.extend(address(binding.host_ip));
    }
    key.extend([binding.protocol.number(), 0, 0, 0, high, low, 0, 0]);
    let mut data = address(binding.target.ip());
    let [high, low] = binding.target.port().to_be_bytes();
    data.extend([high, low, 0, 0]);
    Element {
        key,
        data: Some(data),
        comment: Some(published.container.clone()),
        ..Element::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Protocol;
    use crate::state::BridgeSubnet;

    fn published(host_ip: &str, target: &str) -> Published {
        let (host_ip, target) = (host_ip.parse().unwrap(), target.parse().unwrap());
        let binding = Binding { protocol: Protocol::Tcp, host_ip, host_port: 8080, target };
        Published { binding, container: "web".to_owned() }
    }

    #[test]
    fn ports_go_into_the_map_of_their_kind() {
        let ports = [
            ("0.0.0.0", "10.1.0.2:80"),
            ("127.0.0.1", "10.1.0.2:80"),
            ("::", "[fd00::2]:80"),
            ("fd00::1", "[fd00::2]:80"),
        ];
        let ports = ports.map(|(host_ip, target)| published(host_ip, target)).into();
        let sets = elements(&Contents { ports, ..Contents::default() });
        assert_eq!(
            sets.iter().map(|(set, elements)| (*set, elements.len())).collect::<Vec<_>>(),
            [("ports", 1), ("ports_at", 1), ("ports6", 1), ("ports6_at", 1)]
        );
        assert_eq!(sets[0].1[0].key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(sets[0].1[0].data, Some(vec![10, 1, 0, 2, 0, 80, 0, 0]));
        assert_eq!(sets[1].1[0].key, [127, 0, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(sets[2].1[0].key, sets[0].1[0].key);
        assert_eq!(sets[3].1[0].key.len(), 16 + 8);
        assert_eq!(sets[3].1[0].data.as_ref().unwrap().len(), 16 + 4);
    }

    #[test]
    fn a_bridge_stands_in_the_sets_of_its_families() {
        let subnets =
            ["10.1.0.0/24", "fd00:1::/64"].map(|text| BridgeSubnet::new(text.parse().unwrap()));
        let mut bridge = Bridge::new("br0", subnets.into());
        bridge.isolation = Isolation::Containers;
        let sets = |bridge: &Bridge| {
            let contents = Contents { bridges: vec![bridge.clone()], ports: Vec::new() };
            elements(&contents).iter().map(|(set, _)| *set).collect::<Vec<_>>()
        };
        assert_eq!(
            sets(&bridge),
            ["bridges", "masqueraded", "neighbours", "masqueraded6", "neighbours6"]
        );
        let outbound = Bridge { outbound: vec!["192.0.2.7".parse().unwrap()], ..bridge.clone() };
        assert!(sets(&outbound).contains(&"outbound") && sets(&outbound).contains(&"masqueraded6"));
        bridge = Bridge { internal: true, isolation: Isolation::None, ..bridge };
        bridge.subnets.pop();
        assert_eq!(sets(&bridge), ["bridges", "inside", "internal", "open", "neighbours"]);
    }

    #[test]
    fn a_range_up_to_the_last_address_has_no_end() {
        let range = |subnet: &str| range(subnet.parse().unwrap()).len();
        assert_eq!(range("10.0.0.0/24"), 2);
        assert_eq!(range("255.255.255.0/24"), 1);
        assert_eq!(range("fd00::/64"), 2);
    }
}
