//! `exec`: a further process in a container.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags};

use super::child::Child;
use super::placing::{self, Forked};
use super::serve::{self, ExecveFailed, Outcome, Station};
use super::undo::Made;
use super::{
    SpawnOptions, Spawned, compile_filter, files, join_pids, log_clone, set_undumpable, streams,
};
use crate::apply::limits::Setter;
use crate::apply::scheduling::Borrowed;
use crate::cgroup::Cgroup;
use crate::channel::{Channel, Message};
use crate::host::Host;
use crate::init;
use crate::log;
use crate::plan;
use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::process::ProcessPlan;
use crate::plan::seccomp::Filter;
use crate::resctrl::Class;
use crate::spec::{Linux, Process, Spec};
use crate::state::{Record, Status};
use crate::sys::Cloned;
use crate::validate;

/// All that `exec` needs to know; status checks are the caller's.
pub(crate) struct ExecRequest<'a> {
    pub(crate) host: &'a Host,
    /// The container's record, with a live init.
    pub(crate) record: &'a Record,
    /// The container's own config.json.
    pub(crate) spec: &'a Spec,
    /// The process to run, flags already merged in.
    pub(crate) process: &'a Process,
    /// `--cgroup`, as given: `[controllers:]path` each.
    pub(crate) sub_cgroups: &'a [String],
    pub(crate) options: SpawnOptions,
}

/// Runs a further process in a container.
pub(crate) fn exec(request: &ExecRequest) -> Result<Spawned> {
    let options = &request.options;
    files::check_preserved(options.preserve_fds)?;
    validate::joining_process(request.process)?;
    let mut warnings = Vec::new();
    let linux = request.spec.linux.as_ref();
    let empty = Linux::default();
    let mut process = plan::process::plan(request.process, linux.unwrap_or(&empty), &mut warnings)?;
    if let Some(first) = &request.spec.process {
        process.inherit_labels(first);
    }
    let filter = compile_filter(linux, &mut warnings)?;
    let mut cgroup = {
        let init = request.record.init_process_pid;
        request.record.cgroup().for_exec(request.sub_cgroups, init)?
    };
    let mut made = Made::default();
    match exec_made(request, &process, filter.as_ref(), &mut cgroup, &mut made) {
        Ok(mut spawned) => {
            spawned.warnings.splice(0..0, warnings);
            Ok(spawned)
        }
        Err(error) if error.is::<ExecveFailed>() => Err(made.unmake(&cgroup, error)),
        Err(error) => Err(made.unmake(&cgroup, error).context("unable to start container process")),
    }
}

fn exec_made(
    request: &ExecRequest,
    process: &ProcessPlan,
    filter: Option<&Filter>,
    cgroup: &mut Cgroup,
    made: &mut Made,
) -> Result<Spawned> {
    let options = &request.options;
    let setter = Setter::choose()?;
    let console = files::connect_console(&options.console, process.terminal)?;
    let pidfd_socket = options.pidfd_socket.as_deref().map(files::connect).transpose()?;
    let init = Pid::from_raw(request.record.init_process_pid).context("container not running")?;
    let init = rustix::process::pidfd_open(init, PidfdFlags::empty())
        .context("pidfd_open of the container's init")?;
    let empty = Linux::default();
    let namespaces = Namespaces::plan(request.spec.linux.as_ref().unwrap_or(&empty))?;
    let flags = namespaces.all_flags();
    // Seen in the container from its first moment on, and not to be looked into (CVE-2016-9962).
    set_undumpable()?;
    let relayed = join_pids(init.as_fd(), flags)?;
    let keyring = plan::keyring(&request.record.id, options.no_new_keyring)?;
    let (ours, theirs) = Channel::pair()?;
    let directory = cgroup.dir_fd().context("can't open cgroup")?;
    let into = directory.as_ref().map(AsFd::as_fd);
    let class = Class::of(request.record, request.spec)?;
    let initial = process.scheduling.affinity.initial.as_deref();
    let borrowed = initial.map(Borrowed::take).transpose()?;
    let Forked { cloned, placed: in_cgroup } = placing::fork(0, into).context("clone3")?;
    // Nothing but the cgroup can be had from the start; for the rest the child waits, lest it be the
    // program before it has that.
    let placed = in_cgroup && class.is_none() && process.oom_score_adj.is_none();
    let child = match cloned {
        Cloned::Child => {
            drop(ours);
            init::exec(init::Exec {
                process,
                filter,
                channel: theirs,
                init: init.as_fd(),
                relayed,
                namespaces: flags & !Kind::Pid.flag() & !relayed,
                keyring: keyring.as_ref(),
                preserve_fds: options.preserve_fds,
                stdio: streams(&options.stdio),
                limits: setter,
                placed,
            })
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            made.child.insert(Child { pid, pidfd, channel: ours })
        }
    };
    if relayed != 0 {
        child.follow_relay()?;
    }
    log_clone(child.pid);
    if let Some(borrowed) = borrowed {
        borrowed.give_back()?;
    }
    if let Some(mask) = initial {
        // In the words that runc's suite looks for.
        let mask = mask.first().copied().unwrap_or_default();
        log::debug(format_args!("nsexec[{}]: affinity: {mask:#x}", child.pid));
    }
    if !in_cgroup {
        cgroup.enter(child.pid).with_context(|| format!("adding pid {} to cgroups", child.pid))?;
    }
    if let Some(class) = class {
        class.enter(child.pid)?;
    }
    files::set_oom_score(child.pid, process.oom_score_adj, request.host)?;
    if !placed {
        child.tell(&Message::Placed)?;
    }
    let mut outcome = Outcome::default();
    let station =
        Station { record: request.record, console, filter, cgroup, status: Status::Running };
    let limits = if setter == Setter::Parent { process.limits.as_slice() } else { &[] };
    serve::exec(child, &station, limits, &mut outcome)?;
    files::publish(options.pid_file.as_deref(), child.pid)?;
    if let Some(socket) = pidfd_socket {
        files::send_descriptor(socket.as_fd(), child.as_fd(), b"setns")?;
    }
    Ok(outcome.spawned(made.keep()?))
}
