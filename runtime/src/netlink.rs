//! Route netlink, as much as it takes to move a device: links and addresses are asked for, changed
//! and given back as the kernel writes them.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ATTRIBUTE_HEADER: usize = 4;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE_NEW: u16 = 0x600;
/// Something changed while the kernel listed it.
const DUMP_INTERRUPTED: u16 = 0x10;
/// A listing that others keep disturbing is begun again this often.
const DUMP_TRIES: usize = 10;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const PERMANENT: u32 = 0x80;
/// What a user may ask of an address; the other flags tell how it fares.
const ASKED_FLAGS: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;

/// A socket, for ever of the network namespace in which it was opened.
pub(crate) struct Connection {
    socket: OwnedFd,
    sequence: u32,
}

/// An address of a device, without the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    /// Number and value, as the kernel wrote them.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// It neither runs out nor means something on its own link only.
    pub(crate) fn is_permanent_and_global(&self) -> bool {
        self.flags & PERMANENT != 0 && self.scope == libc::RT_SCOPE_UNIVERSE
    }
}

impl Connection {
    /// Opens one in the network namespace that we are in.
    pub(crate) fn open() -> Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // The protocol 0 is that of routes, links and addresses.
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
            .context("open a netlink socket")?;
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))
            .context("connect a netlink socket")?;
        Ok(Connection { socket, sequence: 0 })
    }

    /// The number of the device called `name`.
    pub(crate) fn index_of(&mut self, name: &str) -> Result<i32> {
        let mut body = link_header(0, 0);
        put_attribute(&mut body, IFLA_IFNAME, &terminated(name))?;
        let mut index = None;
        self.exchange(libc::RTM_GETLINK, ACK, &body, |kind, body| {
            if kind == libc::RTM_NEWLINK {
                index = number(body, 4);
            }
        })?;
        index.context("the kernel told no number")
    }

    /// The addresses of a device, in their order.
    pub(crate) fn addresses_of(&mut self, index: i32) -> Result<Vec<Address>> {
        for _ in 0..DUMP_TRIES {
            let mut found = Vec::new();
            let whole =
                self.exchange(libc::RTM_GETADDR, DUMP, &[0; ADDRESS_HEADER], |kind, body| {
                    if kind == libc::RTM_NEWADDR {
                        found.extend(address(body, index));
                    }
                })?;
            if whole {
                return Ok(found);
            }
        }
        bail!("they change all the time")
    }

    /// Moves a device into another namespace under `name`. The kernel takes it down for that.
    pub(crate) fn move_link(&mut self, index: i32, name: &str, to: BorrowedFd) -> Result<()> {
        let mut body = link_header(index, 0);
        put_attribute(&mut body, IFLA_IFNAME, &terminated(name))?;
        put_attribute(&mut body, IFLA_NET_NS_FD, &to.as_raw_fd().to_ne_bytes())?;
        self.exchange(libc::RTM_NEWLINK, ACK, &body, |_, _| {}).map(|_| ())
    }

    /// Gives a device an address that it does not have.
    pub(crate) fn add_address(&mut self, index: i32, address: &Address) -> Result<()> {
        let mut body = vec![address.family, address.prefix, 0, address.scope];
        body.extend(index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            put_attribute(&mut body, *kind, value)?;
        }
        put_attribute(&mut body, IFA_FLAGS, &(address.flags & ASKED_FLAGS).to_ne_bytes())?;
        self.exchange(libc::RTM_NEWADDR, ACK | CREATE_NEW, &body, |_, _| {}).map(|_| ())
    }

    /// Takes a device into service.
    pub(crate) fn set_up(&mut self, index: i32) -> Result<()> {
        let body = link_header(index, libc::IFF_UP.cast_unsigned());
        self.exchange(libc::RTM_NEWLINK, ACK, &body, |_, _| {}).map(|_| ())
    }

    /// Sends one request and hands out what comes back until its end, which is the end of a listing
    /// or else the acknowledgement. False if a listing has gaps.
    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<bool> {
        self.sequence += 1;
        let mut request = Vec::with_capacity(HEADER + body.len());
        let length = u32::try_from(HEADER + body.len()).context("length of a netlink request")?;
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((flags | REQUEST).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        rustix::net::send(&self.socket, &request, SendFlags::empty()).context("ask by netlink")?;

        let mut whole = true;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (_, length) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC)
            })
            .context("read from netlink")?;
            let datagram = buffer.get(..length).context("an answer of netlink was cut")?;
            for message in Messages(datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                whole &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    TYPE_DONE => return Ok(whole),
                    TYPE_ERROR => return refusal(message.body).map(|()| whole),
                    kind => each(kind, message.body),
                }
            }
        }
    }
}

