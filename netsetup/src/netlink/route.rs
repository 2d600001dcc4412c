//! IPv4 routes.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{CREATE, Connection, DUMP, EXCLUSIVE, Request};
use crate::subnet::Subnet;

const TABLE_LOCAL: u32 = 255;

/// A route of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Subnet,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Index of the link it leads to.
    pub(crate) link: Option<u32>,
    pub(crate) metric: u32,
}

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.destination)?;
        match self.gateway {
            Some(gateway) => write!(formatter, " via {gateway}"),
            None => Ok(()),
        }
    }
}

/// Every IPv4 route but those to the host itself.
pub(crate) fn list(connection: &mut Connection) -> Result<Vec<Route>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let request = Request { message: RouteNetlinkMessage::GetRoute(message), flags: DUMP };
    let answers = connection.query(&request).context("list routes")?;
    Ok(answers.iter().filter_map(read).collect())
}

fn read(answer: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let mut table = u32::from(message.header.table);
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut route = Route {
        destination: Subnet::containing(destination, 0),
        gateway: None,
        link: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    route.destination = Subnet::containing(destination, message.header.destination_prefix_length);
    (table != TABLE_LOCAL).then_some(route)
}

/// The default route through `gateway`.
pub(crate) fn add_default(index: u32, gateway: Ipv4Addr) -> Request<RouteNetlinkMessage> {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    Request { message: RouteNetlinkMessage::NewRoute(message), flags: CREATE | EXCLUSIVE }
}
