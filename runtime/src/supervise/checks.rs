//! When the container's health is checked. The supervisor keeps the time; a child of its, the nurse,
//! does the rest.

use std::time::Instant;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::WaitStatus;

use super::Settings;
use super::attend::fork;
use super::nurse;
use crate::sys;

/// By which the nurse says that the container is not known to be healthy or unhealthy yet.
const STILL_STARTING: i32 = 1;

/// The checks of a container that runs.
#[derive(Debug, Default)]
pub(super) struct Checks {
    next: Option<Instant>,
    /// Since when the container runs.
    since: Option<Instant>,
    nurse: Option<i32>,
}

impl Checks {
    /// The container has begun to run.
    pub(super) fn begin(&mut self, settings: &Settings) {
        self.since = Some(Instant::now());
        self.plan(settings, true);
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
            self.nurse = Some(fork(|| {
                if nurse::look(settings) {
                    sys::exit_now(STILL_STARTING);
                }
            })?);
        }
        Ok(())
    }

    /// A child has ended; whether it was the nurse.
    pub(super) fn gone(
        &mut self,
        pid: i32,
        status: WaitStatus,
        settings: &Settings,
        running: bool,
    ) -> bool {
        if self.nurse != Some(pid) {
            return false;
        }
        self.nurse = None;
        if running {
            self.plan(settings, status.exit_status() == Some(STILL_STARTING));
        }
        true
    }

    /// Sets the time of the next check.
    fn plan(&mut self, settings: &Settings, starting: bool) {
        let age = self.since.map(|since| since.elapsed()).unwrap_or_default();
        let pause = settings.check.as_ref().map(|check| match starting {
            true => check.start_interval(age),
            false => check.interval(),
        });
        self.next = pause.map(|pause| Instant::now() + pause);
    }
}
