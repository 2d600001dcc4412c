//! Bytes from one descriptor to another, through a buffer that is filled only when it is empty.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::write;

use super::signals::Signals;

const BUFFER: usize = 32 * 1024;

/// A blocking pipe takes this much without blocking once poll calls it writable.
const BLOCKING_CHUNK: usize = libc::PIPE_BUF;

/// More than this cannot lie in a pipe whose writers are gone (/proc/sys/fs/pipe-max-size).
const LAST_BYTES: usize = 1024 * 1024;

/// All directions of one process.
pub(super) struct Relay {
    input: Option<Pump>,
    outputs: Vec<Pump>,
    /// Why something that the process wrote is not where it ought to be.
    lost: Option<Error>,
}

impl Relay {
    pub(super) fn nothing() -> Self {
        Relay { input: None, outputs: Vec::new(), lost: None }
    }

    /// Both ways through the master of a pseudo-terminal.
    pub(super) fn terminal(master: OwnedFd) -> Result<Self> {
        set_nonblocking(&master)?;
        let out = master.try_clone().context("dup console")?;
        let input = Pump::new(source(std::io::stdin().as_fd())?, Sink::nonblocking(master));
        let output = Pump::new(out, Sink::of(std::io::stdout().as_fd())?);
        Ok(Relay { input: Some(input), outputs: vec![output], lost: None })
    }

    /// stdin, stdout and stderr through a pipe each.
    pub(super) fn pipes(pipes: [OwnedFd; 3]) -> Result<Self> {
        for pipe in &pipes {
            set_nonblocking(pipe)?;
        }
        let [to_stdin, from_stdout, from_stderr] = pipes;
        let input = Pump::new(source(std::io::stdin().as_fd())?, Sink::nonblocking(to_stdin));
        let stdout = Pump::new(from_stdout, Sink::of(std::io::stdout().as_fd())?);
        let stderr = Pump::new(from_stderr, Sink::of(std::io::stderr().as_fd())?);
        Ok(Relay { input: Some(input), outputs: vec![stdout, stderr], lost: None })
    }

    /// What to wait for.
    pub(super) fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.input.iter().chain(&self.outputs).map(Pump::interest));
    }

    /// Moves what can be moved. A direction that has ended closes both its descriptors, which is
    /// how the other side learns of it.
    pub(super) fn step(&mut self) {
        // What the process does not get to read it finds out itself.
        if self.input.as_mut().is_some_and(|pump| !matches!(pump.step(), Ok(Flow::Open))) {
            self.input = None;
        }
        self.step_outputs(|_| true);
    }

    fn step_outputs(&mut self, stays: impl Fn(&Pump) -> bool) {
        let lost = &mut self.lost;
        self.outputs.retain_mut(|pump| match pump.step() {
            Ok(flow) => flow == Flow::Open && stays(pump),
            Err(error) => {
                lost.get_or_insert(error);
                false
            }
        });
    }

    /// The process is gone: what it wrote is still to be delivered, and no more than that, as
    /// others may hold the pipes open and write on. Any signal ends it, since our own reader may
    /// have stalled. Tells why something was lost on the way.
    pub(super) fn finish(mut self, signals: &Signals) -> Result<Option<Error>> {
        self.input = None;
        for pump in &mut self.outputs {
            pump.budget = LAST_BYTES;
        }
        loop {
            self.step_outputs(Pump::pending);
            if self.outputs.is_empty() {
                return Ok(self.lost);
            }
            let mut fds = vec![PollFd::new(signals.fd(), PollFlags::POLLIN)];
            self.add_to(&mut fds);
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("poll"),
            }
            if signals.take()?.iter().any(|signal| *signal != libc::SIGCHLD) {
                return Ok(self.lost);
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    Open,
    Ended,
}

struct Pump {
    from: OwnedFd,
    to: Sink,
    /// What was read last. Its pages are touched only as far as something is read into them.
    buffer: Vec<u8>,
    /// So much of it is written.
    start: usize,
    /// How many bytes may still be read.
    budget: usize,
}

impl Pump {
    fn new(from: OwnedFd, to: Sink) -> Self {
        Pump { from, to, buffer: Vec::with_capacity(BUFFER), start: 0, budget: usize::MAX }
    }

    fn pending(&self) -> bool {
        self.start < self.buffer.len()
    }

    fn interest(&self) -> PollFd<'_> {
        if self.pending() {
            PollFd::new(self.to.fd.as_fd(), PollFlags::POLLOUT)
        } else {
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN)
        }
    }

    /// Reads into the empty buffer; gives how much.
    fn fill(&mut self) -> rustix::io::Result<usize> {
        self.buffer.clear();
        self.start = 0;
        let read = if self.budget >= self.buffer.capacity() {
            rustix::io::read(&self.from, rustix::buffer::spare_capacity(&mut self.buffer))
        } else {
            self.buffer.resize(self.budget, 0);
            let read = rustix::io::read(&self.from, &mut self.buffer[..]);
            self.buffer.truncate(read.unwrap_or(0));
            read
        };
        if self.budget != usize::MAX {
            self.budget -= self.buffer.len();
        }
        read
    }

    /// Reads and writes until either side would block.
    fn step(&mut self) -> Result<Flow> {
        loop {
            if !self.pending() {
                if !ready(self.from.as_fd(), PollFlags::POLLIN)? {
                    return Ok(Flow::Open);
                }
                match self.fill() {
                    Ok(0) => return Ok(Flow::Ended),
                    Ok(_) => {}
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                        return Ok(Flow::Open);
                    }
                    // Every slave is closed, or we read in the background.
                    Err(rustix::io::Errno::IO) => return Ok(Flow::Ended),
                    Err(error) => return Err(error).context("read what the process wrote"),
                }
            }
            if !ready(self.to.fd.as_fd(), PollFlags::POLLOUT)? {
                return Ok(Flow::Open);
            }
            let most = if self.to.blocking { BLOCKING_CHUNK } else { BUFFER };
            let chunk = &self.buffer[self.start..self.buffer.len().min(self.start + most)];
            match write(&self.to.fd, chunk) {
                Ok(count) => self.start += count,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Flow::Open),
                // Nobody reads any more: the writer is to get SIGPIPE.
                Err(Errno::EPIPE) => return Ok(Flow::Ended),
                Err(error) => return Err(error).context("pass on what the process wrote"),
            }
        }
    }
}

