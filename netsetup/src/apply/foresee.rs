//! What a change would come to, told without making it. The decisions are those of the change itself.

use std::net::IpAddr;

use anyhow::Result;

use super::Host;
use super::attach::Plan;
use crate::netlink::link;
use crate::nft;
use crate::port::{Binding, PortSpec};
use crate::request::AttachRequest;
use crate::state::{Attachment, Bridge, RouteKind, StaticRoute};
use crate::subnet::Family;
use crate::sysctl;

impl Host<'_> {
    /// What making a bridge would come to, a line for each step.
    pub(crate) fn foresee_bridge(&mut self, bridge: &Bridge) -> Result<Vec<String>> {
        self.check_definition(bridge)?;
        let mut lines = Vec::new();
        if self.store.definition(&bridge.name)?.is_none() {
            lines.push(format!("define bridge {}", bridge.name));
        }
        lines.extend(self.bridge_lines(bridge)?);
        Ok(lines)
    }

    /// What attaching a container would come to.
    pub(crate) fn foresee_attach(&mut self, request: &AttachRequest) -> Result<Vec<String>> {
        let present = self.store.attachments(&request.id)?;
        if let Some(attachment) = present.iter().find(|it| request.means(it)) {
            self.check_kept(request, attachment)?;
            return self.foresee_publish(&request.id, &request.ports);
        }
        let Plan { bridge, attachment, ports } = self.plan(request, &present)?;
        let mut lines = Vec::new();
        if let Some(record) = bridge {
            lines.extend(self.bridge_lines(&record.bridge)?);
        }
        lines.extend(attachment_lines(&attachment));
        lines.extend(ports.iter().map(port_line));
        Ok(lines)
    }

    /// What publishing ports of an attached container would come to.
    pub(crate) fn foresee_publish(&mut self, id: &str, specs: &[PortSpec]) -> Result<Vec<String>> {
        let addresses = self.addresses_of(id)?;
        let mut wanted = self.choose_ports(id, specs, &addresses)?;
        let present = self.store.bindings(id)?;
        wanted.retain(|binding| !present.contains(binding));
        Ok(wanted.iter().map(port_line).collect())
    }

    fn bridge_lines(&mut self, bridge: &Bridge) -> Result<Vec<String>> {
        let name = &bridge.name;
        let mut lines = Vec::new();
        for family in Family::BOTH {
            let value = sysctl::read(sysctl::forwarding(family))?;
            if bridge.needs_forwarding(family) && value.as_deref() == Some("0") {
                lines.push(format!("switch forwarding of {family} on"));
            }
        }
        if link::find(&mut self.route, name)?.is_none() {
            let mtu = bridge.mtu.map_or_else(|| self.default_mtu(), Ok)?;
            lines.push(format!("make bridge {name} with MTU {mtu}"));
            let addresses = bridge.gateways();
            lines.extend(addresses.map(|(gateway, subnet)| {
                format!("give {name} the address {gateway}/{}", subnet.length())
            }));
        }
        if !bridge.bare && !nft::exists(&mut self.netfilter)? {
            lines.push("make the nf_tables table netsetup".to_owned());
        }
        Ok(lines)
    }
}

fn attachment_lines(attachment: &Attachment) -> Vec<String> {
    let Attachment { interface, host_interface, network, .. } = attachment;
    let mut lines = vec![if host_interface.is_empty() {
        format!("make {} {interface} on {network}", attachment.kind)
    } else {
        format!("connect {interface} of the container to {network} by {host_interface}")
    }];
    let addresses = attachment.addresses.iter();
    lines.extend(
        addresses.clone().map(|it| {
            format!("give {interface} the address {}/{}", it.address, it.subnet.length())
        }),
    );
    let gateways = addresses.filter_map(|it| it.gateway);
    lines.extend(gateways.map(|gateway: IpAddr| format!("route everything else by {gateway}")));
    lines.extend(attachment.routes.iter().map(|route| route_line(route, interface)));
    lines
}

fn route_line(route: &StaticRoute, interface: &str) -> String {
    let StaticRoute { destination, gateway, kind, .. } = route;
    match (kind, gateway) {
        (RouteKind::Unicast, Some(gateway)) => format!("route {destination} by {gateway}"),
        (RouteKind::Unicast, None) => format!("route {destination} over {interface}"),
        _ => format!("route {destination} nowhere"),
    }
}

fn port_line(binding: &Binding) -> String {
    format!("publish {binding}")
}
