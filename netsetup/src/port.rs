//! Published ports: the specs that users write and the bindings they become.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// Ports `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PortRange {
    pub(crate) fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    pub(crate) fn iter(self) -> std::ops::RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// `[[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSpec {
    /// `None` for every address of the host, `0.0.0.0` and `::` for every one of a family.
    pub(crate) host_ip: Option<IpAddr>,
    /// `None` leaves the choice to us.
    pub(crate) host: Option<PortRange>,
    pub(crate) container: PortRange,
    pub(crate) protocol: Protocol,
}

/// `[IP:]HOST[-HOST][/PROTOCOL]`: which published ports to withdraw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSelector {
    host_ip: Option<IpAddr>,
    host: PortRange,
    protocol: Option<Protocol>,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Binding {
    pub(crate) protocol: Protocol,
    pub(crate) host_ip: IpAddr,
    pub(crate) host_port: u16,
    pub(crate) target: SocketAddr,
}

impl PortSelector {
    /// Every host port that may match.
    pub(crate) fn host_ports(self) -> impl Iterator<Item = (Protocol, u16)> {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
        let protocols = protocols
            .filter(move |protocol| self.protocol.is_none_or(|wanted| wanted == *protocol));
        protocols.flat_map(move |protocol| self.host.iter().map(move |port| (protocol, port)))
    }

    pub(crate) fn matches(self, binding: &Binding) -> bool {
        self.host_ip.is_none_or(|ip| ip == binding.host_ip)
            && self.protocol.is_none_or(|protocol| protocol == binding.protocol)
            && self.host.iter().contains(&binding.host_port)
    }
}

/// Why a text is no port spec.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PortError {
    #[error("{0:?} is not a port or a range of ports between 1 and 65535")]
    Port(String),
    #[error("unknown protocol {0:?}: expected tcp, udp or sctp")]
    Protocol(String),
    #[error("{0:?} is not an IP address of the host (IPv6 addresses stand in brackets)")]
    Address(String),
    #[error("{0:?} is none of published=, target=, protocol= and host_ip=")]
    Key(String),
    #[error("target= is missing: the port of the container")]
    NoTarget,
    #[error("{host} host ports cannot stand for {container} container ports")]
    Lengths { host: u32, container: u32 },
}

impl FromStr for Protocol {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Protocol, PortError> {
        match text {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(PortError::Protocol(text.to_owned())),
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<PortRange, PortError> {
        let port = |digits: &str| match digits.parse::<u16>() {
            Ok(number) if number > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(number)
            }
            _ => Err(PortError::Port(text.to_owned())),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(PortError::Port(text.to_owned()));
        }
        Ok(PortRange { first, last })
    }
}

impl FromStr for PortSpec {
    type Err = PortError;

    fn from_str(text: &str) -> Result<PortSpec, PortError> {
        if text.contains('=') {
            return from_pairs(text);
        }
        let (ports, protocol) = split_protocol(text)?;
        let (outside, container) = match ports.rsplit_once(':') {
            Some((outside, container)) => (Some(outside), container),
            None => (None, ports),
        };
        let (host_ip, host) = outside.map(split_address).transpose()?.unwrap_or((None, ""));
        let host = if host.is_empty() { None } else { Some(host.parse::<PortRange>()?) };
        let container: PortRange = container.parse()?;
        if let Some(host) = host
            && host.count() != container.count()
            && container.count() != 1
        {
            return Err(PortError::Lengths { host: host.count(), container: container.count() });
        }
        Ok(PortSpec { host_ip, host, container, protocol: protocol.unwrap_or(Protocol::Tcp) })
    }
}

/// `published=8080,target=80,protocol=tcp`. What is misspelt must not be passed over: the port would
/// be reached by others than was meant.
fn from_pairs(text: &str) -> Result<PortSpec, PortError> {
    let (mut host_ip, mut published, mut target, mut protocol) = (None, "", None, "tcp");
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = Some(value),
            Some(("protocol", value)) => protocol = value,
            Some(("host_ip", value)) => host_ip = Some(value),
            _ => return Err(PortError::Key(pair.to_owned())),
        }
    }
    let target = target.ok_or(PortError::NoTarget)?;
    let address = match host_ip {
        Some(ip) if ip.contains(':') => format!("[{ip}]:{published}:"),
        Some(ip) => format!("{ip}:{published}:"),
        None if published.is_empty() => String::new(),
        None => format!("{published}:"),
    };
    format!("{address}{target}/{protocol}").parse()
}

