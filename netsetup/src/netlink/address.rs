//! Addresses of links.

use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{CREATE, Connection, DUMP, EXCLUSIVE, Request};
use crate::subnet::Subnet;

/// Gives a link an address in a subnet, with the route to the subnet that follows from it. An
/// IPv6 address is usable at once: that it is nobody else's is known from the leases.
pub(crate) fn add(index: u32, address: IpAddr, subnet: Subnet) -> Request<RouteNetlinkMessage> {
    let mut message = AddressMessage::default();
    message.header.prefix_len = subnet.length();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    match (address, subnet.last()) {
        (IpAddr::V4(_), IpAddr::V4(last)) => {
            message.header.family = AddressFamily::Inet;
            if subnet.length() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(last));
            }
        }
        _ => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    Request { message: RouteNetlinkMessage::NewAddress(message), flags: CREATE | EXCLUSIVE }
}

/// Every address: (index of its link, address).
pub(crate) fn list(connection: &mut Connection) -> Result<Vec<(u32, IpAddr)>> {
    let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = connection.query(&Request { message, flags: DUMP }).context("list addresses")?;
    Ok(answers.iter().filter_map(read).collect())
}

fn read(answer: &RouteNetlinkMessage) -> Option<(u32, IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    // On a link that is no cable between two hosts both attributes are the same.
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some((message.header.index, *address)),
        _ => None,
    })
}
