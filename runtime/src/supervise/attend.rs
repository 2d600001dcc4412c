//! The stations of a container's life, and how its supervisor takes it from one to the next.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use rustix::process::WaitStatus;
use rustix::termios::{Winsize, tcsetwinsize};

use super::birth::{self, Coming, Line};
use super::burial::{self, End};
use super::frame::Kind;
use super::streams::Streams;
use super::supervisor::Supervisor;
use crate::foreground;
use crate::state;
use crate::sys::pidfd::pidfd_send_signal;
use crate::sys::{self, Cloned, Parent};

/// What a start that failed counts as, for the policy and the record.
const FAILED: u8 = 125;

/// The container's first process.
pub(super) struct Init {
    pid: i32,
    pidfd: OwnedFd,
    since: Instant,
    status: Option<WaitStatus>,
}

pub(super) enum Stage {
    /// The midwife is at work.
    Birth(Birth),
    Running(Init),
    /// The first process is gone; what it has written is still to be read.
    Draining {
        code: u8,
        at: SystemTime,
        lived: Duration,
        silent: bool,
    },
    /// The undertaker is at work.
    Burial {
        undertaker: i32,
        code: u8,
        restart_in: Option<Duration>,
        done: bool,
    },
    /// Until the next start.
    Pause {
        until: Instant,
    },
    Over,
}

pub(super) struct Birth {
    midwife: i32,
    line: Line,
    pub(super) coming: Coming,
    init: Option<Init>,
    started: bool,
    failure: Option<String>,
    midwife_gone: bool,
}

impl Stage {
    /// The line to the midwife.
    pub(super) fn line(&self) -> Option<&Line> {
        match self {
            Stage::Birth(birth) => Some(&birth.line),
            _ => None,
        }
    }

    pub(super) fn birth(&mut self) -> Option<&mut Birth> {
        match self {
            Stage::Birth(birth) => Some(birth),
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Stage::Pause { until } => Some(*until),
            _ => None,
        }
    }

    /// The container's process, once it runs.
    pub(super) fn init(&self) -> Option<&OwnedFd> {
        match self {
            Stage::Running(init) => Some(&init.pidfd),
            _ => None,
        }
    }

    /// There is no more output for now.
    pub(super) fn note_silence(&mut self) {
        if let Stage::Draining { silent, .. } = self {
            *silent = true;
        }
    }
}

impl Birth {
    pub(super) fn hear(&self) -> Result<birth::News> {
        self.line.hear()
    }

    pub(super) fn note_started(&mut self) {
        self.started = true;
    }

    pub(super) fn note_failure(&mut self, text: String) {
        self.failure = Some(text);
    }
}

impl Supervisor {
    /// Starts the container, in a child.
    pub(super) fn begin(&mut self) -> Result<()> {
        let (line, theirs) = Line::pair()?;
        let supervisor = i32::try_from(std::process::id()).context("our pid")?;
        let (settings, restarts) = (&self.settings, self.restarts);
        let midwife = fork(|| birth::midwife(settings, supervisor, restarts, &theirs))?;
        let coming = Coming::default();
        self.stage = Stage::Birth(Birth {
            midwife,
            line,
            coming,
            init: None,
            started: false,
            failure: None,
            midwife_gone: false,
        });
        Ok(())
    }

    /// The container is made and waits for its start.
    pub(super) fn born(&mut self, pid: i32) -> Result<()> {
        let Some(birth) = self.stage.birth() else { return Ok(()) };
        self.streams = Streams::new(std::mem::take(&mut birth.coming).ends()?)?;
        let pidfd = state::open_process(pid)?.context("the container's process is gone")?;
        birth.init = Some(Init { pid, pidfd, since: Instant::now(), status: None });
        Ok(())
    }

    /// One of our children has ended, or what the container has left to us.
    pub(super) fn gone(&mut self, pid: i32, status: WaitStatus) {
        if self.checks.gone(pid, status, &self.settings, self.stage.init().is_some()) {
            return;
        }
        match &mut self.stage {
            Stage::Birth(birth) if birth.midwife == pid => birth.midwife_gone = true,
            Stage::Birth(Birth { init: Some(init), .. }) | Stage::Running(init)
                if init.pid == pid =>
            {
                init.status = Some(status);
            }
            Stage::Burial { undertaker, done, .. } if *undertaker == pid => *done = true,
            _ => {}
        }
    }