impl FromStr for PortSelector {
    type Err = PortError;

    fn from_str(text: &str) -> Result<PortSelector, PortError> {
        let (ports, protocol) = split_protocol(text)?;
        let (host_ip, host) = split_address(ports)?;
        Ok(PortSelector { host_ip, host: host.parse()?, protocol })
    }
}

fn split_protocol(text: &str) -> Result<(&str, Option<Protocol>), PortError> {
    match text.split_once('/') {
        Some((ports, protocol)) => Ok((ports, Some(protocol.parse()?))),
        None => Ok((text, None)),
    }
}

/// `IP:HOST` or `HOST`; an IPv6 address stands in brackets.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), PortError> {
    let Some((ip, host)) = text.rsplit_once(':') else { return Ok((None, text)) };
    let bare = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: Option<IpAddr> = bare.unwrap_or(ip).parse().ok();
    match address.filter(|address| address.is_ipv6() == bare.is_some()) {
        Some(address) => Ok((Some(address), host)),
        None => Err(PortError::Address(ip.to_owned())),
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outside = SocketAddr::new(self.host_ip, self.host_port);
        write!(formatter, "{outside}->{}/{}", self.target.port(), self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn specs_are_read_as_docker_reads_them() {
        let tcp = Protocol::Tcp;
        for (text, host_ip, host, container, protocol) in [
            ("80", "", None, range(80, 80), tcp),
            ("8080:80", "", Some(range(8080, 8080)), range(80, 80), tcp),
            ("8080:80/udp", "", Some(range(8080, 8080)), range(80, 80), Protocol::Udp),
            ("127.0.0.1:8080:80", "127.0.0.1", Some(range(8080, 8080)), range(80, 80), tcp),
            ("127.0.0.1::80", "127.0.0.1", None, range(80, 80), tcp),
            ("[fd00::1]:8080:80", "fd00::1", Some(range(8080, 8080)), range(80, 80), tcp),
            ("[::]::80/udp", "::", None, range(80, 80), Protocol::Udp),
            ("7000-7002:80-82/sctp", "", Some(range(7000, 7002)), range(80, 82), Protocol::Sctp),
            ("7000-7002:80", "", Some(range(7000, 7002)), range(80, 80), tcp),
            ("published=8080,target=80", "", Some(range(8080, 8080)), range(80, 80), tcp),
            ("target=53,protocol=udp,host_ip=::1", "::1", None, range(53, 53), Protocol::Udp),
        ] {
            let host_ip = host_ip.parse().ok();
            let expected = PortSpec { host_ip, host, container, protocol };
            assert_eq!(text.parse::<PortSpec>(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_specs_are_refused() {
        for text in [
            "",
            ":",
            "0",
            "65536",
            "80:",
            "a:80",
            "80/http",
            "82-80",
            "1-3:1-2",
            "x:1:2",
            "::1:1:2",
            "[10.0.0.1]:1:2",
            "[::1:1:2",
            "+80",
            "1:2:3:4",
            "published=80",
            "publishd=80,target=80",
        ] {
            assert!(text.parse::<PortSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn selectors_match_by_what_they_name() {
        let binding = Binding {
            protocol: Protocol::Udp,
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 53,
            target: "10.0.0.2:53".parse().unwrap(),
        };
        for (text, expected) in [
            ("53", true),
            ("50-60/udp", true),
            ("53/tcp", false),
            ("127.0.0.1:53", true),
            ("10.0.0.1:53", false),
            ("[::1]:53", false),
        ] {
            assert_eq!(text.parse::<PortSelector>().unwrap().matches(&binding), expected, "{text}");
        }
    }
}
