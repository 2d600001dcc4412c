//! What the two halves of a start tell each other, over one socket pair.
//!
//! ```text
//!   parent                                   child
//!     |--- Mapped ----------------------------->|  new user namespace: its ids are mapped
//!     |--- Placed ----------------------------->|  it is in its cgroup
//!     |<----------------------------- Source(n)-|  a mount whose source we can't open ourselves
//!     |--- Tree(detached) --------------------->|
//!     |<------------------------------ Prepared-|  mounts are made, the root is not yet entered
//!     |    network devices; prestart and        |
//!     |    createRuntime hooks                  |
//!     |--- Proceed ---------------------------->|  createContainer hooks, pivot_root, ...
//!     |<----------------------- Console(master)-|  if it has a terminal
//!     |<------------------------- Listener(n)---|  if the filter notifies: its number with the child
//!     |--- Taken ------------------------------>|  the parent has it by pidfd_getfd
//!     |    or, where the kernel refuses that:   |
//!     |--- Send ------------------------------->|
//!     |<--------------------- Sent(listener)----|  by sendmsg, which the filter may refuse
//!     |<--------------------------- Warning(..)-|  at any time
//!     |<---------------------------- Failed(..)-|  at any time, and then it exits
//!     |<--------------------------------- Ready-|  nothing is left but to wait for `start`
//! ```
//!
//! `exec` has no Prepared and Proceed, and the end of the channel, closed by execve, is its success.
//! Where a side dies its end closes, so that no wait is for ever. From Listener on the child is under
//! its filter: what it says and hears takes no more than write(2) and read(2).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Longer texts are cut; the kernel keeps messages of this socket type whole.
const MAX_TEXT: usize = 16 * 1024;

/// One step of the protocol.
#[derive(Debug)]
pub(crate) enum Message {
    Mapped,
    Placed,
    /// Which mount of the plan.
    Source(u32),
    Tree(OwnedFd),
    Prepared,
    Proceed,
    /// A handle of the process that takes its place: its pid may be of another namespace.
    Relayed(OwnedFd),
    Console(OwnedFd),
    /// The number of the filter's descriptor in the child.
    Listener(i32),
    Taken,
    Send,
    Sent(OwnedFd),
    Warning(String),
    Failed(String),
    Ready,
}

impl Message {
    fn tag(&self) -> u8 {
        match self {
            Message::Mapped => 0,
            Message::Placed => 1,
            Message::Prepared => 2,
            Message::Proceed => 3,
            Message::Relayed(_) => 4,
            Message::Console(_) => 5,
            Message::Listener(_) => 6,
            Message::Warning(_) => 7,
            Message::Failed(_) => 8,
            Message::Ready => 9,
            Message::Source(_) => 10,
            Message::Tree(_) => 11,
            Message::Taken => 12,
            Message::Send => 13,
            Message::Sent(_) => 14,
        }
    }
}

