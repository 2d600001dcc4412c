//! Those attached: each gets what the container writes, through a buffer of its own that is bounded.
//!
//! One that does not read holds the container up, as a pipe would, but only for a while: after that
//! it misses what is written, and is told how much once it reads again.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags};

use super::frame::{self, HEAD, Inbox, Kind, MOST};

/// How much of the output waits for one client.
const PENDING: usize = 64 * 1024;
/// How long the container waits for one that does not read.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than this many at once are turned away.
const CLIENTS: usize = 16;

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Wish {
    Input(Vec<u8>),
    /// The client's input has ended; true if it is the one that started the container.
    EndOfInput(bool),
    Resize {
        rows: u16,
        columns: u16,
    },
    Signal(i32),
}

struct Client {
    socket: UnixStream,
    inbox: Inbox,
    pending: VecDeque<u8>,
    /// Since when it has not taken anything, while something is pending.
    stalled: Option<Instant>,
    /// Bytes of output that it was not sent.
    missed: u64,
    /// It has started the container.
    first: bool,
    wants_output: bool,
    /// Nothing more will come from it; it may still read.
    silent: bool,
    closed: bool,
}

impl Client {
    fn new(socket: UnixStream, first: bool, wants_output: bool) -> Result<Self> {
        socket.set_nonblocking(true).context("set O_NONBLOCK")?;
        Ok(Client {
            socket,
            inbox: Inbox::default(),
            pending: VecDeque::new(),
            stalled: None,
            missed: 0,
            first,
            wants_output,
            silent: false,
            closed: false,
        })
    }

    fn has_room(&self) -> bool {
        self.pending.len() + 2 * (HEAD + MOST) <= PENDING
    }

    fn put(&mut self, kind: Kind, body: &[u8]) {
        self.pending.extend(frame::of(kind, body));
        self.step();
    }

    fn output(&mut self, kind: Kind, bytes: &[u8]) {
        if !self.wants_output {
            return;
        }
        if self.missed > 0 || !self.has_room() {
            self.missed += bytes.len() as u64;
            return;
        }
        self.put(kind, bytes);
    }

    /// Writes what it takes.
    fn step(&mut self) {
        while !self.pending.is_empty() && !self.closed {
            let (front, _) = self.pending.as_slices();
            match self.socket.write(front) {
                Ok(count) => {
                    self.pending.drain(..count);
                    self.stalled = None;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return;
                }
                Err(_) => self.closed = true,
            }
            if self.pending.is_empty() {
                self.pending.shrink_to(HEAD + MOST);
                if self.missed > 0 {
                    let missed = std::mem::take(&mut self.missed);
                    self.pending.extend(frame::of(Kind::Gap, &missed.to_be_bytes()));
                }
            }
        }
    }

    /// Reads what has come, one frame's worth at a time.
    fn read(&mut self) {
        if self.inbox.room() == 0 || self.silent || self.closed {
            return;
        }
        self.closed = !self.inbox.fill(&mut self.socket).unwrap_or(false);
    }

    fn next(&mut self) -> Option<Wish> {
        let wish = match self.inbox.next() {
            Ok(Some((Kind::Quiet, []))) => {
                self.wants_output = false;
                return self.next();
            }
            Ok(Some((Kind::Input, []))) => Some(Wish::EndOfInput(self.first)),
            Ok(Some((Kind::Input, bytes))) => Some(Wish::Input(bytes.to_vec())),
            Ok(Some((Kind::Resize, &[a, b, c, d]))) => Some(Wish::Resize {
                rows: u16::from_be_bytes([a, b]),
                columns: u16::from_be_bytes([c, d]),
            }),
            Ok(Some((Kind::Signal, &[signal]))) => Some(Wish::Signal(signal.into())),
            Ok(None) => return None,
            _ => None,
        };
        self.closed |= wish.is_none();
        wish
    }
}

/// All of them, and the socket by which more come.
pub(super) struct Clients {
    listener: UnixListener,
    clients: Vec<Client>,
}

impl Clients {
    /// The one who has started the supervisor is the first.
    pub(super) fn new(listener: UnixListener, first: UnixStream, attached: bool) -> Result<Self> {
        listener.set_nonblocking(true).context("set O_NONBLOCK")?;
        Ok(Clients { listener, clients: vec![Client::new(first, true, attached)?] })
    }