fn ready(fd: BorrowedFd, wanted: PollFlags) -> Result<bool> {
    let mut fds = [PollFd::new(fd, wanted)];
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.context("poll")? > 0),
        }
    }
}

/// Where bytes go.
pub(crate) struct Sink {
    pub(crate) fd: OwnedFd,
    /// Only as much may be written at a time as poll(2) promises.
    pub(crate) blocking: bool,
}

impl Sink {
    fn nonblocking(fd: OwnedFd) -> Self {
        Sink { fd, blocking: false }
    }

    /// One of our own descriptors. O_NONBLOCK belongs to the open file, which others share, so
    /// pipes and terminals are opened anew; files never block, and of a socket, or of what we
    /// may not open, only as much is written at a time as poll promises.
    pub(crate) fn of(fd: BorrowedFd) -> Result<Self> {
        let kind = SFlag::from_bits_truncate(fstat(fd).context("fstat")?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            let anew = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            if let Ok(file) = anew {
                return Ok(Sink::nonblocking(file.into()));
            }
        }
        let fd = fd.try_clone_to_owned().context("dup")?;
        Ok(Sink { fd, blocking: kind != SFlag::S_IFREG })
    }
}

/// Reads are made only after poll, so a shared descriptor need not be changed.
fn source(fd: BorrowedFd) -> Result<OwnedFd> {
    fd.try_clone_to_owned().context("dup")
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).context("F_GETFL")?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).context("F_SETFL")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        set_nonblocking(&reader).unwrap();
        set_nonblocking(&writer).unwrap();
        (reader, writer)
    }

    #[test]
    fn bytes_pass_until_the_writer_ends() {
        let (from, mut feed) = pipe();
        let (sink, to) = pipe();
        let mut pump = Pump::new(from, Sink::nonblocking(to));
        std::fs::File::from(feed.try_clone().unwrap()).write_all(b"abc").unwrap();
        assert!(pump.step().unwrap() == Flow::Open);
        let mut text = [0; 8];
        assert_eq!(std::fs::File::from(sink).read(&mut text).unwrap(), 3);
        feed = pipe().1;
        drop(feed);
        assert!(pump.step().unwrap() == Flow::Ended);
    }

    #[test]
    fn a_stalled_reader_stops_the_flow_without_growth() {
        let (from, feed) = pipe();
        let (_sink, to) = pipe();
        let mut pump = Pump::new(from, Sink::nonblocking(to));
        for _ in 0..64 {
            // Fails once both pipes and the buffer are full.
            let _ = write(&feed, &[0; 65_536]);
            assert!(pump.step().unwrap() == Flow::Open);
        }
        assert!(pump.pending());
        assert_eq!(pump.buffer.len(), BUFFER);
    }

    #[test]
    fn a_full_disk_is_told() {
        let (from, feed) = pipe();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut pump = Pump::new(from, Sink::nonblocking(full.into()));
        write(&feed, b"x").unwrap();
        assert!(pump.step().is_err());
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_flow() {
        let (from, feed) = pipe();
        let (sink, to) = pipe();
        drop(sink);
        let mut pump = Pump::new(from, Sink::nonblocking(to));
        write(&feed, b"x").unwrap();
        assert!(pump.step().unwrap() == Flow::Ended);
    }
}
