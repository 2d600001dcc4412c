//! The supervisor's ends of the container's stdio: pipes, or the terminal's master.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::unistd::{read, write};

use super::log::Stream;
use crate::foreground::relay::set_nonblocking;

/// How long a terminal that everybody has closed is left alone: somebody may open it again.
const HANGUP_PAUSE: Duration = Duration::from_secs(1);

/// After the end no more than this can lie in a pipe (/proc/sys/fs/pipe-max-size); what comes after
/// it is another process's that holds the pipe.
const LAST_BYTES: usize = 1024 * 1024;

/// Input that the container has not taken yet is kept up to this size.
const INPUT: usize = 8 * 1024;

/// What the container's first process has as 0, 1 and 2.
pub(super) enum Ends {
    Terminal(OwnedFd),
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
}

/// What a read has brought.
pub(super) enum Came {
    Bytes(Stream, usize),
    Nothing,
}

#[derive(Default)]
pub(super) struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    pub(super) terminal: bool,
    input: Vec<u8>,
    /// Input that nobody adds to any more.
    input_ends: bool,
    hung_up_until: Option<Instant>,
    /// How much may still be read once the first process is gone.
    budget: Option<usize>,
}

impl Streams {
    pub(super) fn new(ends: Ends) -> Result<Self> {
        let streams = match ends {
            Ends::Terminal(master) => {
                let stdin = Some(master.try_clone()?);
                Streams { stdin, stdout: Some(master), terminal: true, ..Streams::default() }
            }
            Ends::Pipes { stdin, stdout, stderr } => {
                Streams { stdin, stdout: Some(stdout), stderr: Some(stderr), ..Streams::default() }
            }
        };
        for end in [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().flatten() {
            set_nonblocking(end)?;
        }
        Ok(streams)
    }

    /// The terminal's master.
    pub(super) fn master(&self) -> Option<&OwnedFd> {
        self.stdin.as_ref().filter(|_| self.terminal)
    }

    pub(super) fn takes_input(&self) -> bool {
        self.stdin.is_some() && !self.input_ends
    }

    /// More input may come: all that came before is on its way.
    pub(super) fn wants_input(&self) -> bool {
        self.input.is_empty()
    }

    pub(super) fn add_input(&mut self, bytes: &[u8]) {
        if self.takes_input() {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Closes standard input once all of it is written; a terminal has no such end.
    pub(super) fn end_input(&mut self) {
        if !self.terminal {
            self.input_ends = true;
            self.step_input();
        }
    }

    /// Writes what can be written.
    pub(super) fn step_input(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        while !self.input.is_empty() {
            match write(stdin, &self.input) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                // Nobody reads it any more.
                Err(_) => {
                    self.input.clear();
                    self.input_ends = true;
                }
            }
        }
        self.input.shrink_to(INPUT);
        if self.input_ends && !self.terminal {
            self.stdin = None;
        }
    }

    /// What to wait for; output only while it has somewhere to go.
    pub(super) fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, flowing: bool) {
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        if flowing && self.hung_up_until.is_none() {
            for output in [&self.stdout, &self.stderr].into_iter().flatten() {
                fds.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
            }
        }
    }

    /// When to look at a terminal again that everybody has closed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hung_up_until
    }

    /// Reads one piece of the one or the other; nothing when none has any.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Came {
        if self.hung_up_until.is_some_and(|until| Instant::now() < until) {
            return Came::Nothing;
        }
        self.hung_up_until = None;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let end = match stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            let Some(fd) = end else { continue };
            let room = buffer.len().min(self.budget.unwrap_or(usize::MAX));
            match read(&*fd, &mut buffer[..room]) {
                Ok(0) => *end = None,
                Ok(count) => {
                    self.budget = self.budget.map(|left| left - count);
                    return Came::Bytes(stream, count);
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::EIO) if self.terminal && self.budget.is_none() => {
                    self.hung_up_until = Some(Instant::now() + HANGUP_PAUSE);
                }
                Err(_) => *end = None,
            }
        }
        Came::Nothing
    }

    /// The first process is gone: what it has written is still to come, and no more.
    pub(super) fn first_process_is_gone(&mut self) {
        self.hung_up_until = None;
        self.budget.get_or_insert(LAST_BYTES);
        self.stdin = None;
        self.input = Vec::new();
    }
}
