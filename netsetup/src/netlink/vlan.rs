//! VLANs on a bridge: which of them each port is in, and which its untagged packets belong to.

use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind,
    LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Request;

/// What a bridge does with VLANs; a kernel that knows none on bridges says nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vlans {
    pub(crate) is_on: bool,
    /// The VLAN that a new port is in, 0 for none.
    pub(crate) default: u16,
}

/// Reads it from what the kernel tells of a bridge.
pub(super) fn read(infos: &[InfoBridge]) -> Option<Vlans> {
    let is_on = infos.iter().find_map(|info| match info {
        InfoBridge::VlanFiltering(is_on) => Some(*is_on),
        _ => None,
    });
    let default = infos.iter().find_map(|info| match info {
        InfoBridge::VlanDefaultPvid(default) => Some(*default),
        _ => None,
    });
    Some(Vlans { is_on: is_on?, default: default? })
}

/// Makes a bridge tell VLANs apart.
pub(crate) fn switch_on(bridge: u32) -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = bridge;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])),
    ]));
    Request { message: RouteNetlinkMessage::NewLink(message), flags: 0 }
}

/// Which end of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Port(u32),
    /// The bridge's own, which has the host's addresses.
    Host(u32),
}

/// Puts an end into a VLAN, which its untagged packets then belong to.
pub(crate) fn join(end: End, id: u16) -> Request<RouteNetlinkMessage> {
    let flags = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
    let message = message(end, &[BridgeVlanInfo { flags, vid: id }]);
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Puts an end into a row of VLANs, whose packets have their tags there.
pub(crate) fn join_tagged(end: End, (first, last): (u16, u16)) -> Request<RouteNetlinkMessage> {
    let info = |vid, flags| BridgeVlanInfo { flags, vid };
    let row =
        [info(first, BridgeVlanInfoFlags::RangeBegin), info(last, BridgeVlanInfoFlags::RangeEnd)];
    let single = [info(first, BridgeVlanInfoFlags::empty())];
    let message = message(end, if first == last { &single } else { &row });
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Takes an end out of a VLAN.
pub(crate) fn leave(end: End, id: u16) -> Request<RouteNetlinkMessage> {
    let message = message(end, &[BridgeVlanInfo { flags: BridgeVlanInfoFlags::empty(), vid: id }]);
    Request { message: RouteNetlinkMessage::DelLink(message), flags: 0 }
}

fn message(end: End, infos: &[BridgeVlanInfo]) -> LinkMessage {
    let (index, flag) = match end {
        End::Port(index) => (index, None),
        End::Host(index) => (index, Some(AfSpecBridge::Flags(BridgeFlag::LowerDev))),
    };
    let mut spec: Vec<AfSpecBridge> = flag.into_iter().collect();
    spec.extend(infos.iter().map(|info| AfSpecBridge::VlanInfo(*info)));
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message.attributes.push(LinkAttribute::AfSpecBridge(spec));
    message
}
