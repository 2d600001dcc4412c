//! Which network the container gets, and what it is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};

use super::{Publish, is_plain_name};

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "network-wishes")]
pub(super) struct Words {
    /// Network of the container: bridge (the default), none, host, the name of a bridge, or container:ID
    #[arg(long, visible_alias = "net", value_name = "NAME")]
    network: Option<String>,
    /// Its IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Its IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Its hardware address, for example 92:d0:c6:0a:29:33
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// A further name by which others on its network know it
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// A port or range that it listens on, as if the image exposed it
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
}

/// Which network the container gets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// The default bridge of netsetup.
    #[default]
    Default,
    /// A network namespace with a loopback device only.
    None,
    /// The host's own network.
    Host,
    /// A bridge that netsetup knows by this name.
    Named(String),
    /// That of another container.
    Container(String),
}

/// What the container is in its network.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) hardware_address: Option<String>,
    pub(crate) aliases: Vec<String>,
}

impl Place {
    /// Whether nothing is wished.
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

impl Network {
    /// Whether it is of the container's own.
    pub(super) fn is_own(&self) -> bool {
        !matches!(self, Self::Host | Self::Container(_))
    }

    pub(super) fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "default" | "bridge" => Self::Default,
            "none" => Self::None,
            "host" => Self::Host,
            name if is_plain_name(name) => Self::Named(name.to_owned()),
            other => match other.strip_prefix("container:") {
                Some(id) if is_plain_name(id) => Self::Container(id.to_owned()),
                _ => bail!(
                    "invalid network {other:?}: use bridge, none, host, the name of a bridge or container:ID"
                ),
            },
        })
    }
}

impl Words {
    /// The network, the place in it, and the ports to expose.
    pub(super) fn resolve(self) -> Result<(Network, Place, Vec<Publish>)> {
        let network = self.network.as_deref().map_or(Ok(Network::Default), Network::parse)?;
        for name in &self.network_alias {
            ensure!(
                is_plain_name(name),
                "invalid --network-alias {name:?}: letters, digits, '.', '-', '_'"
            );
        }
        if let Some(mac) = &self.mac_address {
            ensure!(
                is_hardware_address(mac),
                "invalid --mac-address {mac:?}: want six bytes, as 92:d0:c6:0a:29:33"
            );
        }
        let expose = |word: &String| {
            let port =
                Publish::parse(word).with_context(|| format!("invalid --expose {word:?}"))?;
            ensure!(
                port.host.is_none() && port.address.is_none(),
                "invalid --expose {word:?}: a port of the container's alone; -p publishes one"
            );
            Ok(port)
        };
        let exposed = self.expose.iter().map(expose).collect::<Result<_>>()?;
        let place = Place {
            addresses: self
                .ip
                .map(IpAddr::V4)
                .into_iter()
                .chain(self.ip6.map(IpAddr::V6))
                .collect(),
            hardware_address: self.mac_address,
            aliases: self.network_alias,
        };
        ensure!(
            place.is_any() || matches!(network, Network::Default | Network::Named(_)),
            "--ip, --ip6, --mac-address and --network-alias need a bridge: not with --network none, host or \
             container:ID"
        );
        Ok((network, place, exposed))
    }
}

/// One interface's own: no group's, and not all zeros.
fn is_hardware_address(word: &str) -> bool {
    let byte = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        u8::from_str_radix(part, 16).ok().filter(|_| plain)
    };
    let bytes: Option<Vec<u8>> = word.split(':').map(byte).collect();
    bytes.is_some_and(|it| it.len() == 6 && it[0] & 1 == 0 && it.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_three_reserved_names() {
        for (word, network) in [
            ("bridge", Network::Default),
            ("default", Network::Default),
            ("none", Network::None),
            ("host", Network::Host),
            ("blue", Network::Named("blue".into())),
            ("container:web", Network::Container("web".into())),
        ] {
            assert_eq!(Network::parse(word).unwrap(), network, "{word}");
        }
        for word in ["", "container:", "a b", "../x"] {
            assert!(Network::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_place_needs_a_bridge() {
        let words = |network: &str| Words {
            network: Some(network.into()),
            ip: Some(Ipv4Addr::new(10, 0, 0, 9)),
            ..Words::default()
        };
        assert_eq!(words("blue").resolve().unwrap().1.addresses.len(), 1);
        for network in ["none", "host", "container:c"] {
            assert!(words(network).resolve().is_err(), "{network}");
        }
        for bad in ["8080:80", "127.0.0.1::80", "x"] {
            assert!(Words { expose: vec![bad.into()], ..Words::default() }.resolve().is_err());
        }
        assert!(is_hardware_address("92:d0:c6:0a:29:33"));
        for bad in
            ["", "92:d0:c6:0a:29", "93:d0:c6:0a:29:33", "00:00:00:00:00:00", "92:d0:c6:0a:29:3x"]
        {
            assert!(!is_hardware_address(bad), "{bad}");
        }
    }
}
