//! Our nf_tables table: from a change to one transaction whose size does not depend on what is
//! published already. The whole table is sent only when it does not exist.

mod expression;
pub(crate) mod foreign;
mod message;
mod table;

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use nix::errno::Errno;

use self::message::{Change, Element, add_elements, address, interface, remove_elements};
use crate::netlink::{Connection, is_errno};
use crate::port::Binding;
use crate::state::Bridge;

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

/// Adds to the table.
pub(crate) fn add(connection: &mut Connection, contents: &Contents) -> Result<()> {
    commit(connection, additions(contents))
}

/// Takes out of the table; what is out already is no error.
pub(crate) fn remove(connection: &mut Connection, contents: &Contents) -> Result<()> {
    let changes =
        elements(contents).into_iter().flat_map(|(set, elements)| remove_elements(set, &elements));
    commit(connection, changes.collect())
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
    let mut sets: Vec<(&'static str, Vec<Element>)> = Vec::new();
    let bridges = &contents.bridges;
    let key = |key: Vec<u8>| Element { key, ..Element::default() };
    let link = |bridge: &Bridge| interface(&bridge.name);
    sets.push((table::BRIDGES, bridges.iter().map(|bridge| key(link(bridge))).collect()));
    sets.push((
        table::INSIDE,
        bridges.iter().map(|bridge| key([link(bridge), link(bridge)].concat())).collect(),
    ));
    let internal = bridges.iter().filter(|bridge| bridge.internal);
    sets.push((table::INTERNAL, internal.map(|bridge| key(link(bridge))).collect()));
    let masqueraded = bridges.iter().filter(|bridge| bridge.masquerade && !bridge.internal);
    sets.push((table::MASQUERADED, masqueraded.flat_map(range).collect()));
    sets.push((table::SUBNETS, bridges.iter().flat_map(range).collect()));
    let hairpin = |bridge: &Bridge| Element {
        key: [address(bridge.subnet.first()), link(bridge)].concat(),
        key_end: Some([address(bridge.subnet.last()), link(bridge)].concat()),
        ..Element::default()
    };
    sets.push((table::HAIRPIN, bridges.iter().map(hairpin).collect()));
    let (anywhere, somewhere): (Vec<_>, Vec<_>) =
        contents.ports.iter().partition(|port| port.binding.host_ip.is_unspecified());
    sets.push((table::PORTS, anywhere.into_iter().map(port).collect()));
    sets.push((table::PORTS_AT, somewhere.into_iter().map(port).collect()));
    sets.retain(|(_, elements)| !elements.is_empty());
    sets
}

/// The first address of a subnet, and the first behind it.
fn range(bridge: &Bridge) -> Vec<Element> {
    let mut range = vec![Element { key: address(bridge.subnet.first()), ..Element::default() }];
    if let Some(behind) = u32::from(bridge.subnet.last()).checked_add(1) {
        let key = address(Ipv4Addr::from(behind));
        range.push(Element { key, ends_range: true, ..Element::default() });
    }
    range
}

fn port(published: &Published) -> Element {
    let binding = &published.binding;
    let [high, low] = binding.host_port.to_be_bytes();
    let mut key = Vec::new();
    if !binding.host_ip.is_unspecified() {
        key.extend(address(binding.host_ip));
    }
    key.extend([binding.protocol.number(), 0, 0, 0, high, low, 0, 0]);
    let mut data = address(*binding.target.ip());
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
    use std::net::SocketAddrV4;

    use super::*;
    use crate::port::Protocol;

    fn published(host_ip: Ipv4Addr) -> Published {
        let target = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 2), 80);
        let binding = Binding { protocol: Protocol::Tcp, host_ip, host_port: 8080, target };
        Published { binding, container: "web".to_owned() }
    }

    #[test]
    fn ports_go_into_the_map_of_their_kind() {
        let contents = Contents {
            ports: vec![published(Ipv4Addr::UNSPECIFIED), published(Ipv4Addr::LOCALHOST)],
            ..Contents::default()
        };
        let sets = elements(&contents);
        assert_eq!(
            sets.iter().map(|(set, elements)| (*set, elements.len())).collect::<Vec<_>>(),
            [(table::PORTS, 1), (table::PORTS_AT, 1)]
        );
        assert_eq!(sets[0].1[0].key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(sets[0].1[0].data, Some(vec![10, 1, 0, 2, 0, 80, 0, 0]));
        assert_eq!(sets[1].1[0].key, [127, 0, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
    }

    #[test]
    fn a_range_up_to_the_last_address_has_no_end() {
        let bridge = |subnet: &str| Bridge::new("br0", subnet.parse().unwrap());
        assert_eq!(range(&bridge("10.0.0.0/24")).len(), 2);
        assert_eq!(range(&bridge("255.255.255.0/24")).len(), 1);
    }
}
