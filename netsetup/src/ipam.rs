//! Which address an attachment gets: pure over the question whether one is taken.

use std::net::Ipv4Addr;

use thiserror::Error;

use crate::subnet::Subnet;

/// Why there is no address.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum AddressError {
    #[error("address {0} is not in subnet {1}")]
    Outside(Ipv4Addr, Subnet),
    #[error("address {0} is the gateway's")]
    Gateway(Ipv4Addr),
    #[error("address {0} is taken by container {1}")]
    Taken(Ipv4Addr, String),
    #[error("subnet {0} has no free address left")]
    Exhausted(Subnet),
}

/// What addresses may be given out on a bridge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub(crate) subnet: Subnet,
    pub(crate) gateway: Ipv4Addr,
}

impl Pool {
    /// Checks an address that was asked for.
    pub(crate) fn check(self, address: Ipv4Addr) -> Result<(), AddressError> {
        if !self.subnet.is_host(address) {
            Err(AddressError::Outside(address, self.subnet))
        } else if address == self.gateway {
            Err(AddressError::Gateway(address))
        } else {
            Ok(())
        }
    }

    /// The next free address behind `last`, the one given out most recently: addresses are not
    /// reused at once, so that no neighbour mistakes a new container for its predecessor.
    pub(crate) fn next<E>(
        self,
        last: Option<Ipv4Addr>,
        mut is_taken: impl FnMut(Ipv4Addr) -> Result<bool, E>,
    ) -> Result<Option<Ipv4Addr>, E> {
        let hosts = self.subnet.hosts();
        let (first, end) = (*hosts.start(), *hosts.end());
        let start = match last {
            Some(last) if hosts.contains(&u32::from(last)) && u32::from(last) < end => {
                u32::from(last) + 1
            }
            _ => first,
        };
        for number in (start..=end).chain(first..start) {
            let address = Ipv4Addr::from(number);
            if address != self.gateway && !is_taken(address)? {
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

    fn pool(subnet: &str) -> Pool {
        let subnet: Subnet = subnet.parse().unwrap();
        Pool { subnet, gateway: Ipv4Addr::from(*subnet.hosts().start()) }
    }

    fn next(pool: Pool, last: Option<[u8; 4]>, taken: &[[u8; 4]]) -> Option<[u8; 4]> {
        let taken = |address: Ipv4Addr| Ok::<_, Infallible>(taken.contains(&address.octets()));
        pool.next(last.map(Ipv4Addr::from), taken).unwrap().map(|address| address.octets())
    }

    #[test]
    fn the_first_address_follows_the_gateway() {
        assert_eq!(next(pool("10.0.0.0/24"), None, &[]), Some([10, 0, 0, 2]));
    }

    #[test]
    fn addresses_go_round_before_they_are_reused() {
        let pool = pool("10.0.0.0/29");
        assert_eq!(next(pool, Some([10, 0, 0, 4]), &[[10, 0, 0, 5]]), Some([10, 0, 0, 6]));
        assert_eq!(next(pool, Some([10, 0, 0, 6]), &[]), Some([10, 0, 0, 2]));
    }

    #[test]
    fn a_full_subnet_has_none() {
        assert_eq!(next(pool("10.0.0.0/30"), None, &[[10, 0, 0, 2]]), None);
    }

    #[test]
    fn asked_for_addresses_are_checked() {
        let pool = pool("10.0.0.0/24");
        assert!(pool.check(Ipv4Addr::new(10, 0, 0, 9)).is_ok());
        assert!(matches!(pool.check(Ipv4Addr::new(10, 0, 0, 1)), Err(AddressError::Gateway(_))));
        assert!(matches!(pool.check(Ipv4Addr::new(10, 0, 0, 255)), Err(AddressError::Outside(..))));
        assert!(matches!(pool.check(Ipv4Addr::new(10, 0, 1, 9)), Err(AddressError::Outside(..))));
    }
}
