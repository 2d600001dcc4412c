//! The links of an attachment, and what the container's end needs.

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;

use super::Host;
use crate::netlink::link::{self, Link, Mac, VethEnd};
use crate::netlink::{Connection, Request, address, bridge_port, is_errno, route, shape};
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
        self.route.transact(vec![create]).map_err(|error| {
            if is_errno(&error, Errno::EXFULL) {
                return anyhow!(
                    "bridge {} is full: the kernel gives it 1023 ports, use another bridge",
                    bridge.name
                );
            }
            error.context(format!("create link {interface} in the container"))
        })?;
        sysctl::close_ipv6(host_interface)?;
        equip(request, attachment)?;
        if let Some(limit) = request.limits.ingress {
            shape::set_by_name(&mut self.route, host_interface, limit)?;
        }
        let outer =
            link::find(&mut self.route, host_interface)?.context("the host's link vanished")?;
        let vlan = Host::choose_vlan(request, bridge)?;
        self.enter_vlans(vlan, request.port.trunk.as_ref(), link, &outer)?;
        self.open_port(request, bridge, &outer, own)?;
        if request.port.asks_neighbours { settle(request, attachment) } else { Ok(()) }
    }

    fn open_port(
        &mut self,
        request: &AttachRequest,
        bridge: &Bridge,
        port: &Link,
        mac: Mac,
    ) -> Result<()> {
        let locked = request.port.own_mac_only;
        let settings = bridge_port::Settings {
            // The host would hear what comes back as well.
            hairpin: !bridge.promiscuous,
            isolated: bridge.isolation == Isolation::Containers,
            locked,
        };
        let mut requests = vec![bridge_port::set_up(port.index, settings)];
        requests.extend(locked.then(|| bridge_port::tell(port.index, mac)));
        self.route.transact(requests).with_context(|| format!("set up {}", port.name))?;
        let is_locked = |port: Option<Link>| port.is_some_and(|port| port.is_locked);
        if locked && !is_locked(link::find(&mut self.route, &port.name)?) {
            bail!(
                "this kernel can't keep a port to its own hardware address: it takes Linux 5.18 \
                 (macspoofchk)"
            );
        }
        Ok(())
    }
}

/// Gives the container's link its settings, addresses and routes, and switches it on.
pub(super) fn equip(request: &AttachRequest, attachment: &Attachment) -> Result<()> {
    let interface = &attachment.interface;
    let mut container = request.netns.enter(|| {
        match attachment.address(Family::V6) {
            Some(_) if request.port.asks_neighbours => sysctl::open_ipv6_beside_others(interface)?,
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
    let at_once = !request.port.asks_neighbours;
    requests.extend(addresses.map(|it| address::add(inner.index, it.address, it.subnet, at_once)));
    requests.extend((!request.port.stays_off).then(|| link::set_up(inner.index)));
    requests.extend(routes(attachment, request, inner.index));
    container.transact(requests).with_context(|| format!("set up {interface} in the container"))?;
    match request.limits.egress {
        Some(limit) => shape::set_by_name(&mut container, interface, limit),
        None => Ok(()),
    }
}

/// Waits until no neighbour has turned out to have the container's IPv6 addresses.
fn settle(request: &AttachRequest, attachment: &Attachment) -> Result<()> {
    let interface = &attachment.interface;
    request.netns.enter(|| {
        let index = link::find(&mut Connection::route()?, interface)?
            .with_context(|| format!("{interface} vanished"))?
            .index;
        address::settle(index)
    })
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
        details: request.default_details,
        kind: RouteKind::Unicast,
    });
    let all = defaults.chain(attachment.routes.iter().cloned());
    let over = |route: &StaticRoute| attachment.carries(route).then_some(index);
    all.map(|route| route::add(over(&route), &route)).collect()
}
