//! Somebody's side of the conversation with a supervisor: of who has started it, and of `attach`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use super::detach::Keys;
use super::frame::{self, HEAD, Inbox, Kind, MOST};
use crate::foreground::relay::Sink;
use crate::foreground::signals::Signals;
use crate::foreground::terminal::{self, RawMode};
use crate::log;
use crate::records::SOCKET;

/// How one attends to a container.
pub(crate) struct Visit {
    /// What is typed goes there.
    pub(crate) input: bool,
    /// Signals to us are signals to the container.
    pub(crate) forward_signals: bool,
    pub(crate) detach: Keys,
    /// A terminal that we come back to is to be painted anew.
    pub(crate) repaint: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Exit(u8),
    /// The container goes on without us.
    Detached,
}

/// Waits until the container is started, or the reason why it is not.
pub(crate) fn await_start(socket: &mut UnixStream) -> Result<()> {
    let mut inbox = Inbox::default();
    loop {
        // Frame by frame: what follows belongs to who attends to it.
        let mut head = [0; HEAD];
        let gone = |_| anyhow!("the supervisor was killed");
        socket.read_exact(&mut head).map_err(gone)?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]])).min(MOST)];
        socket.read_exact(&mut body).map_err(gone)?;
        inbox.add(&head);
        inbox.add(&body);
        match inbox.next() {
            Ok(Some((Kind::Started, _))) => return Ok(()),
            Ok(Some((Kind::Failed, why))) => bail!("{}", String::from_utf8_lossy(why)),
            Ok(Some((Kind::Warning, text))) => log::warn(String::from_utf8_lossy(text)),
            Ok(Some((kind, _))) => bail!("the supervisor said {kind:?} before the start"),
            _ => bail!("the supervisor said what is no frame"),
        }
    }
}

/// Attends to the container until it ends or we leave.
pub(crate) fn converse(socket: UnixStream, visit: Visit, terminal: bool) -> Result<Ending> {
    let signals = Signals::block()?;
    let raw_mode = if terminal && visit.input { RawMode::enter()? } else { None };
    socket.set_nonblocking(true).context("set O_NONBLOCK")?;
    let mut talk = Talk {
        socket,
        inbox: Inbox::default(),
        out: Vec::new(),
        stdout: Outlet::new(Sink::of(std::io::stdout().as_fd())?),
        stderr: Outlet::new(Sink::of(std::io::stderr().as_fd())?),
        input: visit.input,
        terminal,
        ended: None,
        visit,
    };
    if terminal {
        talk.resize()?;
    }
    let ending = talk.run(&signals);
    drop(raw_mode);
    ending
}

/// One of our own outputs, and what waits for it.
struct Outlet {
    sink: Sink,
    pending: Vec<u8>,
    broken: bool,
}

impl Outlet {
    fn new(sink: Sink) -> Self {
        Outlet { sink, pending: Vec::new(), broken: false }
    }

    fn step(&mut self) {
        while !self.pending.is_empty() {
            let most = if self.sink.blocking { libc::PIPE_BUF } else { MOST };
            if self.sink.blocking && !writable(&self.sink) {
                return;
            }
            match write(&self.sink.fd, &self.pending[..self.pending.len().min(most)]) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => {
                    self.pending.clear();
                    self.broken = true;
                }
            }
        }
    }
}

