//! Ports of bridges.

use netlink_packet_route::link::{
    InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::Mac;
use super::{CREATE, EXCLUSIVE, Request};

/// What a port does with packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// It may send a packet back to where it came from: where bridged packets pass IP hooks, that
    /// is the way of a container to its own published port.
    pub(crate) hairpin: bool,
    /// It sends nothing to other isolated ones.
    pub(crate) isolated: bool,
    /// It takes packets only from hardware addresses that it was told of, and learns none.
    pub(crate) locked: bool,
}

/// Switches a port on.
pub(crate) fn set_up(index: u32, settings: Settings) -> Request<RouteNetlinkMessage> {
    let mut data = vec![
        InfoBridgePort::HairpinMode(settings.hairpin),
        InfoBridgePort::Isolated(settings.isolated),
    ];
    if settings.locked {
        data.extend([InfoBridgePort::Learning(false), InfoBridgePort::Locked(true)]);
    }
    let mut message = message(index, data);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request { message: RouteNetlinkMessage::NewLink(message), flags: 0 }
}

/// Keeps a port, whatever else it does, from other isolated ones.
pub(crate) fn isolate(index: u32) -> Request<RouteNetlinkMessage> {
    let message = message(index, vec![InfoBridgePort::Isolated(true)]);
    Request { message: RouteNetlinkMessage::NewLink(message), flags: 0 }
}

fn message(index: u32, data: Vec<InfoBridgePort>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(data)),
    ]));
    message
}

/// Tells a port of a hardware address that is behind it, for good and in all of its VLANs.
pub(crate) fn tell(index: u32, mac: Mac) -> Request<RouteNetlinkMessage> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Noarp;
    // Of the bridge's table, not of the port's own.
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    Request { message: RouteNetlinkMessage::NewNeighbour(message), flags: CREATE | EXCLUSIVE }
}

/// Whether this tells of a locked port: a kernel older than 5.18 passes over the wish.
pub(super) fn is_locked(info: &LinkInfo) -> bool {
    let LinkInfo::PortData(InfoPortData::BridgePort(data)) = info else { return false };
    data.contains(&InfoBridgePort::Locked(true))
}
