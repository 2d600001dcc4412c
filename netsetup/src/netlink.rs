//! Netlink, synchronously: requests go out in one send, an acknowledgement per request comes back
//! with the kernel's own words for what it refused.

pub(crate) mod address;
pub(crate) mod bridge_port;
mod lengths;
pub(crate) mod link;
pub(crate) mod removal;
pub(crate) mod route;
pub(crate) mod shape;
pub(crate) mod vlan;

use std::io;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    NlaBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols};
use nix::errno::Errno;
use thiserror::Error;

pub(crate) const REQUEST: u16 = 0x1;
const MULTI: u16 = 0x2;
pub(crate) const ACK: u16 = 0x4;
const DUMP_INTERRUPTED: u16 = 0x10;
const ACK_TLVS: u16 = 0x200;
/// NLM_F_ROOT | NLM_F_MATCH: every object of the kind.
pub(crate) const DUMP: u16 = 0x300;
/// The object must not exist yet.
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const ERROR_TEXT: u16 = 1;
const HEADER: usize = 16;
const RECEIVE_BUFFER: usize = 64 * 1024;
/// A dump that another process's change interrupts is begun again this often.
const DUMP_TRIES: usize = 10;

/// What the kernel answered to a request that failed.
#[derive(Debug, Error)]
#[error("{}{}", errno.desc(), detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub(crate) struct KernelError {
    pub(crate) errno: Errno,
    /// The kernel's extended error text.
    detail: Option<String>,
}

/// Whether `error` is the kernel's answer `errno`.
pub(crate) fn is_errno(error: &anyhow::Error, errno: Errno) -> bool {
    error.downcast_ref::<KernelError>().is_some_and(|kernel| kernel.errno == errno)
}

/// One request, of route netlink or of netfilter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request<M> {
    pub(crate) message: M,
    pub(crate) flags: u16,
}

