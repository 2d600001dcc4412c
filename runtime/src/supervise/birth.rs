//! Makes the container, in a child of the supervisor's: whatever is read of config.json is gone with
//! it, and the container is the supervisor's child once it has exited.
//!
//! ```text
//!   midwife                        supervisor
//!     |-- 'w' text ------------------>|  a warning, at any time
//!     |-- 't' master ---------------->|  the terminal, or
//!     |-- 'i' 'o' 'e' pipe ---------->|  the other ends of the container's pipes
//!     |-- 'b' pid ------------------->|  the container is made: that is its first process
//!     |-- 's' ----------------------->|  and runs
//!     |-- 'f' text ------------------>|  or is not, and nothing of it is left
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Settings, streams::Ends};
use crate::clock;
use crate::commands::{self, Prepared};
use crate::foreground::{self, Ours};
use crate::host::{Host, Program};
use crate::records::{ProcessId, Records, Supervised};
use crate::spawn::{Console, Stdio};
use crate::state::StateStore;

const MAX_TEXT: usize = 4 * 1024;

/// What the midwife has to say.
#[derive(Debug)]
pub(super) enum News {
    Warning(String),
    Terminal(OwnedFd),
    Stdin(OwnedFd),
    Stdout(OwnedFd),
    Stderr(OwnedFd),
    Born(i32),
    Started,
    Failed(String),
    /// Nothing more.
    End,
    /// Nothing yet.
    Silence,
}

/// One end of the line.
pub(super) struct Line(OwnedFd);

impl Line {
    pub(super) fn pair() -> Result<(Line, Line)> {
        let flags = SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (a, b) = pair.context("socketpair")?;
        Ok((Line(a), Line(b)))
    }

    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn say(&self, tag: u8, text: &[u8], descriptor: Option<&OwnedFd>) -> Result<()> {
        let text = &text[..text.len().min(MAX_TEXT)];
        let tag = [tag];
        let parts = [IoSlice::new(&tag), IoSlice::new(text)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let borrowed = descriptor.map(|descriptor| [descriptor.as_fd()]);
        if let Some(borrowed) = &borrowed {
            ancillary.push(SendAncillaryMessage::ScmRights(borrowed));
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &parts, &mut ancillary, SendFlags::NOSIGNAL)
        })
        .context("tell the supervisor")?;
        Ok(())
    }

    /// What has come, without waiting.
    pub(super) fn hear(&self) -> Result<News> {
        let mut buffer = [0; MAX_TEXT + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let length = match rustix::net::recvmsg(&self.0, &mut parts, &mut ancillary, flags) {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(News::Silence),
            Err(rustix::io::Errno::CONNRESET) => return Ok(News::End),
            Err(error) => return Err(error).context("receive a message"),
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some((tag, text)) = buffer[..length].split_first() else { return Ok(News::End) };
        let words = || String::from_utf8_lossy(text).into_owned();
        let descriptor = || descriptor.context("no descriptor came with the message");
        Ok(match tag {
            b'w' => News::Warning(words()),
            b't' => News::Terminal(descriptor()?),
            b'i' => News::Stdin(descriptor()?),
            b'o' => News::Stdout(descriptor()?),
            b'e' => News::Stderr(descriptor()?),
            b'b' => News::Born(words().parse().context("read the container's pid")?),
            b's' => News::Started,
            b'f' => News::Failed(words()),
            other => bail!("unknown message {other}"),
        })
    }
}

/// The ends of the container's stdio as they come.
#[derive(Default)]
pub(super) struct Coming {
    terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Coming {
    /// Keeps what brings an end; gives everything else back.
    pub(super) fn take(&mut self, news: News) -> Option<News> {
        match news {
            News::Terminal(end) => self.terminal = Some(end),
            News::Stdin(end) => self.stdin = Some(end),
            News::Stdout(end) => self.stdout = Some(end),
            News::Stderr(end) => self.stderr = Some(end),
            other => return Some(other),
        }
        None
    }

    pub(super) fn ends(self) -> Result<Ends> {
        if let Some(master) = self.terminal {
            return Ok(Ends::Terminal(master));
        }
        let stdout = self.stdout.context("the container's stdout did not come")?;
        let stderr = self.stderr.context("the container's stderr did not come")?;
        Ok(Ends::Pipes { stdin: self.stdin, stdout, stderr })
    }
}

/// The midwife's whole life.
pub(super) fn midwife(settings: &Settings, supervisor: i32, restarts: u32, line: &Line) {
    if let Err(error) = deliver(settings, supervisor, restarts, line) {
        let why = crate::error::render(&error);
        // The end of the line says as much, with fewer words.
        let _ = line.say(b'f', why.as_bytes(), None);
    }
}

fn deliver(settings: &Settings, supervisor: i32, restarts: u32, line: &Line) -> Result<()> {
    let records = Records::new(Some(settings.records.clone()), &settings.root);
    let store = StateStore::new(settings.root.clone());
    let mut record = records.load(&settings.id)?;
    let setup = &record.setup;
    let host = Host::probe(Program::Runtime, setup.rootless, setup.systemd_cgroup)?;
    // An end that nobody recorded leaves the live state behind.
    commands::clear_dead(&settings.id, &store)?;
    let prepared = Prepared::again(&record, &host, &store, &records)?;
    prepared.must_have_process()?;
    let terminal = prepared.terminal();
    let (ours, theirs) = foreground::stdio(terminal, &prepared.bundle.spec)?;
    let spawned = spawn(&prepared, theirs, &host, &store)?;
    for warning in &spawned.warnings {
        line.say(b'w', warning.as_bytes(), None)?;
    }
    let (pid, started) = (spawned.pid, &mut record);
    let begun = hand_over(settings, ours, spawned.console.as_ref(), line).and_then(|()| {
        line.say(b'b', pid.to_string().as_bytes(), None)?;
        note_start(started, supervisor, restarts)?;
        records.save(started)?;
        if settings.check.is_some() {
            records.begin_health(&settings.id)?;
        }
        commands::start_or_destroy(&prepared, &spawned, &store)
    });
    if let Err(error) = begun {
        commands::destroy_by_id(&settings.id, &store)?;
        return Err(error);
    }
    line.say(b's', b"", None)
}

fn spawn(
    prepared: &Prepared,
    stdio: Stdio,
    host: &Host,
    store: &StateStore,
) -> Result<crate::spawn::Spawned> {
    prepared.make(Console::Returned, stdio, host, store)
}

fn note_start(record: &mut Supervised, supervisor: i32, restarts: u32) -> Result<()> {
    let life = &mut record.life;
    life.supervisor = ProcessId::of(supervisor)?;
    life.started = Some(clock::nanoseconds(SystemTime::now()));
    life.finished = None;
    life.exit_code = None;
    life.oom_killed = false;
    life.error = None;
    life.restarting = false;
    life.restarts = restarts;
    Ok(())
}

fn hand_over(
    settings: &Settings,
    ours: Ours,
    console: Option<&OwnedFd>,
    line: &Line,
) -> Result<()> {
    match (ours, console) {
        (Ours::Pipes([stdin, stdout, stderr]), _) => {
            if settings.interactive {
                line.say(b'i', b"", Some(&stdin))?;
            }
            line.say(b'o', b"", Some(&stdout))?;
            line.say(b'e', b"", Some(&stderr))
        }
        (Ours::Terminal, Some(master)) => {
            if let Some((rows, columns)) = settings.size {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                tcsetwinsize(master, size).context("set the terminal's size")?;
            }
            line.say(b't', b"", Some(master))
        }
        (Ours::Terminal, None) => bail!("the container has no terminal"),
    }
}
