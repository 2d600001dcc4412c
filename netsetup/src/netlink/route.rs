//! Routes.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{CREATE, Connection, DUMP, EXCLUSIVE, Request, is_errno};
use crate::state::{RouteKind, StaticRoute};
use crate::subnet::{Family, Subnet};

const TABLE_LOCAL: u32 = 255;

/// A route of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Subnet,
    pub(crate) gateway: Option<IpAddr>,
    /// Index of the link it leads to.
    pub(crate) link: Option<u32>,
    pub(crate) metric: u32,
    /// A router advertised it.
    pub(crate) from_router: bool,
    /// It is in the table that is asked where no rule says otherwise.
    pub(crate) is_main: bool,
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

fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Every route but those to the host itself.
pub(crate) fn list(connection: &mut Connection) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for of in Family::BOTH {
        let mut message = RouteMessage::default();
        message.header.address_family = family(of);
        let request = Request { message: RouteNetlinkMessage::GetRoute(message), flags: DUMP };
        let answers = connection.query(&request).context("list routes")?;
        routes.extend(answers.iter().filter_map(|answer| read(of, answer)));
    }
    Ok(routes)
}

fn read(of: Family, answer: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let mut table = u32::from(message.header.table);
    let mut destination = of.unspecified();
    let mut route = Route {
        destination: Subnet::containing(destination, 0),
        gateway: None,
        link: None,
        metric: 0,
        from_router: message.header.protocol == RouteProtocol::Ra,
        is_main: false,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    route.destination = Subnet::containing(destination, message.header.destination_prefix_length);
    route.is_main = table == u32::from(RouteHeader::RT_TABLE_MAIN);
    // Every link has a route to fe80::/64, and one to ff00::/8.
    let local = [RouteType::Local, RouteType::Broadcast, RouteType::Anycast, RouteType::Multicast];
    (table != TABLE_LOCAL && !local.contains(&message.header.kind)).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// A route over a link, or wherever its gateway is.
pub(crate) fn add(index: Option<u32>, route: &StaticRoute) -> Request<RouteNetlinkMessage> {
    let message = RouteNetlinkMessage::NewRoute(message(index, route));
    Request { message, flags: CREATE | EXCLUSIVE }
}

/// Takes a route away that is on no link of ours; one that is gone is no error.
pub(crate) fn delete(connection: &mut Connection, route: &StaticRoute) -> Result<()> {
    let message = RouteNetlinkMessage::DelRoute(message(None, route));
    match connection.transact(vec![Request { message, flags: 0 }]) {
        Err(error) if is_errno(&error, Errno::ESRCH) => Ok(()),
        outcome => outcome.with_context(|| format!("delete route to {}", route.destination)),
    }
}

fn message(index: Option<u32>, route: &StaticRoute) -> RouteMessage {
    let StaticRoute { destination, gateway, details, kind } = route;
    let is_over_link = gateway.is_none() && *kind == RouteKind::Unicast;
    let usual_scope = if is_over_link { RouteScope::Link } else { RouteScope::Universe };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(destination.family()),
        destination_prefix_length: destination.length(),
        // The attribute has the numbers that do not fit here.
        table: details.table.map_or(RouteHeader::RT_TABLE_MAIN, |table| {
            u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
        }),
        protocol: RouteProtocol::Static,
        scope: details.scope.map_or(usual_scope, RouteScope::from),
        kind: match kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
        },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    attributes.extend(index.map(RouteAttribute::Oif));
    if destination.length() > 0 {
        attributes.push(RouteAttribute::Destination(route_address(destination.first())));
    }
    attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(route_address(gateway))));
    attributes.extend(details.metric.map(RouteAttribute::Priority));
    attributes.extend(details.table.map(RouteAttribute::Table));
    let (mtu, advmss) =
        (details.mtu.map(RouteMetric::Mtu), details.advmss.map(RouteMetric::Advmss));
    let metrics: Vec<RouteMetric> = mtu.into_iter().chain(advmss).collect();
    attributes.extend((!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics)));
    message
}
