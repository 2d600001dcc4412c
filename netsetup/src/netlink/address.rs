//! Addresses of links.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{CREATE, Connection, DUMP, EXCLUSIVE, Request, listen};
use crate::subnet::Subnet;

/// RTNLGRP_IPV6_IFADDR: what becomes of IPv6 addresses.
const GROUP: u32 = 9;
/// The kernel asks for about a second.
const LONGEST_DOUBT: Duration = Duration::from_secs(10);

/// Gives a link an address in a subnet, with the route to the subnet that follows from it. An
/// IPv6 address is usable `at_once` where the leases tell that it is nobody else's; otherwise
/// neighbours are asked first.
pub(crate) fn add(
    index: u32,
    address: IpAddr,
    subnet: Subnet,
    at_once: bool,
) -> Request<RouteNetlinkMessage> {
    let mut message = AddressMessage::default();
    message.header.prefix_len = subnet.length();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    match (address, subnet.last()) {
        (IpAddr::V4(_), IpAddr::V4(last)) => {
            message.header.family = AddressFamily::Inet;
            if subnet.length() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(last));
            }
        }
        _ => {
            message.header.family = AddressFamily::Inet6;
            if at_once {
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
    }
    Request { message: RouteNetlinkMessage::NewAddress(message), flags: CREATE | EXCLUSIVE }
}

/// Waits until no neighbour has turned out to have the link's IPv6 addresses; fails if one has.
pub(crate) fn settle(index: u32) -> Result<()> {
    let listener = listen(GROUP).context("listen to what becomes of addresses")?;
    let mut connection = Connection::route()?;
    let deadline = Instant::now() + LONGEST_DOUBT;
    loop {
        // Whatever is announced after this is for the next look.
        while listener.recv_from_full().is_ok() {}
        let Some(doubtful) = doubtful(&mut connection, index)? else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Ok(0) => bail!(
                "whether a neighbour has the address {doubtful} is not known after {} s",
                LONGEST_DOUBT.as_secs()
            ),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the kernel"),
        }
    }
}

/// An address of the link that may be a neighbour's.
fn doubtful(connection: &mut Connection, index: u32) -> Result<Option<IpAddr>> {
    for answer in &dump(connection)? {
        let (Some((of, address)), RouteNetlinkMessage::NewAddress(message)) =
            (read(answer), answer)
        else {
            continue;
        };
        let has = |flag| {
            message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(flag))
        })
        };
        if of == index && has(AddressFlags::Dadfailed) {
            bail!("a neighbour has the address {address} already");
        }
        if of == index && has(AddressFlags::Tentative) {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

fn dump(connection: &mut Connection) -> Result<Vec<RouteNetlinkMessage>> {
    let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    connection.query(&Request { message, flags: DUMP }).context("list addresses")
}

/// Every address: (index of its link, address).
pub(crate) fn list(connection: &mut Connection) -> Result<Vec<(u32, IpAddr)>> {
    Ok(dump(connection)?.iter().filter_map(read).collect())
}

pub(crate) fn read(answer: &RouteNetlinkMessage) -> Option<(u32, IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    // On a link that is no cable between two hosts both attributes are the same.
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some((message.header.index, *address)),
        _ => None,
    })
}
