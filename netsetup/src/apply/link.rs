//! The links of an attachment, and what the container's end needs.

use anyhow::{Context, Result};

use super::Host;
use crate::netlink::link::{self, Link, VethEnd};
use crate::netlink::{Connection, Request, address, route, shape};
use crate::plan::{self, End, Seed};
use crate::request::AttachRequest;
use crate::state::{Attachment, Bridge, Isolation, RouteKind, StaticRoute};
use crate::subnet::{Family, Subnet};
use crate::sysctl;

impl Host<'_> {
    /// Makes the pair of links whose one end is a port of the bridge.
    pub(super) fn make_link(
        &mut self,
        request: &AttachRequest,
        attachment: &Attachment,
        bridge: &Bridge,
        link: &Link,
    ) -> Result<()> {
        let Attachment { interface, host_interface, mac, .. } = attachment;
        let own = plan::parse_mac(mac).map_err(anyhow::Error::msg)?;
        let host_mac = plan::mac(Seed::of_words(&[host_interface, mac]), End::Host);
        let mtu = request.mtu.unwrap_or(link.mtu);
        let host = VethEnd { name: host_interface, mac: host_mac, mtu };
        let inside = VethEnd { name: interface, mac: own, mtu };
        let group = plan::link_group(bridge);
        let create = link::create_veth(&host, link, &inside, group, request.netns.as_fd());
        self.route
            .transact(vec![create])
            .with_context(|| format!("create link {interface} in the container"))?;
        sysctl::close_ipv6(host_interface)?;
        equip(request, attachment)?;
        if let Some(limit) = request.limits.ingress {
            shape::set_by_name(&mut self.route, host_interface, limit)?;
        }
        let outer =
            link::find(&mut self.route, host_interface)?.context("the host's link vanished")?;
        if let Some(vlan) = Host::choose_vlan(request, bridge)? {
            self.enter_vlan(vlan, link, &outer)?;
        }
        let isolated = bridge.isolation == Isolation::Containers;
        self.route
            .transact(vec![link::set_port_up(outer.index, isolated)])
            .with_context(|| format!("set up {host_interface}"))
    }
}

/// Gives the container's link its settings, addresses and routes, and switches it on.
pub(super) fn equip(request: &AttachRequest, attachment: &Attachment) -> Result<()> {
    let interface = &attachment.interface;
    let mut container = request.netns.enter(|| {
        match attachment.address(Family::V6) {
            Some(_) => sysctl::open_ipv6(interface)?,
            None => sysctl::close_ipv6(interface)?,
        }
        sysctl::loosen_reverse_path(interface)?;
        Connection::route()
    })?;
    let inner = link::find(&mut container, interface)?.context("the container's link vanished")?;
    let lo = link::find(&mut container, "lo")?.context("the container has no loopback link")?;
    let mut requests = vec![link::set_up(lo.index)];
    let addresses = attachment.addresses.iter();
    requests.extend(addresses.map(|it| address::add(inner.index, it.address, it.subnet)));
    requests.push(link::set_up(inner.index));
    requests.extend(routes(attachment, request, inner.index));
    container.transact(requests).with_context(|| format!("set up {interface} in the container"))?;
    match request.limits.egress {
        Some(limit) => shape::set_by_name(&mut container, interface, limit),
        None => Ok(()),
    }
}

fn routes(
    attachment: &Attachment,
    request: &AttachRequest,
    index: u32,
) -> Vec<Request<netlink_packet_route::RouteNetlinkMessage>> {
    let gateways = attachment.addresses.iter().filter_map(|it| it.gateway);
    let defaults = gateways.map(|gateway| StaticRoute {
        destination: Subnet::containing(gateway, 0),
        gateway: Some(gateway),
        metric: request.metric,
        kind: RouteKind::Unicast,
    });
    let all = defaults.chain(attachment.routes.iter().cloned());
    let over = |route: &StaticRoute| attachment.carries(route).then_some(index);
    all.map(|route| route::add(over(&route), &route)).collect()
}
