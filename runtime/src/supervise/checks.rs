//! When the container's health is checked. The supervisor keeps the time; a child of its, the nurse,
//! does the rest.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Settings;
use super::attend::fork;
use super::nurse;
use crate::records::health::Check;

/// The checks of a container that runs.
#[derive(Debug, Default)]
pub(super) struct Checks {
    next: Option<Instant>,
    nurse: Option<i32>,
}

impl Checks {
    /// The container has begun to run.
    pub(super) fn begin(&mut self, settings: &Settings) {
        self.next = pause(settings).map(|pause| Instant::now() + pause);
    }

    /// Its first process is gone. What the nurse has running in it goes with it.
    pub(super) fn end(&mut self) {
        self.next = None;
        if let Some(nurse) = self.nurse {
            // It is our child, and not yet waited for: the number is still its.
            let _ = kill(Pid::from_raw(nurse), Signal::SIGKILL);
        }
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Does it.
    pub(super) fn step(&mut self, settings: &Settings) -> Result<()> {
        if self.next.is_some_and(|at| Instant::now() >= at) {
            self.next = None;
            self.nurse = Some(fork(|| nurse::look(settings))?);
        }
        Ok(())
    }

    /// A child has ended; whether it was the nurse.
    pub(super) fn gone(&mut self, pid: i32, settings: &Settings, running: bool) -> bool {
        if self.nurse != Some(pid) {
            return false;
        }
        self.nurse = None;
        if running {
            self.begin(settings);
        }
        true
    }
}

fn pause(settings: &Settings) -> Option<Duration> {
    settings.check.as_ref().map(Check::interval)
}
