//! An IPv4 prefix, and which of its addresses may be given out.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An IPv4 prefix with no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet {
    base: u32,
    length: u8,
}

/// Why a text is no subnet.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SubnetError {
    #[error("{0:?} is not a subnet: expected ADDRESS/LENGTH, as 10.1.0.0/24")]
    Syntax(String),
    #[error("{0} is not a subnet: did you mean {1}?")]
    HostBits(String, Subnet),
}

impl Subnet {
    /// The prefix of this length which holds `address`.
    pub(crate) fn containing(address: Ipv4Addr, length: u8) -> Subnet {
        let length = length.min(32);
        Subnet { base: u32::from(address) & mask(length), length }
    }

    pub(crate) fn length(self) -> u8 {
        self.length
    }

    /// The first address, which names the network itself.
    pub(crate) fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// The last address, for prefixes up to 30 bits the broadcast address.
    pub(crate) fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base | !mask(self.length))
    }

    pub(crate) fn overlaps(self, other: Subnet) -> bool {
        let shorter = mask(self.length.min(other.length));
        self.base & shorter == other.base & shorter
    }

    /// The addresses that an interface may have: without network and broadcast address.
    pub(crate) fn hosts(self) -> std::ops::RangeInclusive<u32> {
        let last = u32::from(self.last());
        if self.length >= 31 { self.base..=last } else { self.base + 1..=last - 1 }
    }

    /// Whether an interface may have this address.
    pub(crate) fn is_host(self, address: Ipv4Addr) -> bool {
        self.hosts().contains(&u32::from(address))
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        let syntax = || SubnetError::Syntax(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(syntax)?;
        let address: Ipv4Addr = address.parse().map_err(|_| syntax())?;
        let length: u8 = length.parse().map_err(|_| syntax())?;
        if length > 32 {
            return Err(syntax());
        }
        let subnet = Subnet::containing(address, length);
        if subnet.first() == address {
            Ok(subnet)
        } else {
            Err(SubnetError::HostBits(text.to_owned(), subnet))
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first(), self.length)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Subnet, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_refused_with_the_subnet_meant() {
        let error = "10.1.2.3/24".parse::<Subnet>().unwrap_err();
        assert_eq!(error.to_string(), "10.1.2.3/24 is not a subnet: did you mean 10.1.2.0/24?");
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/64", "a/8", "10.0.0.0/-1"] {
            assert!(matches!(text.parse::<Subnet>(), Err(SubnetError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn overlap_is_containment_either_way() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.200.1.0/24")));
        assert!(subnet("10.200.1.0/24").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.1.0.0/24").overlaps(subnet("10.1.1.0/24")));
        assert!(subnet("0.0.0.0/0").overlaps(subnet("10.1.1.0/24")));
    }

    #[test]
    fn hosts_leave_out_network_and_broadcast() {
        let hosts = subnet("192.168.4.0/30").hosts();
        assert_eq!(hosts.clone().count(), 2);
        assert!(subnet("192.168.4.0/30").is_host(Ipv4Addr::new(192, 168, 4, 1)));
        assert!(!subnet("192.168.4.0/30").is_host(Ipv4Addr::new(192, 168, 4, 3)));
        assert_eq!(subnet("192.168.4.0/31").hosts().count(), 2);
    }
}
