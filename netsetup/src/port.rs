//! Published ports: the specs that users write and the bindings they become.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
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
    /// `0.0.0.0` for every address of the host.
    pub(crate) host_ip: Ipv4Addr,
    /// `None` leaves the choice to us.
    pub(crate) host: Option<PortRange>,
    pub(crate) container: PortRange,
    pub(crate) protocol: Protocol,
}

/// `[IP:]HOST[-HOST][/PROTOCOL]`: which published ports to withdraw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSelector {
    host_ip: Option<Ipv4Addr>,
    host: PortRange,
    protocol: Option<Protocol>,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Binding {
    pub(crate) protocol: Protocol,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) host_port: u16,
    pub(crate) target: SocketAddrV4,
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
    #[error("{0:?} is not an IPv4 address of the host")]
    Address(String),
    #[error("publishing on an IPv6 address ({0}) is not supported")]
    Ipv6(String),
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
        let (ports, protocol) = split_protocol(text)?;
        let (outside, container) = match ports.rsplit_once(':') {
            Some((outside, container)) => (Some(outside), container),
            None => (None, ports),
        };
        let (host_ip, host) = match outside.map(split_address).transpose()? {
            Some((ip, host)) => (ip.unwrap_or(Ipv4Addr::UNSPECIFIED), host),
            None => (Ipv4Addr::UNSPECIFIED, ""),
        };
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

impl FromStr for PortSelector {
    type Err = PortError;

    fn from_str(text: &str) -> Result<PortSelector, PortError> {
        let (ports, protocol) = split_protocol(text)?;
        let (host_ip, host) = match ports.rsplit_once(':') {
            Some((ip, host)) => (split_address(&format!("{ip}:"))?.0, host),
            None => (None, ports),
        };
        Ok(PortSelector { host_ip, host: host.parse()?, protocol })
    }
}

fn split_protocol(text: &str) -> Result<(&str, Option<Protocol>), PortError> {
    match text.split_once('/') {
        Some((ports, protocol)) => Ok((ports, Some(protocol.parse()?))),
        None => Ok((text, None)),
    }
}

/// `IP:HOST` or `HOST`. An address in brackets is IPv6, which has no way to the container.
fn split_address(text: &str) -> Result<(Option<Ipv4Addr>, &str), PortError> {
    if text.starts_with('[') {
        return Err(PortError::Ipv6(text.to_owned()));
    }
    match text.rsplit_once(':') {
        Some((ip, host)) => match ip.parse() {
            Ok(ip) => Ok((Some(ip), host)),
            Err(_) => Err(PortError::Address(ip.to_owned())),
        },
        None => Ok((None, text)),
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
        write!(
            formatter,
            "{}:{}->{}/{}",
            self.host_ip,
            self.host_port,
            self.target.port(),
            self.protocol
        )
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
        let any = Ipv4Addr::UNSPECIFIED;
        let tcp = Protocol::Tcp;
        for (text, host_ip, host, container, protocol) in [
            ("80", any, None, range(80, 80), tcp),
            ("8080:80", any, Some(range(8080, 8080)), range(80, 80), tcp),
            ("8080:80/udp", any, Some(range(8080, 8080)), range(80, 80), Protocol::Udp),
            ("127.0.0.1:8080:80", Ipv4Addr::LOCALHOST, Some(range(8080, 8080)), range(80, 80), tcp),
            ("127.0.0.1::80", Ipv4Addr::LOCALHOST, None, range(80, 80), tcp),
            ("7000-7002:80-82/sctp", any, Some(range(7000, 7002)), range(80, 82), Protocol::Sctp),
            ("7000-7002:80", any, Some(range(7000, 7002)), range(80, 80), tcp),
        ] {
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
            "[::1]:1:2",
            "+80",
            "1:2:3:4",
        ] {
            assert!(text.parse::<PortSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn selectors_match_by_what_they_name() {
        let binding = Binding {
            protocol: Protocol::Udp,
            host_ip: Ipv4Addr::LOCALHOST,
            host_port: 53,
            target: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 53),
        };
        for (text, expected) in [
            ("53", true),
            ("50-60/udp", true),
            ("53/tcp", false),
            ("127.0.0.1:53", true),
            ("10.0.0.1:53", false),
        ] {
            assert_eq!(text.parse::<PortSelector>().unwrap().matches(&binding), expected, "{text}");
        }
    }
}
