//! Links, removed without waiting for their memory. The kernel answers who removes a link only when
//! nothing refers to it any more, 15 ms and longer after it is gone from the host; a process of our
//! own waits for that answer, and we for the announcement that the link is gone.
//!
//! ```text
//! we:     listen ── fork ────────────── "link 7 is gone" ── go on
//! child:              └── delete link 7 ········(grace period)········ end, or the error
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

/// Removes the link of this name from the namespace that the process is in, if there is one.
pub(crate) fn remove(name: &str) -> Result<()> {
    let mut connection = Connection::route()?;
    let Some(link) = link::find(&mut connection, name)? else { return Ok(()) };
    remove_by(connection, &[link.index], LinkAttribute::IfName(name.to_owned()))
        .with_context(|| format!("delete link {name}"))
}

/// Removes every link of a group, which are these. The kernel waits for its readers once, not once
/// per link.
pub(crate) fn remove_group(group: u32, links: &[u32]) -> Result<()> {
    remove_by(Connection::route()?, links, LinkAttribute::Group(group))
        .with_context(|| format!("delete links of group {group}"))
}

fn remove_by(mut connection: Connection, links: &[u32], which: LinkAttribute) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes.push(which);
    let mut request = Vec::new();
    let message = RouteNetlinkMessage::DelLink(message);
    let number = connection.append(&mut request, message, REQUEST | ACK)?;
    let listener = listen(GROUP).context("listen to what becomes of links")?;
    let (outcome, report) = pipe().context("open a pipe")?;
    sys::aside(&[connection.socket.as_fd(), report.as_fd()], || {
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

/// Waits until all of the links are gone, or the answer is there.
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
            left.retain(|link| !deleted(&announced).any(|index| index == *link));
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

/// The numbers of the links that are told to be gone.
fn deleted(announced: &[u8]) -> impl Iterator<Item = u32> {
    Messages(announced).filter_map(|message| {
        let body = message.whole.get(HEADER..)?;
        // That a port has left its bridge is announced as the family's.
        let is_it = message.kind == TYPE_DELETED && *body.first()? == 0;
        let index = body.get(4..)?.first_chunk()?;
        is_it.then_some(u32::from_ne_bytes(*index))
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
    fn a_link_is_gone_when_it_is_deleted_itself() {
        let announced = [
            announcement(16, 0, 7),
            announcement(TYPE_DELETED, 7, 8),
            announcement(TYPE_DELETED, 0, 9),
        ];
        assert_eq!(deleted(&announced.concat()).collect::<Vec<_>>(), [9]);
    }
}
