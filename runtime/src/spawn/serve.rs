//! The parent's side of the protocol once the child runs by itself.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::process::WaitIdStatus;
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr};

use super::child::Child;
use super::{Spawned, agent, files, netdevices, sources};
use crate::apply::limits;
use crate::cgroup::Cgroup;
use crate::channel::Message;
use crate::hooks;
use crate::log;
use crate::plan::Plan;
use crate::plan::process::LimitPlan;
use crate::plan::seccomp::Filter;
use crate::state::{self, Record, Status};

/// What the answers to the child need.
pub(super) struct Station<'a> {
    pub(super) record: &'a Record,
    /// Where the terminal goes, if not to the caller.
    pub(super) console: Option<OwnedFd>,
    pub(super) filter: Option<&'a Filter>,
    pub(super) cgroup: &'a Cgroup,
    /// What the container is meanwhile.
    pub(super) status: Status,
}

/// What the child has handed over.
#[derive(Default)]
pub(super) struct Outcome {
    console: Option<OwnedFd>,
    pub(super) warnings: Vec<String>,
}

impl Outcome {
    pub(super) fn spawned(self, (pid, pidfd): (i32, OwnedFd)) -> Spawned {
        Spawned { pid, pidfd, console: self.console, warnings: self.warnings }
    }
}

/// Serves the first process of a container until it waits for `start`.
pub(super) fn create(
    child: &Child,
    station: &Station,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<()> {
    loop {
        match child.channel.receive()? {
            Some(Message::Source(index)) => {
                child.tell(&Message::Tree(sources::open(child, plan, index)?))?;
            }
            Some(Message::Prepared) => {
                netdevices::attach(&plan.net_devices, child.pid)?;
                run_hooks(child.pid, station.record, plan)?;
                child.tell(&Message::Proceed)?;
            }
            Some(Message::Ready) => {
                log::debug("init: closing the pipe to signal completion");
                return Ok(());
            }
            Some(Message::Failed(text)) => bail!("error during container init: {text}"),
            Some(other) => hand_over(other, child, station, outcome)?,
            None => return death(child, station.cgroup),
        }
    }
}

/// Serves a process that joins a container until it has become the program; `limits` are those
/// that it does not set itself.
pub(super) fn exec(
    child: &Child,
    station: &Station,
    limits: &[LimitPlan],
    outcome: &mut Outcome,
) -> Result<()> {
    let mut ready = false;
    loop {
        match child.channel.receive()? {
            Some(Message::Ready) => {
                ready = true;
                log::debug("setns_init: about to exec");
                if !limits.is_empty() {
                    limits::set(child.pid, limits)?;
                    child.tell(&Message::Proceed)?;
                }
            }
            Some(Message::Failed(text)) if ready => return Err(ExecveFailed(text).into()),
            Some(Message::Failed(text)) => bail!(text),
            Some(other) => hand_over(other, child, station, outcome)?,
            // Closed by execve.
            None if ready => return Ok(()),
            None => return death(child, station.cgroup),
        }
    }
}

fn hand_over(
    message: Message,
    child: &Child,
    station: &Station,
    outcome: &mut Outcome,
) -> Result<()> {
    match message {
        Message::Console(master) => match &station.console {
            Some(socket) => {
                let name =
                    rustix::pty::ptsname(&master, Vec::new()).context("name the terminal")?;
                files::send_descriptor(socket.as_fd(), master.as_fd(), name.as_bytes())
                    .context("send the terminal to the console socket")
            }
            None => {
                keep_newlines(&master)?;
                outcome.console = Some(master);
                Ok(())
            }
        },
        Message::Listener(number) => match child.take_descriptor(number) {
            Ok(listener) => {
                // At once: a call of the child's may already wait for the agent.
                child.tell(&Message::Taken)?;
                notify_agent(&listener, child.pid, station)
            }
            // To take it is to trace the child, which a user without rights over it may not.
            Err(rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) => child.tell(&Message::Send),
            Err(error) => Err(error).context("pidfd_getfd of the seccomp listener"),
        },
        Message::Sent(listener) => notify_agent(&listener, child.pid, station),
        Message::Warning(text) => {
            outcome.warnings.push(text);
            Ok(())
        }
        other => bail!("unexpected message {other:?}"),
    }
}

/// Whoever reads our stdout wants the container's newlines, not those of a terminal.
fn keep_newlines(master: &OwnedFd) -> Result<()> {
    let mut modes = tcgetattr(master).context("tcgetattr of the container's terminal")?;
    modes.output_modes.remove(OutputModes::ONLCR);
    tcsetattr(master, OptionalActions::Now, &modes).context("tcsetattr of the container's terminal")
}

/// Everything was in place but the program itself: the kernel's word alone is what is wanted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ExecveFailed(String);

fn run_hooks(pid: i32, record: &Record, plan: &Plan) -> Result<()> {
    // In the spec's lifecycle `created` begins after step 2, and prestart is step 3: hooks of its
    // age ran at `start` and know no `creating`. The later ones see what runc shows them.
    let created = state::hook_document(record, Status::Created, pid)?;
    let state = state::hook_document(record, Status::Creating, pid)?;
    hooks::run("prestart", &plan.hooks.prestart, &created, &plan.bundle)
        .and_then(|()| {
            hooks::run("createRuntime", &plan.hooks.create_runtime, &state, &plan.bundle)
        })
        .context("error during container init")
}

/// Hands the listener of the filter to the agent that decides for the kernel.
fn notify_agent(listener: &OwnedFd, pid: i32, station: &Station) -> Result<()> {
    let wanted = station.filter.and_then(|filter| filter.listener.as_ref());
    let wanted = wanted.context("the filter has a listener that nobody asked for")?;
    let init = station.record.init_process_pid;
    let state = state::hook_document(station.record, station.status, init)?;
    let version = &station.record.config.version;
    agent::hand_over(wanted, listener.as_fd(), version, pid, &state)
}

/// It left no word: the kernel's has to do.
fn death(child: &Child, cgroup: &Cgroup) -> Result<()> {
    let status = child.wait()?;
    if status.as_ref().is_some_and(WaitIdStatus::killed) && files::oom_killed(cgroup) {
        bail!("container init was OOM-killed (memory limit too low?)");
    }
    let how = match status {
        Some(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no exit status".to_owned(),
        },
        None => "no exit status".to_owned(),
    };
    bail!("container init died before it was ready: {how}")
}