/// One end.
pub(crate) struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Makes both ends.
    pub(crate) fn pair() -> Result<(Channel, Channel)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("socketpair")?;
        Ok((Channel(a), Channel(b)))
    }

    /// Sends one message.
    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        let number;
        let body: &[u8] = match message {
            Message::Warning(text) | Message::Failed(text) => {
                &text.as_bytes()[..text.len().min(MAX_TEXT)]
            }
            Message::Source(index) => {
                number = index.to_ne_bytes();
                &number
            }
            Message::Listener(descriptor) => {
                number = descriptor.to_ne_bytes();
                &number
            }
            _ => &[],
        };
        let message_bytes = [&[message.tag()], body].concat();
        let sent = match message {
            Message::Relayed(fd) | Message::Console(fd) | Message::Sent(fd) | Message::Tree(fd) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let descriptor = [fd.as_fd()];
                ancillary.push(SendAncillaryMessage::ScmRights(&descriptor));
                let parts = [IoSlice::new(&message_bytes)];
                rustix::io::retry_on_intr(|| {
                    rustix::net::sendmsg(&self.0, &parts, &mut ancillary, SendFlags::NOSIGNAL)
                })
            }
            // Under the filter a profile may leave us no more than `write`.
            _ => rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &message_bytes)),
        };
        sent.with_context(|| format!("send {message:?}"))?;
        Ok(())
    }

    /// Waits for the next message; `None` when the other side is gone.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; MAX_TEXT + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let received = rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            match received {
                // The other end died with unread messages of ours. That is told once, and ahead of
                // what it had sent before: its last word is still to come.
                Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::INTR) => {}
                received => break received.context("receive a message")?.bytes,
            }
        };
        let mut descriptor = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                descriptor = fds.next();
            }
        }
        let Some((tag, body)) = buffer[..length].split_first() else { return Ok(None) };
        decode(*tag, body, descriptor).map(Some)
    }

    /// Waits for a message that brings no descriptor.
    pub(crate) fn receive_plain(&self) -> Result<Option<Message>> {
        let mut buffer = [0; MAX_TEXT + 1];
        let length = loop {
            // Under the filter a profile may leave us no more than `read`.
            match rustix::io::read(&self.0, &mut buffer) {
                // As in `receive`.
                Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::INTR) => {}
                read => break read.context("receive a message")?,
            }
        };
        let Some((tag, body)) = buffer[..length].split_first() else { return Ok(None) };
        decode(*tag, body, None).map(Some)
    }

    /// Waits for the one message that may come now, which brings no descriptor.
    pub(crate) fn expect(&self, tag_of: &Message) -> Result<()> {
        match self.receive_plain()? {
            Some(message) if message.tag() == tag_of.tag() => Ok(()),
            Some(message) => bail!("waited for {tag_of:?}, got {message:?}"),
            None => bail!("waited for {tag_of:?}, but the runtime is gone"),
        }
    }
}

fn decode(tag: u8, body: &[u8], descriptor: Option<OwnedFd>) -> Result<Message> {
    let text = || String::from_utf8_lossy(body).into_owned();
    Ok(match tag {
        0 => Message::Mapped,
        1 => Message::Placed,
        2 => Message::Prepared,
        3 => Message::Proceed,
        4 => Message::Relayed(descriptor.context("no process came with the message")?),
        5 => Message::Console(descriptor.context("no terminal came with the message")?),
        6 => Message::Listener(i32::from_ne_bytes(body.try_into().context("read a number")?)),
        7 => Message::Warning(text()),
        8 => Message::Failed(text()),
        9 => Message::Ready,
        10 => Message::Source(u32::from_ne_bytes(body.try_into().context("read a number")?)),
        11 => Message::Tree(descriptor.context("no mount came with the message")?),
        12 => Message::Taken,
        13 => Message::Send,
        14 => Message::Sent(descriptor.context("no listener came with the message")?),
        other => bail!("unknown message {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_with_their_descriptor() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::Failed("why: é".to_owned())).unwrap();
        a.send(&Message::Source(77)).unwrap();
        a.send(&Message::Console(std::fs::File::open("/dev/null").unwrap().into())).unwrap();
        a.send(&Message::Listener(7)).unwrap();
        a.send(&Message::Send).unwrap();
        assert!(matches!(b.receive().unwrap(), Some(Message::Failed(text)) if text == "why: é"));
        assert!(matches!(b.receive().unwrap(), Some(Message::Source(77))));
        assert!(matches!(b.receive().unwrap(), Some(Message::Console(_))));
        assert!(matches!(b.receive_plain().unwrap(), Some(Message::Listener(7))));
        assert!(b.expect(&Message::Send).is_ok());
    }

    #[test]
    fn a_last_word_arrives_from_one_who_did_not_listen() {
        let (a, b) = Channel::pair().unwrap();
        b.send(&Message::Placed).unwrap();
        a.send(&Message::Failed("why".to_owned())).unwrap();
        drop(a);
        assert!(matches!(b.receive().unwrap(), Some(Message::Failed(text)) if text == "why"));
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn the_end_of_the_other_side_ends_the_wait() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(b.receive().unwrap().is_none());
        assert!(b.expect(&Message::Placed).is_err());
        assert!(b.send(&Message::Ready).is_err());
    }
}
