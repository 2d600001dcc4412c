//! The plugin `portmap`: publishes ports of a container that any plugin attached.

use std::net::IpAddr;

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::config::{Config, PortMapping};
use super::failure::{Code, Failure};
use super::ipam::prefixed;
use super::{Call, open_store};
use crate::apply::Host;
use crate::netlink::link;
use crate::netlink::shape::Limits;
use crate::netns::NetworkNamespace;
use crate::port::{PortRange, PortSpec, Protocol};
use crate::state::{Address, Attachment, Kind, Place};
use crate::subnet::Subnet;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    #[serde(default, rename = "conditionsV4")]
    conditions_v4: Option<Vec<String>>,
    #[serde(default, rename = "conditionsV6")]
    conditions_v6: Option<Vec<String>>,
}

pub(super) fn add(call: &Call, config: &Config) -> Result<Value> {
    let options: Options = config.options()?;
    for (key, conditions) in
        [("conditionsV4", options.conditions_v4), ("conditionsV6", options.conditions_v6)]
    {
        // Each is words of the command line of iptables, which we don't use.
        if conditions.is_some_and(|words| !words.is_empty()) {
            return Err(Failure::unsupported(key).into());
        }
    }
    let result = config.passed_on()?;
    let specs = specs(config)?;
    if specs.is_empty() {
        return Ok(result);
    }
    let store = open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let attachment = adopt(&mut host, call, config)?;
    let addresses: Vec<IpAddr> = attachment.addresses.iter().map(|it| it.address).collect();
    if let Err(error) = host.publish_to(&call.container, &specs, &addresses) {
        host.withdraw_from(&attachment)?;
        return Err(error);
    }
    Ok(result)
}

/// Withdraws the container's ports, and forgets a container that is not attached by us.
pub(super) fn del(call: &Call) -> Result<()> {
    let store = open_store()?;
    let mut host = Host::open_at_once(&store)?;
    for attachment in store.attachments(&call.container)? {
        if attachment.interface == call.interface {
            host.withdraw_from(&attachment)?;
        }
    }
    Ok(())
}

pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    config.previous()?;
    let wanted = specs(config)?;
    if wanted.is_empty() {
        return Ok(());
    }
    let store = open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let present = store.bindings(&call.container)?;
    for spec in wanted {
        let host_port = spec.host.map_or(0, |range| range.first);
        let is_it = |port: u16, protocol| port == host_port && protocol == spec.protocol;
        if !present.iter().any(|it| is_it(it.host_port, it.protocol)) {
            let text = format!("port {host_port}/{} is not published", spec.protocol);
            return Err(Failure::new(Code::Internal, text).into());
        }
    }
    host.check_ports(&call.container)
}

/// The wishes of the runtime.
pub(super) fn specs(config: &Config) -> Result<Vec<PortSpec>> {
    config.runtime_config.port_mappings.iter().map(spec).collect()
}

fn spec(mapping: &PortMapping) -> Result<PortSpec> {
    let bad = |text: String| Failure::new(Code::Config, text);
    let port = |number: i64| {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        port.map(|port| PortRange { first: port, last: port })
            .ok_or_else(|| bad(format!("{number} is no port between 1 and 65535")))
    };
    let protocol: Protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "" => Protocol::Tcp,
        word => word.parse().map_err(|error| bad(format!("{error}")))?,
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| bad(format!("hostIP {text:?} is no address")))?),
    };
    let host = Some(port(mapping.host_port)?);
    Ok(PortSpec { host_ip, host, container: port(mapping.container_port)?, protocol })
}

/// The record of the container's attachment: ours, or one made from the result of whoever
/// attached it.
pub(super) fn adopt(host: &mut Host, call: &Call, config: &Config) -> Result<Attachment> {
    let previous = config.previous()?;
    let netns = call.open_netns()?;
    let network = previous.host_link().unwrap_or_default().to_owned();
    let is_bridge = link::find(&mut host.route, &network)?.is_some_and(|link| link.is_bridge);
    let mut addresses = Vec::new();
    for ip in previous.addresses_of(&call.interface) {
        let (address, subnet) = prefixed(&ip.address)?;
        // On a link of its own the rest of its subnet lies elsewhere.
        let subnet = if is_bridge { subnet } else { Subnet::containing(address, 128) };
        addresses.push(Address { address, subnet, gateway: None });
    }
    let mac = previous.interfaces.iter().find(|it| it.name == call.interface);
    let attachment = Attachment {
        id: call.container.clone(),
        network,
        kind: Kind::Bridge,
        interface: call.interface.clone(),
        host_interface: String::new(),
        mac: mac.and_then(|it| it.mac.clone()).unwrap_or_default(),
        addresses,
        routes: Vec::new(),
        names: Vec::new(),
        origin: Some(config.origin()),
        limits: Limits::default(),
        stays_off: false,
        ready: true,
    };
    host.adopt(&attachment, &place(call, &netns))
}

fn place(call: &Call, netns: &NetworkNamespace) -> Place {
    let source = crate::state::Source::Path(call.netns_path().to_owned());
    Place { source, identity: netns.identity() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_become_specs() {
        let mapping = |host_port, protocol: &str, host_ip: &str| PortMapping {
            host_port,
            container_port: 80,
            protocol: protocol.to_owned(),
            host_ip: host_ip.to_owned(),
        };
        assert_eq!(spec(&mapping(8080, "UDP", "")).unwrap(), "8080:80/udp".parse().unwrap());
        let at = spec(&mapping(8080, "", "127.0.0.1")).unwrap();
        assert_eq!(at, "127.0.0.1:8080:80".parse().unwrap());
        for bad in
            [mapping(0, "", ""), mapping(70000, "", ""), mapping(1, "x", ""), mapping(1, "", "y")]
        {
            assert!(spec(&bad).is_err(), "{bad:?}");
        }
    }
}
