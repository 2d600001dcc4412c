//! Links: bridges and veth pairs.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
pub(crate) use netlink_packet_route::link::{IpVlanMode, MacVlanMode};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::vlan::{self, Vlans};
use super::{CREATE, Connection, DUMP, EXCLUSIVE, Request, bridge_port, is_errno};
use crate::state::Vlan;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// What we look at in a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) group: u32,
    pub(crate) is_bridge: bool,
    /// A port of a bridge that takes packets only from hardware addresses that it was told of.
    pub(crate) is_locked: bool,
    /// Of a bridge, where the kernel knows VLANs on bridges.
    pub(crate) vlans: Option<Vlans>,
    pub(crate) flags: LinkFlags,
    pub(crate) queue_length: Option<u32>,
    pub(crate) mac: Option<Mac>,
}

/// What may be changed of a link that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Change {
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<u32>,
    pub(crate) promiscuous: Option<bool>,
    pub(crate) all_multicast: Option<bool>,
    pub(crate) queue_length: Option<u32>,
}

impl Change {
    /// The change back to what the link is now.
    pub(crate) fn back(&self, link: &Link) -> Change {
        Change {
            mac: self.mac.and(link.mac),
            mtu: self.mtu.map(|_| link.mtu),
            promiscuous: self.promiscuous.map(|_| link.flags.contains(LinkFlags::Promisc)),
            all_multicast: self.all_multicast.map(|_| link.flags.contains(LinkFlags::Allmulti)),
            queue_length: self.queue_length.and(link.queue_length),
        }
    }
}

/// One end of a veth pair.
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
}

impl Link {
    /// Whether it is switched on.
    pub(crate) fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }
}

/// The link of this name.
pub(crate) fn find(connection: &mut Connection, name: &str) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match connection.query(&Request { message: RouteNetlinkMessage::GetLink(message), flags: 0 }) {
        Err(error) if is_errno(&error, Errno::ENODEV) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look up link {name}")),
        Ok(answers) => Ok(answers.iter().find_map(read)),
    }
}

/// Every link.
pub(crate) fn list(connection: &mut Connection) -> Result<Vec<Link>> {
    let request =
        Request { message: RouteNetlinkMessage::GetLink(LinkMessage::default()), flags: DUMP };
    let answers = connection.query(&request).context("list links")?;
    Ok(answers.iter().filter_map(read).collect())
}

pub(crate) fn read(answer: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        group: 0,
        is_bridge: false,
        is_locked: false,
        vlans: None,
        flags: message.header.flags,
        queue_length: None,
        mac: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::TxQueueLen(length) => link.queue_length = Some(*length),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                link.is_locked = infos.iter().any(bridge_port::is_locked);
                link.vlans = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Bridge(data)) => vlan::read(data),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

/// Makes a bridge, still down. A hardware address of our own keeps it from following the lowest
/// of its ports', and udev from choosing another.
pub(crate) fn create_bridge(
    name: &str,
    mac: Mac,
    mtu: u32,
    group: u32,
    domain: Option<u32>,
    vlan: Option<Vlan>,
) -> Request<RouteNetlinkMessage> {
    let mut data =
        vec![InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)];
    if let Some(vlan) = vlan {
        data.push(InfoBridge::VlanFiltering(true));
        // Its own end and every port are in this one from the start.
        data.extend((!vlan.hears_default).then_some(InfoBridge::VlanDefaultPvid(vlan.id)));
    }
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Group(group),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(data)),
        ]),
    ];
    message.attributes.extend(domain.map(LinkAttribute::Controller));
    Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE | EXCLUSIVE }
}

/// Makes a veth pair: `host` becomes a port of the bridge, `inside` is born in the namespace,
/// so that it never has a name here. Both are down.
pub(crate) fn create_veth(
    host: &VethEnd,
    bridge: &Link,
    inside: &VethEnd,
    group: u32,
    netns: BorrowedFd,
) -> Request<RouteNetlinkMessage> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(inside.name.to_owned()),
        LinkAttribute::Address(inside.mac.to_vec()),
        LinkAttribute::Mtu(inside.mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(host.name.to_owned()),
        LinkAttribute::Address(host.mac.to_vec()),
        LinkAttribute::Mtu(host.mtu),
        LinkAttribute::Controller(bridge.index),
        LinkAttribute::Group(group),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE | EXCLUSIVE }
}

/// What a link on another link of the host's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sublink {
    Macvlan(MacVlanMode),
    Ipvlan(IpVlanMode),
}

/// Makes a link on the link `parent`, in the namespace. It is down.
pub(crate) fn create_sublink(
    end: &VethEnd,
    own_mac: Option<Mac>,
    kind: Sublink,
    parent: u32,
    netns: BorrowedFd,
) -> Request<RouteNetlinkMessage> {
    let (kind, data) = match kind {
        Sublink::Macvlan(mode) => {
            (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]))
        }
        Sublink::Ipvlan(mode) => (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)])),
    };
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Link(parent),
        LinkAttribute::Mtu(end.mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
    ];
    message.attributes.extend(own_mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE | EXCLUSIVE }
}

/// Switches a link on.
pub(crate) fn set_up(index: u32) -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Switches a link off.
pub(crate) fn set_down(index: u32) -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// Changes properties of a link.
pub(crate) fn change(index: u32, change: &Change) -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let flags =
        [(change.promiscuous, LinkFlags::Promisc), (change.all_multicast, LinkFlags::Allmulti)];
    for (wanted, flag) in flags {
        message.header.change_mask.set(flag, wanted.is_some());
        message.header.flags.set(flag, wanted == Some(true));
    }
    let attributes = &mut message.attributes;
    attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    attributes.extend(change.queue_length.map(LinkAttribute::TxQueueLen));
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}
