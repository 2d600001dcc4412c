//! podman's documents, as far as we read them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::args::HostAddress;
use crate::plan;
use crate::port::{PortRange, PortSpec, Protocol};
use crate::state::{RouteDetails, RouteKind, StaticRoute, Vlan};
use crate::subnet::{Family, Subnet};

/// A container's wishes and the networks that they are for.
#[derive(Debug, Deserialize)]
pub(super) struct Options {
    pub(super) container_id: String,
    #[serde(default)]
    pub(super) container_name: String,
    /// A map in the first versions, a list since the order counts.
    #[serde(deserialize_with = "map_or_list")]
    pub(super) networks: Vec<Wishes>,
    pub(super) network_info: BTreeMap<String, Network>,
    #[serde(default)]
    pub(super) port_mappings: Option<Vec<PortMapping>>,
    #[serde(default)]
    pub(super) dns_servers: Option<Vec<IpAddr>>,
}

/// What a container wants of one network.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Wishes {
    #[serde(default)]
    pub(super) name: String,
    pub(super) interface_name: String,
    #[serde(default)]
    pub(super) static_ips: Option<Vec<IpAddr>>,
    #[serde(default)]
    pub(super) static_mac: Option<String>,
    #[serde(default)]
    pub(super) aliases: Option<Vec<String>>,
    #[serde(default)]
    pub(super) options: Option<BTreeMap<String, String>>,
}

/// A network, as podman defines it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Network {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
    pub(super) dns_enabled: bool,
    pub(super) driver: String,
    pub(super) id: String,
    pub(super) internal: bool,
    pub(super) ipv6_enabled: bool,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) options: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ipam_options: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subnets: Option<Vec<NetworkSubnet>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) routes: Option<Vec<NetworkRoute>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_dns_servers: Option<Vec<IpAddr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NetworkSubnet {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease_range: Option<LeaseRange>,
    #[serde(deserialize_with = "masked")]
    pub(super) subnet: Subnet,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct LeaseRange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) start_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end_ip: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NetworkRoute {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<IpAddr>,
    /// Kept as a text: whether it is a subnet is checked with the rest.
    pub(super) destination: String,
    #[serde(default)]
    pub(super) metric: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) route_type: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PortMapping {
    #[serde(default)]
    pub(super) host_ip: String,
    pub(super) container_port: u16,
    #[serde(default)]
    pub(super) host_port: u16,
    #[serde(default)]
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) range: u16,
}

impl Network {
    /// One of its options.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.as_ref()?.get(name).map(String::as_str)
    }

    /// An option that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>> {
        let word = self.option(name);
        word.map(|word| word.parse().with_context(|| format!("unable to parse {name:?}")))
            .transpose()
    }

    /// The VLAN of its containers.
    pub(super) fn vlan(&self) -> Result<Option<Vlan>> {
        let Some(number) = self.number("vlan")?.filter(|number| *number > 0) else {
            return Ok(None);
        };
        match u16::try_from(number) {
            Ok(id) if id <= Vlan::LAST => Ok(Some(Vlan { id, hears_default: true })),
            _ => bail!("vlan must be between 0 and {}", Vlan::LAST),
        }
    }

    /// The source addresses of packets that leave it.
    pub(super) fn outbound(&self) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for (name, family) in [("outbound_addr4", Family::V4), ("outbound_addr6", Family::V6)] {
            let Some(word) = self.option(name) else { continue };
            let address = word.parse().ok().filter(|address| Family::of(*address) == family);
            let address = address.with_context(|| {
                format!("unable to parse {name:?}: invalid {family} address syntax")
            })?;
            addresses.push(address);
        }
        plan::check_outbound(&addresses)?;
        Ok(addresses)
    }

    /// An option that is true or false.
    pub(super) fn switch(&self, name: &str) -> Result<bool> {
        match self.option(name).unwrap_or("false") {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => bail!("unable to parse {name:?}: {other:?} is not true or false"),
        }
    }

    /// Who gives out addresses.
    pub(super) fn ipam_driver(&self) -> &str {
        let driver = self.ipam_options.as_ref().and_then(|options| options.get("driver"));
        driver.map_or("", String::as_str)
    }

    pub(super) fn interface(&self) -> &str {
        self.network_interface.as_deref().unwrap_or_default()
    }

    pub(super) fn subnets(&self) -> &[NetworkSubnet] {
        self.subnets.as_deref().unwrap_or_default()
    }
}

