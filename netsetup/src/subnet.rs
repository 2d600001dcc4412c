//! An IP prefix, and which of its addresses may be given out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(crate) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// `0.0.0.0` or `::`.
    pub(crate) fn unspecified(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Bits of an address.
    pub(crate) fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn all_ones(self) -> u128 {
        match self {
            Family::V4 => u128::from(u32::MAX),
            Family::V6 => u128::MAX,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// An address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number, which lies in the family's space.
pub(crate) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

/// An IP prefix with no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet {
    first: IpAddr,
    length: u8,
}

/// Why a text is no subnet.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SubnetError {
    #[error("{0:?} is not a subnet: expected ADDRESS/LENGTH, as 10.1.0.0/24 or fd00:1::/64")]
    Syntax(String),
    #[error("{0} is not a subnet: did you mean {1}?")]
    HostBits(String, Subnet),
}

impl Subnet {
    /// The prefix of this length which holds `inside`.
    pub(crate) fn containing(inside: IpAddr, length: u8) -> Subnet {
        let family = Family::of(inside);
        let length = length.min(family.bits());
        let first = address(family, number(inside) & mask(family, length));
        Subnet { first, length }
    }

    pub(crate) fn family(self) -> Family {
        Family::of(self.first)
    }

    pub(crate) fn length(self) -> u8 {
        self.length
    }

    /// The first address, which names the network itself.
    pub(crate) fn first(self) -> IpAddr {
        self.first
    }

    /// The last address, for IPv4 prefixes up to 30 bits the broadcast address.
    pub(crate) fn last(self) -> IpAddr {
        let family = self.family();
        address(family, number(self.first) | (family.all_ones() & !mask(family, self.length)))
    }

    pub(crate) fn contains(self, inside: IpAddr) -> bool {
        Subnet::containing(inside, self.length).first == self.first
    }

    pub(crate) fn overlaps(self, other: Subnet) -> bool {
        let shorter = self.length.min(other.length);
        self.family() == other.family()
            && Subnet::containing(self.first, shorter) == Subnet::containing(other.first, shorter)
    }

    /// The addresses that an interface may have, as numbers: without the first, which names the
    /// network or is any router's, and without IPv4's broadcast address.
    pub(crate) fn hosts(self) -> std::ops::RangeInclusive<u128> {
        let (first, last) = (number(self.first), number(self.last()));
        if self.length >= self.family().bits() - 1 {
            return first..=last;
        }
        match self.family() {
            Family::V4 => first + 1..=last - 1,
            Family::V6 => first + 1..=last,
        }
    }

    /// The address of an interface by its number in [`Subnet::hosts`].
    pub(crate) fn host(self, number: u128) -> IpAddr {
        address(self.family(), number)
    }

    /// The first address that an interface may have: the gateway's by custom.
    pub(crate) fn first_host(self) -> IpAddr {
        self.host(*self.hosts().start())
    }

    /// Whether an interface may have this address.
    pub(crate) fn is_host(self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && self.hosts().contains(&number(address))
    }
}

fn mask(family: Family, length: u8) -> u128 {
    let ones = family.all_ones();
    let host_bits = u32::from(family.bits() - length);
    ones & ones.checked_shl(host_bits).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        let syntax = || SubnetError::Syntax(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(syntax)?;
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let length: u8 = length.parse().map_err(|_| syntax())?;
        if length > Family::of(address).bits() {
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
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "a/8", "10.0.0.0/-1"]
        {
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
    fn families_never_overlap() {
        assert!(!subnet("0.0.0.0/0").overlaps(subnet("::/0")));
        assert!(subnet("fd00:1::/48").overlaps(subnet("fd00:1:0:7::/64")));
        assert!(!subnet("fd00:1::/64").overlaps(subnet("fd00:1:0:1::/64")));
    }

    #[test]
    fn hosts_leave_out_network_and_broadcast() {
        let hosts = |text: &str| {
            let subnet = subnet(text);
            let (first, last) = (*subnet.hosts().start(), *subnet.hosts().end());
            (subnet.host(first).to_string(), subnet.host(last).to_string())
        };
        let pair = |first: &str, last: &str| (first.to_owned(), last.to_owned());
        assert_eq!(hosts("192.168.4.0/30"), pair("192.168.4.1", "192.168.4.2"));
        assert_eq!(hosts("192.168.4.0/31"), pair("192.168.4.0", "192.168.4.1"));
        assert_eq!(hosts("fd00::/64"), pair("fd00::1", "fd00::ffff:ffff:ffff:ffff"));
        assert!(!subnet("192.168.4.0/30").is_host("192.168.4.3".parse().unwrap()));
    }
}
