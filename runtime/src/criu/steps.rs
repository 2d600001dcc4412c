//! What is done at the steps of a restore that CRIU tells of.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags};

use super::swrk::Step;
use crate::hooks;
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::spawn::files;
use crate::state::{self, Record, StateStore, Status};

/// What the steps need, and what comes of them.
pub(super) struct Steps<'a> {
    pub(super) store: &'a StateStore,
    pub(super) plan: &'a Plan,
    /// Who gets the terminal, if not our caller.
    pub(super) socket: Option<&'a OwnedFd>,
    pub(super) record: Record,
    pub(super) hooks_ran: &'a mut bool,
    /// The restored process, from the moment on that it is known.
    pub(super) init: &'a mut Option<OwnedFd>,
    /// Its terminal's other end.
    pub(super) console: Option<OwnedFd>,
}

impl Steps<'_> {
    pub(super) fn take(&mut self, step: Step) -> Result<()> {
        match step.name {
            "setup-namespaces" => self.run_hooks(step.pid.context("criu tells no process")?),
            "post-restore" => self.note_process(step.pid.context("criu tells no process")?),
            "orphan-pts-master" => {
                self.hand_over(step.descriptor.context("criu sends no terminal")?)
            }
            _ => Ok(()),
        }
    }

    /// The namespaces are there, and nothing in them: what makes the network is to make it now.
    fn run_hooks(&mut self, pid: i32) -> Result<()> {
        let (hooks, directory) = (&self.plan.hooks, &self.plan.bundle);
        let state = state::hook_document(&self.record, Status::Creating, pid)?;
        *self.hooks_ran = true;
        hooks::run("prestart", &hooks.prestart, &state, directory)?;
        hooks::run("createRuntime", &hooks.create_runtime, &state, directory)
    }

    /// Its processes stand still until we have answered.
    fn note_process(&mut self, pid: i32) -> Result<()> {
        let handle = Pid::from_raw(pid).context("criu tells no process")?;
        // It is our child: even dead, it keeps its pid until we wait for it.
        *self.init = Some(
            rustix::process::pidfd_open(handle, PidfdFlags::empty())
                .context("pidfd_open of the restored process")?,
        );
        self.record.set_process(pid)?;
        // CRIU restores into a time namespace, so that clocks go on as if nothing had been: whoever
        // joins the container later is to see the same time.
        let time = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/time")).ok();
        let kind = Kind::Time;
        if !self.plan.namespaces.has(kind) && time(&pid.to_string()) != time("self") {
            self.record.add_namespace(kind.name());
            self.store.save_namespace(&self.record.id, kind.name())?;
        }
        self.store.save(&self.record)
    }

    fn hand_over(&mut self, master: OwnedFd) -> Result<()> {
        let Some(socket) = self.socket else {
            self.console = Some(master);
            return Ok(());
        };
        let name = rustix::pty::ptsname(&master, Vec::new()).context("name the terminal")?;
        files::send_descriptor(socket.as_fd(), master.as_fd(), name.as_bytes())
            .context("send the terminal to the console socket")
    }
}