impl NetworkRoute {
    pub(super) fn checked(&self) -> Result<StaticRoute> {
        let destination: Subnet = match self.destination.parse() {
            Ok(destination) => destination,
            Err(_) => bail!("invalid IP address syntax: {:?}", self.destination),
        };
        let word = self.route_type.as_deref().unwrap_or("unicast");
        let kind = match (word, RouteKind::of_refusal(word)) {
            ("unicast", _) => RouteKind::Unicast,
            (_, Some(kind)) => kind,
            (other, None) => bail!("route {destination} has the unknown type {other}"),
        };
        if kind == RouteKind::Unicast && self.gateway.is_none() {
            bail!("route {destination} requires a gateway for type {word}");
        }
        if kind != RouteKind::Unicast && self.gateway.is_some() {
            bail!("route {destination} must not have a gateway for type {word}");
        }
        // What podman gives to routes of which nobody says how far they lead.
        let details =
            RouteDetails { metric: Some(self.metric.unwrap_or(100)), ..RouteDetails::default() };
        Ok(StaticRoute { destination, gateway: self.gateway, details, kind })
    }
}

impl PortMapping {
    /// A spec for each protocol of the list.
    pub(super) fn specs(&self) -> Result<Vec<PortSpec>> {
        let host_ip: Option<IpAddr> = match self.host_ip.as_str() {
            "" => None,
            text => match text.parse() {
                Ok(address) => Some(address),
                Err(_) => bail!("invalid host ip {text:?} provided for port {}", self.host_port),
            },
        };
        let count = self.range.max(1);
        let range = |first: u16| {
            let last = first.checked_add(count - 1).filter(|_| first > 0);
            let last = last.with_context(|| format!("invalid port range {first}+{count}"))?;
            Ok::<_, anyhow::Error>(PortRange { first, last })
        };
        let container = range(self.container_port)?;
        let host =
            Some(range(if self.host_port == 0 { self.container_port } else { self.host_port })?);
        let words = if self.protocol.is_empty() { "tcp" } else { &self.protocol };
        words
            .split(',')
            .map(|word| {
                let protocol: Protocol = word.trim().parse()?;
                Ok(PortSpec { host_ip, host, container, protocol })
            })
            .collect()
    }
}

/// A subnet that may be named by any of its addresses.
pub(super) fn masked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Subnet, D::Error> {
    let text = String::deserialize(deserializer)?;
    subnet(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no subnet")))
}

/// A list of them.
pub(super) fn masked_all<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Subnet>, D::Error> {
    let texts: Vec<String> = Vec::deserialize(deserializer)?;
    let read = |text: &String| {
        subnet(text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no subnet")))
    };
    texts.iter().map(read).collect()
}

fn subnet(text: &str) -> Option<Subnet> {
    text.parse::<HostAddress>().ok().map(|it| it.subnet)
}

fn map_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Wishes>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Vec<Wishes>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("networks by name or in a list")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Vec<Wishes>, M::Error> {
            let mut list = Vec::new();
            while let Some((name, wishes)) = map.next_entry::<String, Wishes>()? {
                list.push(Wishes { name, ..wishes });
            }
            Ok(list)
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Vec<Wishes>, S::Error> {
            let mut list = Vec::new();
            while let Some(wishes) = items.next_element()? {
                list.push(wishes);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_any(Either)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_stand_in_a_map_or_in_a_list() {
        let read = |networks: &str| -> Options {
            let text =
                format!(r#"{{"container_id":"c","networks":{networks},"network_info":{{}}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(read(r#"{"a":{"interface_name":"eth0"}}"#).networks[0].name, "a");
        let list =
            read(r#"[{"name":"b","interface_name":"eth0"},{"name":"a","interface_name":"x"}]"#);
        assert_eq!(list.networks[0].name, "b");
        assert_eq!(list.networks[1].interface_name, "x");
    }

    #[test]
    fn ports_become_specs() {
        let mapping = |text: &str| -> PortMapping { serde_json::from_str(text).unwrap() };
        let specs =
            mapping(r#"{"container_port":80,"host_port":8080,"range":3,"protocol":"tcp,udp"}"#);
        let specs = specs.specs().unwrap();
        assert_eq!(specs[0], "8080-8082:80-82".parse().unwrap());
        assert_eq!(specs[1], "8080-8082:80-82/udp".parse().unwrap());
        let bad = mapping(r#"{"container_port":80,"host_port":8080,"host_ip":"abcd"}"#);
        let text = bad.specs().unwrap_err().to_string();
        assert_eq!(text, "invalid host ip \"abcd\" provided for port 8080");
        assert!(mapping(r#"{"container_port":65535,"range":2}"#).specs().is_err());
    }

    #[test]
    fn routes_have_a_gateway_or_swallow_packets() {
        let route = |text: &str| serde_json::from_str::<NetworkRoute>(text).unwrap().checked();
        assert!(route(r#"{"destination":"10.0.0.0/8","gateway":"10.1.0.1"}"#).is_ok());
        assert!(route(r#"{"destination":"10.0.0.0/8"}"#).is_err());
        assert!(route(r#"{"destination":"10.0.0.0/8","route_type":"blackhole"}"#).is_ok());
        assert!(route(r#"{"destination":"10.0.0.0","gateway":"10.1.0.1"}"#).is_err());
    }
}
