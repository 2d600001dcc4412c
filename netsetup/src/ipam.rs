//! Which address an attachment gets: pure over the question whether one is taken.

use std::net::IpAddr;

use thiserror::Error;

use crate::subnet::{Family, Subnet, number};

/// Why there is no address.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum AddressError {
    #[error("address {0} is not in subnet {1}")]
    Outside(IpAddr, Subnet),
    #[error("address {0} is the gateway's")]
    Gateway(IpAddr),
    #[error("address {0} is reserved")]
    Reserved(IpAddr),
    #[error("address {0} is taken by container {1}")]
    Taken(IpAddr, String),
    #[error("subnet {0} has no free address left")]
    Exhausted(Subnet),
}

/// What addresses may be given out on a bridge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool<'a> {
    pub(crate) subnet: Subnet,
    pub(crate) gateway: Option<IpAddr>,
    /// The part of the subnet that is given out to those who ask for no address of their own.
    pub(crate) range: Option<(IpAddr, IpAddr)>,
    /// Addresses of others, which are given to nobody.
    pub(crate) reserved: &'a [IpAddr],
}

impl Pool<'_> {
    /// Checks an address that was asked for.
    pub(crate) fn check(self, address: IpAddr) -> Result<(), AddressError> {
        if !self.subnet.is_host(address) {
            Err(AddressError::Outside(address, self.subnet))
        } else if Some(address) == self.gateway {
            Err(AddressError::Gateway(address))
        } else if self.reserved.contains(&address) {
            Err(AddressError::Reserved(address))
        } else {
            Ok(())
        }
    }

    /// The next free address behind `last`, the one given out most recently: addresses are not
    /// reused at once, so that no neighbour mistakes a new container for its predecessor.
    pub(crate) fn next<E>(
        self,
        last: Option<IpAddr>,
        mut is_taken: impl FnMut(IpAddr) -> Result<bool, E>,
    ) -> Result<Option<IpAddr>, E> {
        let hosts = self.subnet.hosts();
        let (first, end) = match self.range {
            Some((first, end)) => {
                (number(first).max(*hosts.start()), number(end).min(*hosts.end()))
            }
            None => (*hosts.start(), *hosts.end()),
        };
        let start = match last.filter(|last| Family::of(*last) == self.subnet.family()) {
            Some(last) if (first..end).contains(&number(last)) => number(last) + 1,
            _ => first,
        };
        for number in (start..=end).chain(first..start) {
            let address = self.subnet.host(number);
            let is_free = Some(address) != self.gateway && !self.reserved.contains(&address);
            if is_free && !is_taken(address)? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn pool(subnet: &str) -> Pool<'static> {
        let subnet: Subnet = subnet.parse().unwrap();
        Pool { subnet, gateway: Some(subnet.first_host()), range: None, reserved: &[] }
    }

    fn next(pool: Pool, last: &str, taken: &[&str]) -> Option<String> {
        let taken = |address: IpAddr| Ok::<_, Infallible>(taken.contains(&&*address.to_string()));
        pool.next(last.parse().ok(), taken).unwrap().map(|address| address.to_string())
    }

    #[test]
    fn the_first_address_follows_the_gateway() {
        assert_eq!(next(pool("10.0.0.0/24"), "", &[]).unwrap(), "10.0.0.2");
        assert_eq!(next(pool("fd00:1::/64"), "", &[]).unwrap(), "fd00:1::2");
    }

    #[test]
    fn addresses_go_round_before_they_are_reused() {
        let pool = pool("10.0.0.0/29");
        assert_eq!(next(pool, "10.0.0.4", &["10.0.0.5"]).unwrap(), "10.0.0.6");
        assert_eq!(next(pool, "10.0.0.6", &[]).unwrap(), "10.0.0.2");
    }

    #[test]
    fn a_range_is_kept_to() {
        let range = Some(("10.0.0.16".parse().unwrap(), "10.0.0.17".parse().unwrap()));
        let pool = Pool { range, ..pool("10.0.0.0/24") };
        assert_eq!(next(pool, "", &[]).unwrap(), "10.0.0.16");
        assert_eq!(next(pool, "10.0.0.16", &[]).unwrap(), "10.0.0.17");
        assert_eq!(next(pool, "10.0.0.17", &[]).unwrap(), "10.0.0.16");
        assert_eq!(next(pool, "10.0.0.17", &["10.0.0.16", "10.0.0.17"]), None);
    }

    #[test]
    fn a_full_subnet_has_none() {
        assert_eq!(next(pool("10.0.0.0/30"), "", &["10.0.0.2"]), None);
    }

    #[test]
    fn asked_for_addresses_are_checked() {
        let check = |address: &str| pool("10.0.0.0/24").check(address.parse().unwrap());
        assert!(check("10.0.0.9").is_ok());
        assert!(matches!(check("10.0.0.1"), Err(AddressError::Gateway(_))));
        assert!(matches!(check("10.0.0.255"), Err(AddressError::Outside(..))));
        assert!(matches!(check("10.0.1.9"), Err(AddressError::Outside(..))));
        assert!(matches!(check("fd00::1"), Err(AddressError::Outside(..))));
    }
}