/// A socket on which the kernel announces what becomes of the things of a group.
fn listen(group: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.add_membership(group)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// A netlink socket; it stays in the network namespace in which it was opened.
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    /// A connection for links, addresses and routes.
    pub(crate) fn route() -> Result<Connection> {
        Connection::open(protocols::NETLINK_ROUTE).context("open route netlink socket")
    }

    /// A connection for nf_tables and conntrack.
    pub(crate) fn netfilter() -> Result<Connection> {
        Connection::open(protocols::NETLINK_NETFILTER).context("open netfilter netlink socket")
    }

    fn open(protocol: isize) -> io::Result<Connection> {
        let socket = Socket::new(protocol)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        if protocol == protocols::NETLINK_ROUTE {
            socket.set_netlink_get_strict_chk(true)?;
        }
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Connection { socket, sequence: 1 })
    }

    /// Carries out requests in order. The kernel does not stop at the first that fails; its
    /// error is returned.
    pub(crate) fn transact<M: NetlinkSerializable>(
        &mut self,
        requests: Vec<Request<M>>,
    ) -> Result<()> {
        if requests.is_empty() {
            // The kernel refuses to be sent nothing.
            return Ok(());
        }
        let mut buffer = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for request in requests {
            self.append(&mut buffer, request.message, request.flags | REQUEST | ACK)?;
        }
        self.exchange(&buffer, first, self.sequence)
    }

    /// Sends messages whose numbers run from `first` to `last` and waits for all their
    /// acknowledgements. A number outside the range is an error of the whole buffer.
    pub(crate) fn exchange(&self, buffer: &[u8], first: u32, last: u32) -> Result<()> {
        self.send(buffer)?;
        let mut waiting = last.wrapping_sub(first).wrapping_add(1);
        let mut failure = None;
        while waiting > 0 {
            let received = self.receive()?;
            for message in Messages(&received) {
                let Some(answer) = message.acknowledgement()? else { continue };
                let ours = (first..=last).contains(&message.sequence);
                if let Err(error) = answer {
                    if !ours {
                        return Err(error.into());
                    }
                    failure.get_or_insert(error);
                }
                if ours {
                    waiting -= 1;
                }
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sends one request and returns the answers that can be decoded.
    pub(crate) fn query<M>(&mut self, request: &Request<M>) -> Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        for _ in 0..DUMP_TRIES {
            let mut found = Vec::new();
            let mut buffer = Vec::new();
            let flags = request.flags | REQUEST;
            self.append(&mut buffer, request.message.clone(), flags)?;
            let consistent = self.answers(&buffer, flags & DUMP != 0, |message| {
                found.extend(message.decode()?);
                Ok(())
            })?;
            if consistent {
                return Ok(found);
            }
        }
        bail!("the kernel's tables change faster than they can be read")
    }

    /// Sends `buffer`, one request, and hands every answer to `each`. Says whether the answers
    /// are consistent: another process's change can interrupt a dump.
    fn answers(
        &self,
        buffer: &[u8],
        dump: bool,
        mut each: impl FnMut(&Message<'_>) -> Result<()>,
    ) -> Result<bool> {
        self.send(buffer)?;
        let mut consistent = true;
        loop {
            let received = self.receive()?;
            for message in Messages(&received) {
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= message.flags & DUMP_INTERRUPTED == 0;
                if message.kind == TYPE_DONE {
                    return Ok(consistent);
                }
                if let Some(answer) = message.acknowledgement()? {
                    answer?;
                    return Ok(consistent);
                }
                each(&message)?;
                if !dump && message.flags & MULTI == 0 {
                    return Ok(consistent);
                }
            }
        }
    }

    /// Encodes a message behind those in `buffer`, with the next number.
    pub(crate) fn append<M: NetlinkSerializable>(
        &mut self,
        buffer: &mut Vec<u8>,
        message: M,
        flags: u16,
    ) -> Result<u32> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        self.sequence = self.sequence.wrapping_add(1);
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        let space = buffer.get_mut(start..).context("grow netlink buffer")?;
        message.serialize(space);
        Ok(self.sequence)
    }

    fn send(&self, buffer: &[u8]) -> Result<()> {
        // Large transactions exceed the default send buffer; root may exceed the limit too.
        if buffer.len() > RECEIVE_BUFFER {
            nix::sys::socket::setsockopt(
                &self.socket,
                nix::sys::socket::sockopt::SndBufForce,
                &(buffer.len() * 2),
            )
            .context("enlarge netlink send buffer")?;
        }
        let sent = self.socket.send(buffer, 0).context("send to the kernel")?;
        if sent != buffer.len() {
            bail!("the kernel took {sent} of {} bytes", buffer.len());
        }
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        self.socket.recv(&mut buffer, 0).context("receive from the kernel")?;
        Ok(buffer)
    }
}

/// All that one datagram answers, as [`Connection::query`] reads it.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoded<M: NetlinkDeserializable>(datagram: &[u8]) -> Result<Vec<M>> {
    let mut found = Vec::new();
    for message in Messages(datagram) {
        if let Some(answer) = message.acknowledgement()? {
            answer?;
            continue;
        }
        found.extend(message.decode()?);
    }
    Ok(found)
}

/// Walks the messages of one datagram.
struct Messages<'a>(&'a [u8]);

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    whole: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let whole = self.0.get(..length.max(HEADER))?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            whole,
        })
    }
}

impl Message<'_> {
    /// What it says, unless it is one of netlink's own.
    fn decode<M: NetlinkDeserializable>(&self) -> Result<Option<M>> {
        lengths::check(self.kind, self.whole).context("decode netlink message")?;
        let message = NetlinkMessage::deserialize(self.whole).context("decode netlink message")?;
        Ok(match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        })
    }

    /// The answer that this message carries if it is an acknowledgement.
    fn acknowledgement(&self) -> Result<Option<Result<(), KernelError>>> {
        if self.kind != TYPE_ERROR {
            return Ok(None);
        }
        let payload = self.whole.get(HEADER..).unwrap_or_default();
        let code = i32::from_ne_bytes(
            *payload.first_chunk().context("netlink acknowledgement is cut short")?,
        );
        if code == 0 {
            return Ok(Some(Ok(())));
        }
        let mut detail = None;
        if self.flags & ACK_TLVS != 0 {
            // CAP_ACK: behind the code stands only the header of the request.
            for attribute in NlasIterator::new(payload.get(4 + HEADER..).unwrap_or_default()) {
                let attribute: NlaBuffer<&[u8]> = attribute.context("decode netlink error")?;
                if attribute.kind() == ERROR_TEXT {
                    let text = attribute.value();
                    let text = text.strip_suffix(&[0]).unwrap_or(text);
                    detail = Some(String::from_utf8_lossy(text).into_owned());
                }
            }
        }
        Ok(Some(Err(KernelError { errno: Errno::from_raw(code.wrapping_neg()), detail })))
    }
}
