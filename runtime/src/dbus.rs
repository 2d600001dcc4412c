//! A D-Bus client of one thread that never waits for ever: it connects, calls, and waits for
//! signals, each until a deadline, and an end of the other side is an error at once. (The smallest
//! published client spins for ever when a bus dies while it authenticates, and takes our user for
//! the one whom the bus knows, which a user namespace makes wrong.)

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

pub(crate) mod address;
pub(crate) mod message;
pub(crate) mod value;

use address::Address;
use message::{Call, Kind, Message};

const BUS: &str = "org.freedesktop.DBus";
/// As the reference implementation of systemd does it: the kernel tells the other side who we are,
/// which holds in a user namespace too, where our number is not the one that the bus knows.
const AUTHENTICATION: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
/// Answers to the above are two short lines.
const LONGEST_ANSWER: usize = 1024;
/// Signals kept while an answer is waited for; more than one has no meaning for us.
const KEPT_SIGNALS: usize = 64;

/// What the other side calls an error.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct CallError {
    /// `org.freedesktop.systemd1.UnitExists`
    pub(crate) name: String,
    pub(crate) text: String,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    peer: String,
    serial: u32,
    input: Vec<u8>,
    signals: VecDeque<Message>,
    deadline: Instant,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// Connects and authenticates; all of that and what follows until [`Connection::set_deadline`]
    /// within `time`. What others than root or `owner` serve is refused.
    pub(crate) fn open(address: &Address, owner: u32, time: Duration) -> Result<Self> {
        let socket = connect(address, time).with_context(|| format!("connect to {address}"))?;
        let peer = socket_peercred(&socket).context("getsockopt(SO_PEERCRED)")?.uid.as_raw();
        if peer != 0 && peer != owner {
            bail!("{address} is served by user {peer}, not by user {owner}");
        }
        let mut connection = Connection {
            socket,
            peer: address.to_string(),
            serial: 0,
            input: Vec::new(),
            signals: VecDeque::new(),
            deadline: Instant::now() + time,
        };
        connection.authenticate().with_context(|| format!("authenticate to {address}"))?;
        Ok(connection)
    }

    /// The first call to a bus. A peer without a bus between knows no such call.
    pub(crate) fn hello(&mut self) -> Result<()> {
        self.call(&bus_call("Hello", Vec::new())).map(drop)
    }

    /// Signals that match `rule` are to be sent to us; a bus sends none by itself.
    pub(crate) fn add_match(&mut self, rule: &str) -> Result<()> {
        let call = bus_call("AddMatch", vec![value::Value::string(rule)]);
        self.send_call(&call, false).map(drop)
    }

    /// Every wait ends after this time from now.
    pub(crate) fn set_deadline(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
    }

    /// Calls a method and waits for the answer; an answer that is an error is a [`CallError`].
    pub(crate) fn call(&mut self, call: &Call) -> Result<Message> {
        let serial = self.send_call(call, true)?;
        loop {
            let message = self.receive().with_context(|| format!("wait for {}", call.member))?;
            match message.kind {
                Kind::Reply(to) if to == serial => return Ok(message),
                Kind::Error(to) if to == serial => {
                    let text = message.text()?.unwrap_or_else(|| message.error.clone());
                    return Err(CallError { name: message.error, text }.into());
                }
                Kind::Signal => {
                    if self.signals.len() == KEPT_SIGNALS {
                        self.signals.pop_front();
                    }
                    self.signals.push_back(message);
                }
                _ => {}
            }
        }
    }

    /// Waits for the next signal; those that came while an answer was waited for are first.
    pub(crate) fn signal(&mut self) -> Result<Message> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let message = self.receive()?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    fn send_call(&mut self, call: &Call, answer: bool) -> Result<u32> {
        self.serial += 1;
        let bytes = call.encode(self.serial, answer)?;
        self.send(&bytes).with_context(|| format!("call {}", call.member))?;
        Ok(self.serial)
    }

    fn send(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).with_context(|| format!("send to {}", self.peer)),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(length) = message::length(&self.input)?
                && self.input.len() >= length
            {
                let rest = self.input.split_off(length);
                let message = std::mem::replace(&mut self.input, rest);
                return Message::decode(message);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => bail!("{} closed the connection", self.peer),
                Ok((length, _)) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    return Ok(());
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("receive from {}", self.peer));
                }
            }
        }
    }

    fn wait(&self, events: PollFlags) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer from {} in time", self.peer);
        }
        let timeout = Timespec::try_from(left).context("timeout of poll")?;
        match poll(&mut [PollFd::new(&self.socket, events)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno).context("poll"),
        }
    }

    /// Two lines come back: an empty question, and the approval.
    fn authenticate(&mut self) -> Result<()> {
        self.send(AUTHENTICATION)?;
        loop {
            let line = self.line()?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => return Ok(()),
                _ => bail!("refused: {line}"),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.input.split_off(end + 2);
                let line = std::mem::replace(&mut self.input, rest);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.input.len() > LONGEST_ANSWER {
                bail!("an answer that is none of D-Bus");
            }
            self.fill()?;
        }
    }
}

fn bus_call(member: &'static str, arguments: Vec<value::Value>) -> Call<'static> {
    Call { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member, arguments }
}

fn connect(address: &Address, time: Duration) -> Result<OwnedFd> {
    let name = match address {
        Address::Path(path) => SocketAddrUnix::new(path),
        Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
    }?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // The limit for connect, too: it waits where too many others do.
    set_socket_timeout(&socket, Timeout::Send, Some(time))?;
    rustix::net::connect(&socket, &name)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
