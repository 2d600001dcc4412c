//! `-p [ip:][host:]container[/protocol]`, each port a number or a range.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};

/// One published port or range of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) address: Option<IpAddr>,
    /// `None`: any free port.
    pub(crate) host: Option<Ports>,
    pub(crate) container: Ports,
    pub(crate) protocol: Protocol,
}

/// `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Publish {
    /// Parses one word. Both ranges must be equally long, or the container's a single port: then
    /// the first free one of the host's is meant.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        if word.contains('=') {
            return Self::from_pairs(word);
        }
        let (ports, protocol) = match word.rsplit_once('/') {
            Some((ports, protocol)) => (ports, Protocol::parse(protocol)?),
            None => (word, Protocol::Tcp),
        };
        let (address, ports) = split_address(ports)?;
        let (host, container) = match ports.split_once(':') {
            Some(("", container)) => (None, container),
            Some((host, container)) => (Some(Ports::parse(host)?), container),
            None => (None, ports),
        };
        let container = Ports::parse(container)?;
        Self::checked(Self { address, host, container, protocol })
    }

    fn checked(self) -> Result<Self> {
        let Self { host, container, .. } = self;
        if host.is_some_and(|host| host.count() != container.count()) && container.count() > 1 {
            bail!("the two ranges differ in length");
        }
        Ok(self)
    }

    /// `published=8080,target=80,protocol=tcp,host_ip=127.0.0.1`
    fn from_pairs(word: &str) -> Result<Self> {
        let (mut address, mut host, mut container) = (None, None, None);
        let mut protocol = Protocol::Tcp;
        for pair in word.split(',') {
            match pair.split_once('=') {
                Some(("published", value)) => host = Some(Ports::parse(value)?),
                Some(("target", value)) => container = Some(Ports::parse(value)?),
                Some(("protocol", value)) => protocol = Protocol::parse(value)?,
                Some(("host_ip", value)) => {
                    let parsed = value.parse();
                    address = Some(parsed.with_context(|| format!("invalid address {value:?}"))?);
                }
                _ => bail!("{pair:?} is none of published=, target=, protocol= and host_ip="),
            }
        }
        let container = container.context("target= is missing: the port of the container")?;
        Self::checked(Self { address, host, container, protocol })
    }
}

/// Takes `ip:` off the front of `[ip:]ports`; an IPv6 address stands in brackets.
fn split_address(word: &str) -> Result<(Option<IpAddr>, &str)> {
    if let Some(rest) = word.strip_prefix('[') {
        let (address, ports) = rest.split_once("]:").context("expected [IPv6]:port")?;
        let address: std::net::Ipv6Addr =
            address.parse().with_context(|| format!("invalid address {address:?}"))?;
        return Ok((Some(IpAddr::V6(address)), ports));
    }
    match word.split_once(':') {
        Some((address, ports)) if ports.contains(':') => {
            if address.is_empty() {
                return Ok((None, ports));
            }
            let address: std::net::Ipv4Addr =
                address.parse().with_context(|| format!("invalid address {address:?}"))?;
            Ok((Some(IpAddr::V4(address)), ports))
        }
        _ => Ok((None, word)),
    }
}

impl Ports {
    fn parse(word: &str) -> Result<Self> {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let ports = Self { first: port(first)?, last: port(last)? };
        if ports.first > ports.last {
            bail!("the range {word} runs backwards");
        }
        Ok(ports)
    }

    fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

fn port(word: &str) -> Result<u16> {
    // `u16::from_str` takes a sign, which is no port number.
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    match word.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => bail!("{word:?} is not a port number from 1 to 65535"),
    }
}

impl Protocol {
    fn parse(word: &str) -> Result<Self> {
        Ok(match word.to_ascii_lowercase().as_str() {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            _ => bail!("unknown protocol {word:?}: use tcp, udp or sctp"),
        })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

/// The word in full, as netsetup takes it.
impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            None => {}
        }
        match self.host {
            Some(host) => write!(f, "{host}:")?,
            None if self.address.is_some() => f.write_str(":")?,
            None => {}
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_docker_is_read() {
        for (word, full) in [
            ("80", "80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("8080:80/udp", "8080:80/udp"),
            ("8080:80/TCP", "8080:80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            (":80", "80/tcp"),
            ("::80", "80/tcp"),
            ("[::1]:8080:80/sctp", "[::1]:8080:80/sctp"),
            ("[::1]::80", "[::1]::80/tcp"),
            ("8000-8002:80-82", "8000-8002:80-82/tcp"),
            ("7000-7001", "7000-7001/tcp"),
            ("8000-8002:80", "8000-8002:80/tcp"),
            ("published=8080,target=80", "8080:80/tcp"),
            ("target=53,protocol=udp,host_ip=::1", "[::1]::53/udp"),
        ] {
            assert_eq!(Publish::parse(word).unwrap().to_string(), full, "{word}");
        }
    }

    #[test]
    fn malformed_words_are_refused() {
        for word in [
            "",
            "x",
            "0",
            "65536",
            "+80",
            "-1",
            "80/",
            "80/icmp",
            "1:2:3",
            "1.2.3.4:80",
            "8000-8002:80-81",
            "published=8080",
            "publishd=8080,target=80",
            "82-80",
            "300.0.0.1:80:80",
            "[::1]80",
            "::1:80:80",
            "80:",
            "80-:80",
            "127.0.0.1:80:80:80",
        ] {
            assert!(Publish::parse(word).is_err(), "{word:?}");
        }
    }
}