/// Error 0 is the acknowledgement.
fn refusal(body: &[u8]) -> Result<()> {
    match number(body, 0).context("an answer of netlink was cut")? {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(error.wrapping_neg()).into()),
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram; what is cut off at its end is none.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32::from_ne_bytes(bytes(self.0, 0)?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(bytes(self.0, 4)?),
            flags: u16::from_ne_bytes(bytes(self.0, 6)?),
            sequence: u32::from_ne_bytes(bytes(self.0, 8)?),
            body: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(padded(length)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes of a message.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(bytes(self.0, 0)?));
        let kind = u16::from_ne_bytes(bytes(self.0, 2)?);
        let value = self.0.get(ATTRIBUTE_HEADER..length)?;
        self.0 = self.0.get(padded(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Reads an address; `None` if it is another device's.
fn address(body: &[u8], index: i32) -> Option<Address> {
    let [family, prefix, flags, scope] = bytes(body, 0)?;
    if number(body, 4)? != index {
        return None;
    }
    let mut address =
        Address { family, prefix, scope, flags: flags.into(), attributes: Vec::new() };
    for (kind, value) in Attributes(body.get(ADDRESS_HEADER..)?) {
        match kind {
            // The whole of them; the header has room for the first eight.
            IFA_FLAGS => address.flags = u32::from_ne_bytes(bytes(value, 0)?),
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => {
                address.attributes.push((kind, value.to_vec()));
            }
            _ => {}
        }
    }
    Some(address)
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

fn number(from: &[u8], at: usize) -> Option<i32> {
    bytes(from, at).map(i32::from_ne_bytes)
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Of a link: its number, and flags to set.
fn link_header(index: i32, set: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(set.to_ne_bytes());
    header.extend(set.to_ne_bytes());
    header
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn put_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<()> {
    let length =
        u16::try_from(ATTRIBUTE_HEADER + value.len()).context("length of a netlink attribute")?;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(padded(body.len()), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(index: i32, flags: u32, scope: u8) -> Vec<u8> {
        let mut body = vec![2, 24, u8::try_from(flags & 0xff).unwrap(), scope];
        body.extend(index.to_ne_bytes());
        put_attribute(&mut body, IFA_ADDRESS, &[10, 0, 0, 1]).unwrap();
        put_attribute(&mut body, IFLA_IFNAME, b"eth0\0").unwrap();
        put_attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes()).unwrap();
        body
    }

    #[test]
    fn an_address_is_read_whole_and_of_its_device_only() {
        let body = written(7, PERMANENT | 0x200, 0);
        let found = address(&body, 7).unwrap();
        assert_eq!(found.flags, PERMANENT | 0x200);
        assert_eq!(found.attributes, [(IFA_ADDRESS, vec![10, 0, 0, 1])]);
        assert!(found.is_permanent_and_global());
        assert_eq!(address(&body, 8), None);
    }

    #[test]
    fn what_runs_out_or_is_of_one_link_stays() {
        let link_scope = 253;
        assert!(!address(&written(7, PERMANENT, link_scope), 7).unwrap().is_permanent_and_global());
        assert!(!address(&written(7, 0, 0), 7).unwrap().is_permanent_and_global());
    }

    #[test]
    fn a_cut_message_ends_the_list() {
        assert_eq!(Messages(&[20, 0, 0, 0, 2, 0]).count(), 0);
        assert_eq!(Attributes(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(Messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn the_loopback_device_is_found_and_nothing_else_by_a_wrong_name() {
        let mut connection = Connection::open().unwrap();
        assert_eq!(connection.index_of("lo").unwrap(), 1);
        let error = connection.index_of("no-such-device").unwrap_err();
        assert_eq!(error.downcast_ref::<Errno>(), Some(&Errno::NODEV));
        connection.addresses_of(1).unwrap();
    }
}
