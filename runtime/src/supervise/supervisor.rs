//! The supervisor's loop: one poll(2) over the container's output, those attached, and signals.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::WaitOptions;

use super::Settings;
use super::attend::{self, Stage};
use super::birth::News;
use super::checks::Checks;
use super::clients::{Clients, Wish};
use super::frame::{Kind, MOST};
use super::log::Log;
use super::policy::BackOff;
use super::streams::{Came, Streams};
use crate::foreground::signals::Signals;
use crate::records::{Records, SOCKET};
use crate::seal;
use crate::sys::{inherited, pidfd::pidfd_send_signal};

/// How long those attached have for the last words.
const FAREWELL: Duration = Duration::from_secs(5);
/// Turns of reading before others have theirs.
const READS: usize = 16;
/// What a container has to end in that is asked to because we are.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a supervisor to its end; the exit code is the container's. The words are its id, and the
/// numbers of two descriptors: of its settings, and of the socket to its caller.
pub(crate) fn main(words: &[String]) -> Result<u8> {
    let [id, settings, caller] = words else {
        anyhow::bail!("`runtime {}` is only for runtime itself", super::launch::VERB);
    };
    // Its children enter containers.
    seal::ensure()?;
    let adopt = |number: &String| {
        let number = number.parse().context("number of a descriptor")?;
        inherited::adopt(number).with_context(|| format!("descriptor {number}"))
    };
    let (settings, caller) = (adopt(settings)?, UnixStream::from(adopt(caller)?));
    let settings: Settings = serde_json::from_reader(std::fs::File::from(settings))
        .with_context(|| format!("read the settings of {id}"))?;
    match Supervisor::new(settings, caller.try_clone().context("dup")?) {
        Ok(mut supervisor) => {
            drop(caller);
            supervisor.run()
        }
        Err(error) => {
            let why = crate::error::render(&error);
            let frame = super::frame::of(Kind::Failed, why.as_bytes());
            std::io::Write::write_all(&mut &caller, &frame).context("tell the caller")?;
            Ok(1)
        }
    }
}

pub(super) struct Supervisor {
    pub(super) settings: Settings,
    pub(super) records: Records,
    pub(super) signals: Signals,
    pub(super) clients: Clients,
    pub(super) log: Log,
    pub(super) streams: Streams,
    pub(super) stage: Stage,
    pub(super) back_off: BackOff,
    pub(super) checks: Checks,
    pub(super) restarts: u32,
    /// Nobody wants it to be started again.
    pub(super) ending: bool,
    /// When patience with a container ends that was asked to end because we were.
    pub(super) kill_at: Option<Instant>,
    /// Signals that came before there was a process.
    early: Vec<i32>,
    buffer: Box<[u8]>,
    code: u8,
}

impl Supervisor {
    fn new(settings: Settings, caller: UnixStream) -> Result<Self> {
        // It may have been executed by the number of a descriptor, which is a poor name.
        rustix::thread::set_name(c"runtime").context("prctl(PR_SET_NAME)")?;
        nix::sys::prctl::set_child_subreaper(true).context("become a subreaper")?;
        let signals = Signals::block()?;
        let records = Records::new(Some(settings.records.clone()), &settings.root);
        let log = Log::open(&settings.log)?;
        let listener = listen(&records, &settings.id)?;
        let clients = Clients::new(listener, caller, settings.attached)?;
        let mut supervisor = Supervisor {
            settings,
            records,
            signals,
            clients,
            log,
            streams: Streams::default(),
            stage: Stage::Over,
            back_off: BackOff::default(),
            checks: Checks::default(),
            restarts: 0,
            ending: false,
            kill_at: None,
            early: Vec::new(),
            buffer: vec![0; MOST].into(),
            code: 0,
        };
        supervisor.begin()?;
        Ok(supervisor)
    }

    fn run(&mut self) -> Result<u8> {
        loop {
            self.turn()?;
            if matches!(self.stage, Stage::Over) {
                break;
            }
        }
        self.say_farewell()?;
        Ok(self.code)
    }

    fn turn(&mut self) -> Result<()> {
        self.wait()?;
        for signal in self.signals.take()? {
            self.signal(signal)?;
        }
        self.hear_midwife()?;
        self.relay();
        self.step_clients();
        self.streams.step_input();
        self.checks.step(&self.settings)?;
        // What one station waits for may have come during the one before.
        while self.advance()? {}
        Ok(())
    }

    /// Until something is to be done.
    fn wait(&self) -> Result<()> {
        let now = Instant::now();
        let mut fds = vec![PollFd::new(self.signals.fd(), PollFlags::POLLIN)];
        if let Some(line) = self.stage.line() {
            fds.push(PollFd::new(line.fd(), PollFlags::POLLIN));
        }
        self.streams.add_to(&mut fds, self.flowing(now));
        self.clients.add_to(&mut fds, self.streams.wants_input());
        let deadlines = [
            self.stage.deadline(),
            self.kill_at,
            self.checks.deadline(),
            self.streams.deadline(),
            self.clients.deadline(now),
        ];
        let next = deadlines.into_iter().flatten().min();
        if self.streams_have_last_words() {
            return Ok(());
        }
        wait_until(&mut fds, next)
    }