fn writable(sink: &Sink) -> bool {
    let mut fds = [PollFd::new(sink.fd.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

struct Talk {
    socket: UnixStream,
    inbox: Inbox,
    out: Vec<u8>,
    stdout: Outlet,
    stderr: Outlet,
    /// Our standard input is still open, and wanted.
    input: bool,
    terminal: bool,
    /// The container is gone, with this code; what it wrote may still be on its way.
    ended: Option<u8>,
    visit: Visit,
}

impl Talk {
    fn run(&mut self, signals: &Signals) -> Result<Ending> {
        loop {
            self.wait(signals)?;
            for signal in signals.take()? {
                if let Some(ending) = self.signal(signal)? {
                    return Ok(ending);
                }
            }
            // What is typed after the end is for whoever reads the terminal next.
            self.receive()?;
            if self.ended.is_some() {
                self.input = false;
            }
            if self.read_input()? {
                self.send()?;
                return Ok(Ending::Detached);
            }
            self.send()?;
            self.stdout.step();
            self.stderr.step();
            if let Some(code) = self.ended.filter(|_| self.delivered()) {
                return Ok(Ending::Exit(code));
            }
            if self.stdout.broken {
                // Nobody reads what it writes any more: it goes on, and its log has it.
                return Ok(Ending::Detached);
            }
        }
    }

    fn wait(&self, signals: &Signals) -> Result<()> {
        let stdin = std::io::stdin();
        let mut fds = vec![PollFd::new(signals.fd(), PollFlags::POLLIN)];
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.delivered());
        flags.set(PollFlags::POLLOUT, !self.out.is_empty());
        fds.push(PollFd::new(self.socket.as_fd(), flags));
        for outlet in [&self.stdout, &self.stderr] {
            if !outlet.pending.is_empty() {
                fds.push(PollFd::new(outlet.sink.fd.as_fd(), PollFlags::POLLOUT));
            }
        }
        if self.input && self.out.is_empty() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("poll"),
        }
    }

    fn delivered(&self) -> bool {
        self.stdout.pending.is_empty() && self.stderr.pending.is_empty()
    }

    fn signal(&mut self, signal: i32) -> Result<Option<Ending>> {
        match signal {
            libc::SIGWINCH if self.terminal => self.resize()?,
            libc::SIGWINCH | libc::SIGCHLD | libc::SIGPIPE => {}
            // Our own reader may have stalled.
            _ if self.ended.is_some() => return Ok(self.ended.map(Ending::Exit)),
            signal if self.visit.forward_signals => {
                let number = u8::try_from(signal).context("number of a signal")?;
                frame::put(&mut self.out, Kind::Signal, &[number]);
            }
            libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT => {
                return Ok(Some(Ending::Detached));
            }
            _ => {}
        }
        Ok(None)
    }

    /// The container's terminal gets the size of ours.
    fn resize(&mut self) -> Result<()> {
        let Some((rows, columns)) = terminal::own_size()? else { return Ok(()) };
        let mut put = |rows: u16| {
            let [[a, b], [c, d]] = [rows.to_be_bytes(), columns.to_be_bytes()];
            frame::put(&mut self.out, Kind::Resize, &[a, b, c, d]);
        };
        if std::mem::take(&mut self.visit.repaint) {
            // A size that does not change is no reason to paint.
            put(rows.saturating_add(1));
        }
        put(rows);
        Ok(())
    }

    /// True if the keys to leave by were typed.
    fn read_input(&mut self) -> Result<bool> {
        let stdin = std::io::stdin();
        if !self.input || !self.out.is_empty() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).unwrap_or(0) == 0 {
            return Ok(false);
        }
        let mut buffer = [0; MOST / 2];
        match read(&stdin, &mut buffer) {
            Ok(count) if count > 0 => {
                let typed = self.visit.detach.feed(&buffer[..count]);
                if !typed.bytes.is_empty() {
                    frame::put(&mut self.out, Kind::Input, &typed.bytes);
                }
                return Ok(typed.detached);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            _ => {
                self.input = false;
                frame::put(&mut self.out, Kind::Input, &[]);
            }
        }
        Ok(false)
    }

    fn send(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Why will be read.
                Err(_) => self.out.clear(),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        if !self.delivered() || self.ended.is_some() {
            return Ok(());
        }
        if !self.inbox.fill(&mut self.socket).context("read from the supervisor")? {
            bail!("the supervisor is gone");
        }
        while let Some((kind, body)) =
            self.inbox.next().map_err(|_| anyhow!("the supervisor said what is no frame"))?
        {
            match kind {
                Kind::Output => self.stdout.pending.extend_from_slice(body),
                Kind::Error => self.stderr.pending.extend_from_slice(body),
                Kind::Gap => {
                    let missed = body.try_into().map_or(0, u64::from_be_bytes);
                    log::warn(format_args!("{missed} bytes are only in the log: too slow"));
                }
                Kind::Exit => self.ended = body.first().copied(),
                _ => {}
            }
        }
        self.stdout.step();
        self.stderr.step();
        Ok(())
    }
}

/// Waits for the end without a word between; `None` if the supervisor ended before.
pub(crate) fn await_end(mut socket: UnixStream) -> Result<Option<u8>> {
    match socket.write_all(&frame::of(Kind::Quiet, &[])) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(None),
        written => written.context("write to the supervisor")?,
    }
    let mut inbox = Inbox::default();
    loop {
        match inbox.fill(&mut socket) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error).context("read from the supervisor"),
        }
        while let Some((kind, body)) =
            inbox.next().map_err(|_| anyhow!("the supervisor said what is no frame"))?
        {
            if kind == Kind::Exit {
                return Ok(body.first().copied());
            }
        }
    }
}

/// Does something with the socket in this directory by a short path: the kernel takes no more than
/// 107 bytes of a socket's.
pub(super) fn by_descriptor<T>(
    directory: &Path,
    act: impl FnOnce(PathBuf) -> std::io::Result<T>,
) -> Result<T> {
    let opened = File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())).join(SOCKET);
    act(path).with_context(|| format!("socket {}", directory.join(SOCKET).display()))
}

/// Comes to a running container; whether it has a terminal, and takes input.
pub(crate) fn connect(directory: &Path) -> Result<(UnixStream, bool, bool)> {
    let mut socket = by_descriptor(directory, UnixStream::connect)?;
    let mut hello = [0; HEAD + 1];
    socket.read_exact(&mut hello).context("the supervisor has not answered")?;
    let flags = hello[HEAD];
    Ok((socket, flags & 1 != 0, flags & 2 != 0))
}
