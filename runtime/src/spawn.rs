//! The parent half: records what is about to be made, makes it, and unmakes all of it on failure.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Result;

use crate::bundle::Bundle;
use crate::host::Host;
use crate::spec::{Process, Spec};
use crate::state::{Record, StateStore};

pub(crate) mod agent;

/// Where the container's process gets fds 0, 1 and 2 from when it has no terminal.
pub(crate) enum Stdio {
    /// Ours, as they are.
    Inherit,
    /// These, in this order; ours are closed in the parent once the child has them.
    Fds([OwnedFd; 3]),
}

/// What becomes of the master side of the terminal.
pub(crate) enum Console {
    /// It is sent through this socket.
    Socket(PathBuf),
    /// It is returned to the caller.
    Returned,
}

/// What the flags of `create`, `run` and `exec` have in common.
pub(crate) struct SpawnOptions {
    /// Used only if the process wants a terminal.
    pub(crate) console: Console,
    pub(crate) stdio: Stdio,
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Made absolute by the caller.
    pub(crate) pid_file: Option<PathBuf>,
    /// This many fds from 3 on pass through to the container's process.
    pub(crate) preserve_fds: u32,
    pub(crate) no_new_keyring: bool,
}

/// All that `create` needs to know.
pub(crate) struct CreateRequest<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Bundle,
    pub(crate) host: &'a Host,
    pub(crate) store: &'a StateStore,
    pub(crate) no_pivot: bool,
    pub(crate) options: SpawnOptions,
}

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

/// A process in a container.
pub(crate) struct Spawned {
    /// As the host sees it.
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// The master side of its terminal, if it has one and the caller asked for it.
    pub(crate) console: Option<OwnedFd>,
    /// What was left undone, as runc leaves it, for the caller to log.
    pub(crate) warnings: Vec<String>,
}

/// Makes a container.
pub(crate) fn create(request: &CreateRequest) -> Result<Spawned> {
    anyhow::bail!("container {} can't be made yet", request.id)
}

/// Runs one more process in a container.
pub(crate) fn exec(request: &ExecRequest) -> Result<Spawned> {
    anyhow::bail!("container {} can't be entered yet", request.record.id)
}