    /// The first process is gone and its output not yet read to the end.
    fn streams_have_last_words(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. }) && self.flowing(Instant::now())
    }

    /// Output has somewhere to go: the caller hears of the start before it.
    fn flowing(&self, now: Instant) -> bool {
        self.stage.line().is_none() && self.clients.flowing(now)
    }

    fn signal(&mut self, signal: i32) -> Result<()> {
        match signal {
            libc::SIGCHLD => self.reap()?,
            libc::SIGHUP => self.log.broken |= self.log.reopen().is_err(),
            // `stop` does the rest.
            libc::SIGUSR1 => self.ending = true,
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => {
                self.ending = true;
                self.kill_at.get_or_insert_with(|| Instant::now() + GRACE);
                self.pass_on(libc::SIGTERM);
            }
            _ => {}
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        while let Ok(Some((child, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            // The container becomes our child when the midwife exits: who it is was said before.
            self.hear_midwife()?;
            self.gone(child.as_raw_pid(), status);
        }
        Ok(())
    }

    /// A signal for the container's first process, now or when there is one.
    pub(super) fn pass_on(&mut self, signal: i32) {
        match self.stage.init() {
            // A process that is gone is told nothing.
            Some(init) => drop(pidfd_send_signal(init, signal)),
            None => self.early.push(signal),
        }
        self.early.truncate(8);
    }

    pub(super) fn pass_on_early(&mut self) {
        for signal in std::mem::take(&mut self.early) {
            self.pass_on(signal);
        }
    }

    fn hear_midwife(&mut self) -> Result<()> {
        while let Some(birth) = self.stage.birth() {
            let news = birth.hear()?;
            match birth.coming.take(news) {
                None => {}
                Some(News::Warning(text)) => {
                    self.clients.tell_first(Kind::Warning, text.as_bytes());
                }
                Some(News::Born(pid)) => self.born(pid)?,
                Some(News::Started) => birth.note_started(),
                Some(News::Failed(text)) => birth.note_failure(text),
                Some(_) => break,
            }
        }
        Ok(())
    }

    /// Output to the log and to those attached.
    fn relay(&mut self) {
        for _ in 0..READS {
            if !self.flowing(Instant::now()) {
                return;
            }
            match self.streams.read(&mut self.buffer) {
                Came::Bytes(stream, count) => {
                    let bytes = &self.buffer[..count];
                    self.log.write(stream, bytes, SystemTime::now());
                    self.clients.output(stream.into(), bytes);
                }
                Came::Nothing => {
                    self.stage.note_silence();
                    return;
                }
            }
        }
    }

    fn step_clients(&mut self) {
        let hello = u8::from(self.streams.terminal) | (u8::from(self.streams.takes_input()) << 1);
        self.clients.accept(hello);
        let streams = &mut self.streams;
        let mut signals = Vec::new();
        let once = self.settings.attached;
        self.clients.step(|wish| {
            match wish {
                Wish::Input(bytes) => streams.add_input(&bytes),
                // As long as it is open for others, one's end is not its end.
                Wish::EndOfInput(first) if first && once => streams.end_input(),
                Wish::EndOfInput(_) => {}
                Wish::Resize { rows, columns } => attend::resize(streams.master(), rows, columns),
                Wish::Signal(signal) => signals.push(signal),
            }
            streams.wants_input()
        });
        for signal in signals {
            self.pass_on(signal);
        }
    }

    /// The record gets the end, and those attached get the code.
    pub(super) fn over(&mut self, code: u8) {
        self.code = code;
        self.clients.exit(code);
    }

    fn say_farewell(&mut self) -> Result<()> {
        let end = Instant::now() + FAREWELL;
        while self.clients.pending() && Instant::now() < end {
            let mut fds = Vec::new();
            self.clients.add_to(&mut fds, false);
            wait_until(&mut fds, Some(end))?;
            self.clients.step(|_| true);
        }
        Ok(())
    }

    /// Nobody can attach any more.
    pub(super) fn remove_socket(&self) {
        // Somebody may have deleted all of it.
        if let Ok(directory) = self.records.directory(&self.settings.id) {
            let _ = std::fs::remove_file(directory.join(SOCKET));
        }
    }
}

/// Until one is ready, or the time has come.
fn wait_until(fds: &mut [PollFd], deadline: Option<Instant>) -> Result<()> {
    let timeout = match deadline {
        None => PollTimeout::NONE,
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up: waking too early would only mean to wait again.
            let left = left + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        }
    };
    match poll(fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}

/// The socket for `attach`, for its owner alone. Its path may be longer than a socket's address: it
/// is named by way of its directory's descriptor.
fn listen(records: &Records, id: &str) -> Result<UnixListener> {
    let directory = records.directory(id)?;
    let path = directory.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener = super::client::by_descriptor(&directory, UnixListener::bind)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).with_context(|| format!("chmod {}", path.display()))?;
    Ok(listener)
}
