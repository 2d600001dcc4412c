//! Links, removed without waiting for their memory. The kernel answers who removes a link only when
//! nothing refers to it any more, 20 ms and longer after it began; a process of our own waits for
//! that answer, and we for the announcement that the link is gone, or that a port has left its
//! bridge. From then on the kernel holds the lock under which links are looked up, made and listed:
//! nobody sees this one again, and a name or an address of its is free for whoever asks next.
//!
//! ```text
//! we:     listen ── fork ──── "port 7 has left its bridge" ── go on
//! child:              └── delete link 7 ········(grace periods)········ end, or the error
//! ```

use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{ACK, Connection, HEADER, KernelError, Messages, REQUEST, link, listen};
use crate::sys;

/// RTNLGRP_LINK: what becomes of links.
const GROUP: u32 = 1;
const TYPE_DELETED: u16 = 17;
/// AF_BRIDGE
const FAMILY_BRIDGE: u8 = 7;

/// Removes the link of this name from the namespace that the process is in, if there is one. The
/// connection `beside` is closed when the kernel has answered, which waits for what nf_tables has yet
/// to free.
pub(crate) fn remove(name: &str, beside: Option<&Connection>) -> Result<()> {
    let mut connection = Connection::route()?;
    let Some(link) = link::find(&mut connection, name)? else { return Ok(()) };
    remove_by(connection, &[link.index], LinkAttribute::IfName(name.to_owned()), beside)
        .with_context(|| format!("delete link {name}"))
}

/// Removes every link of a group, which are these. The kernel waits for its readers once, not once
/// per link.
pub(crate) fn remove_group(group: u32, links: &[u32], beside: Option<&Connection>) -> Result<()> {
    remove_by(Connection::route()?, links, LinkAttribute::Group(group), beside)
        .with_context(|| format!("delete links of group {group}"))
}

fn remove_by(
    mut connection: Connection,
    links: &[u32],
    which: LinkAttribute,
    beside: Option<&Connection>,
) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes.push(which);
    let mut request = Vec::new();
    let message = RouteNetlinkMessage::DelLink(message);
    let number = connection.append(&mut request, message, REQUEST | ACK)?;
    let listener = listen(GROUP).context("listen to what becomes of links")?;
    let (outcome, report) = pipe().context("open a pipe")?;
    let own = [connection.socket.as_fd(), report.as_fd()];
    let kept: Vec<_> = own.into_iter().chain(beside.map(|it| it.socket.as_fd())).collect();
    sys::aside(&kept, || {
        let code = match connection.exchange(&request, number, number) {
            Ok(()) => 0,
            Err(error) => {
                error.downcast_ref().map_or(Errno::EIO, |it: &KernelError| it.errno) as i32
            }
        };
        // A parent that has gone on does not listen.
        drop((&report).write_all(&code.to_ne_bytes()));
    })?;
    // Its end is to be heard.
    drop(report);
    wait(&listener, links, outcome)
}

/// Waits until the links are out of everybody's sight, or the answer is there.
fn wait(listener: &Socket, links: &[u32], mut outcome: PipeReader) -> Result<()> {
    let mut left = links.to_vec();
    while !left.is_empty() {
        let mut ready = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(outcome.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled.context("wait for the kernel")?,
        };
        let [_, answer] = ready.map(|it| it.any().unwrap_or(false));
        // More may have become of links than fits the socket: then only the answer is left.
        while let Ok((announced, _)) = listener.recv_from_full() {
            for (index, from) in departures(&announced) {
                match from {
                    Departure::Host => left.retain(|link| *link != index),
                    Departure::Bridge if links.contains(&index) => left.clear(),
                    Departure::Bridge => {}
                }
            }
        }
        if answer {
            return answered(&mut outcome);
        }
    }
    Ok(())
}

fn answered(outcome: &mut PipeReader) -> Result<()> {
    let mut code = [0; 4];
    if outcome.read_exact(&mut code).is_err() {
        bail!("the process that was to do it ended before that");
    }
    match i32::from_ne_bytes(code) {
        0 => Ok(()),
        code => match Errno::from_raw(code) {
            // It was somebody else who removed it.
            Errno::ENODEV => Ok(()),
            errno => Err(KernelError { errno, detail: None }.into()),
        },
    }
}

/// What a link is told to have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    Host,
    Bridge,
}

/// The numbers of links that are told to have left something.
fn departures(announced: &[u8]) -> impl Iterator<Item = (u32, Departure)> {
    Messages(announced).filter(|message| message.kind == TYPE_DELETED).filter_map(|message| {
        let body = message.whole.get(HEADER..)?;
        let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
        // That a port has left its bridge is announced as the family's.
        match *body.first()? {
            0 => Some((index, Departure::Host)),
            FAMILY_BRIDGE => Some((index, Departure::Bridge)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut message = vec![32, 0, 0, 0];
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend([family, 0, 0, 0]);
        message.extend(index.to_ne_bytes());
        message.resize(32, 0);
        message
    }

    #[test]
    fn links_leave_the_host_or_their_bridge() {
        let announced = [
            announcement(16, 0, 7),
            announcement(TYPE_DELETED, FAMILY_BRIDGE, 8),
            announcement(TYPE_DELETED, 0, 9),
            announcement(TYPE_DELETED, 10, 10),
        ];
        let departures: Vec<_> = departures(&announced.concat()).collect();
        assert_eq!(departures, [(8, Departure::Bridge), (9, Departure::Host)]);
    }
}
