//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{CREATE, EXCLUSIVE, Request};
use crate::subnet::Subnet;

/// Gives a link an address in a subnet, with the route to the subnet that follows from it.
pub(crate) fn add(index: u32, address: Ipv4Addr, subnet: Subnet) -> Request<RouteNetlinkMessage> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = subnet.length();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    if subnet.length() < 31 {
        message.attributes.push(AddressAttribute::Broadcast(subnet.last()));
    }
    Request { message: RouteNetlinkMessage::NewAddress(message), flags: CREATE | EXCLUSIVE }
}