    /// Goes on to the next station if it is time; false if it is not.
    pub(super) fn advance(&mut self) -> Result<bool> {
        let before = std::mem::discriminant(&self.stage);
        if self.kill_at.is_some_and(|at| Instant::now() >= at) {
            self.kill_at = None;
            self.pass_on(libc::SIGKILL);
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Birth(birth) if birth.midwife_gone => self.settle(birth)?,
            Stage::Running(Init { status: Some(status), since, .. }) => {
                self.checks.end();
                self.streams.first_process_is_gone();
                let code = foreground::exit_code(status);
                let (at, lived) = (SystemTime::now(), since.elapsed());
                Stage::Draining { code, at, lived, silent: false }
            }
            Stage::Draining { code, at, lived, silent: true } => {
                self.streams = Streams::default();
                self.bury(code, at, lived, None)?
            }
            Stage::Burial { code, restart_in, done: true, .. } => {
                self.over(code);
                match restart_in {
                    Some(pause) => Stage::Pause { until: Instant::now() + pause },
                    None => Stage::Over,
                }
            }
            Stage::Pause { .. } if self.ending => {
                self.remove_socket();
                Stage::Over
            }
            Stage::Pause { until } if Instant::now() >= until => {
                self.restarts += 1;
                self.begin()?;
                return Ok(true);
            }
            stays => stays,
        };
        if self.stage.init().is_some() {
            self.pass_on_early();
        }
        Ok(before != std::mem::discriminant(&self.stage))
    }

    /// The midwife is gone: it has started the container, or has not.
    fn settle(&mut self, birth: Birth) -> Result<Stage> {
        if birth.started
            && let Some(init) = birth.init
        {
            self.clients.tell_first(Kind::Started, &[]);
            // After the word to the caller, who need not wait for the disk.
            self.log.broken |= self.records.sync(&self.settings.id).is_err();
            self.checks.begin(&self.settings);
            return Ok(Stage::Running(init));
        }
        let killed = || "the process that makes the container was killed".to_owned();
        let failure = birth.failure.unwrap_or_else(killed);
        self.clients.tell_first(Kind::Failed, failure.as_bytes());
        self.streams = Streams::default();
        if self.restarts == 0 && birth.init.is_none() {
            self.over(FAILED);
            return Ok(Stage::Over);
        }
        if let Some(init) = birth.init {
            // One that is gone needs no end.
            let _ = pidfd_send_signal(init.pidfd.as_fd(), libc::SIGKILL);
        }
        self.bury(FAILED, SystemTime::now(), Duration::ZERO, Some(&failure))
    }

    /// Has the end recorded, in a child, and decides on what comes then.
    fn bury(
        &mut self,
        code: u8,
        at: SystemTime,
        lived: Duration,
        failure: Option<&str>,
    ) -> Result<Stage> {
        let settings = &self.settings;
        let asked = self.ending || self.records.is_marked_stopped(&settings.id);
        let again = !asked && settings.restart.wants(code, self.restarts);
        let restart_in = again.then(|| self.back_off.pause(lived));
        if !again {
            // Before the record says that another supervisor may come, whose socket it would be.
            self.remove_socket();
        }
        let end = End { code, at, restarting: again, log_broken: self.log.broken };
        let undertaker = fork(|| burial::undertaker(settings, end, failure))?;
        Ok(Stage::Burial { undertaker, code, restart_in, done: false })
    }
}

/// A child that does one thing and exits; signals do to it what they do to anybody.
pub(super) fn fork(work: impl FnOnce()) -> Result<i32> {
    match sys::clone3(0, None, Parent::Caller).context("clone3")? {
        Cloned::Parent { pid, .. } => Ok(pid),
        Cloned::Child => {
            if SigSet::empty().thread_set_mask().is_ok() {
                work();
            }
            sys::exit_now(0);
        }
    }
}

/// Gives the terminal another size; its programs are told by the kernel.
pub(super) fn resize(master: Option<&OwnedFd>, rows: u16, columns: u16) {
    if let Some(master) = master {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // A terminal that has gone has no size.
        let _ = tcsetwinsize(master, size);
    }
}