    pub(super) fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, takes_input: bool) {
        fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, takes_input && !client.silent);
            flags.set(PollFlags::POLLOUT, !client.pending.is_empty());
            // One that has gone away would be news for ever; writing to it tells as well.
            if !flags.is_empty() {
                fds.push(PollFd::new(client.socket.as_fd(), flags));
            }
        }
    }

    /// Lets in who has come; `hello` is what each is told first.
    pub(super) fn accept(&mut self, hello: u8) {
        // Whoever does not come through can try again.
        while let Ok((socket, _)) = self.listener.accept() {
            if self.clients.len() >= CLIENTS {
                continue;
            }
            if let Ok(mut client) = Client::new(socket, false, true) {
                client.put(Kind::Hello, &[hello]);
                self.clients.push(client);
            }
        }
    }

    /// Moves what can be moved, both ways; `act` returns false when it can take no more for now.
    pub(super) fn step(&mut self, mut act: impl FnMut(Wish) -> bool) {
        for client in &mut self.clients {
            client.step();
            client.read();
            while let Some(wish) = client.next() {
                if !act(wish) {
                    break;
                }
            }
        }
        self.clients.retain(|client| {
            let done = client.silent && client.pending.is_empty();
            !client.closed && !done
        });
    }

    /// Everybody's output.
    pub(super) fn output(&mut self, kind: Kind, bytes: &[u8]) {
        for client in &mut self.clients {
            client.output(kind, bytes);
        }
    }

    /// A word to who has started it.
    pub(super) fn tell_first(&mut self, kind: Kind, body: &[u8]) {
        for client in self.clients.iter_mut().filter(|client| client.first) {
            client.put(kind, body);
        }
    }

    /// The last word to everybody.
    pub(super) fn exit(&mut self, code: u8) {
        for client in &mut self.clients {
            client.put(Kind::Exit, &[code]);
            client.silent = true;
        }
    }

    /// Everybody who is still waited for has room.
    pub(super) fn flowing(&self, now: Instant) -> bool {
        self.clients.iter().all(|client| {
            !client.wants_output
                || client.missed > 0
                || client.has_room()
                || client.stalled.is_some_and(|since| now >= since + PATIENCE)
        })
    }

    /// When patience with the slowest ends.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let waiting = self.clients.iter().filter(|client| !client.has_room() && client.missed == 0);
        waiting.filter_map(|client| Some(client.stalled? + PATIENCE)).filter(|at| *at > now).min()
    }

    /// Something still waits to be read.
    pub(super) fn pending(&self) -> bool {
        self.clients.iter().any(|client| !client.pending.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn clients(name: &str) -> (Clients, UnixStream) {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Clients::new(listener, ours, true).unwrap(), theirs)
    }

    #[test]
    fn one_that_does_not_read_is_waited_for_only_for_a_while_and_told_what_it_missed() {
        let (mut clients, mut reader) = clients("runtime-stalled");
        let now = Instant::now();
        let mut sent = 0_u64;
        while clients.flowing(now) {
            clients.output(Kind::Output, &[7; MOST]);
            sent += MOST as u64;
        }
        assert!(clients.clients[0].pending.len() <= PENDING);
        let deadline = clients.deadline(now).unwrap();
        assert!(deadline <= Instant::now() + PATIENCE);
        assert!(clients.flowing(deadline), "the container goes on");
        for _ in 0..100 {
            clients.output(Kind::Output, &[7; MOST]);
        }
        assert!(clients.clients[0].pending.len() <= PENDING);

        reader.set_nonblocking(true).unwrap();
        let (mut read, mut missed, mut inbox) = (0, None, Inbox::default());
        while missed.is_none() {
            inbox.fill(&mut reader).unwrap();
            clients.step(|_| true);
            while let Some((kind, body)) = inbox.next().unwrap() {
                match kind {
                    Kind::Gap => missed = Some(u64::from_be_bytes(body.try_into().unwrap())),
                    _ => read += body.len() as u64,
                }
            }
        }
        assert_eq!((read, missed), (sent, Some(100 * MOST as u64)));
        clients.output(Kind::Output, b"more");
        let mut frame = [0; HEAD + 4];
        reader.set_nonblocking(false).unwrap();
        reader.read_exact(&mut frame).unwrap();
        assert_eq!(&frame[HEAD..], b"more");
    }

    #[test]
    fn what_is_no_frame_ends_the_conversation() {
        let (mut clients, mut other) = clients("runtime-garbled");
        other.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        clients.step(|_| true);
        assert!(clients.clients.is_empty());
        assert_eq!(other.read(&mut [0; 8]).unwrap(), 0);
    }
}
