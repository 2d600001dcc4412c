//! The parent half: records what is about to be made, makes it, and unmakes all of it on failure.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::DumpableBehavior;

use crate::apply::mounts::{CgroupView, HierarchyView};
use crate::cgroup::{Mode, Record};
use crate::init::joining::Join;
use crate::log;
use crate::plan;
use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::seccomp::Filter;
use crate::spec::Linux;
use crate::sys;

mod agent;
mod child;
mod create;
mod exec;
pub(crate) mod files;
pub(crate) mod idmap;
pub(crate) mod mounts;
mod netdevices;
mod placing;
mod serve;
mod sources;
pub(crate) mod undo;

pub(crate) use create::{CreateRequest, create, locate_cgroup, make_cgroup};
pub(crate) use exec::{ExecRequest, exec};

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

/// runc's suite looks for these words, as people do who compare logs.
fn log_clone(pid: i32) {
    log::debug(format_args!("nsexec container setup: pid {pid}"));
    log::debug("child process in init()");
}

fn set_undumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("prctl(PR_SET_DUMPABLE)")
}

fn compile_filter(linux: Option<&Linux>, warnings: &mut Vec<String>) -> Result<Option<Filter>> {
    let Some(written) = linux.and_then(|linux| linux.seccomp.as_ref()) else { return Ok(None) };
    let filter = plan::seccomp::compile(written)?;
    warnings.extend(filter.iter().flat_map(|filter| filter.warnings.iter().cloned()));
    if let Some(filter) = &filter {
        log::debug(format_args!("seccomp filter flags: {}", filter.flags));
        if !filter.unknown.is_empty() {
            log::debug(format_args!(
                "seccomp: no such system calls: {}",
                filter.unknown.join(", ")
            ));
        }
    }
    Ok(filter)
}

fn streams(stdio: &Stdio) -> Option<[BorrowedFd<'_>; 3]> {
    match stdio {
        Stdio::Inherit => None,
        Stdio::Fds(fds) => Some(fds.each_ref().map(AsFd::as_fd)),
    }
}

/// Enters the pid namespace for the child's sake, or names what a process in between has to join:
/// without privilege on the host only those of the container's user namespace may enter it.
fn join_pids(init: BorrowedFd, namespaces: u64) -> Result<u64> {
    let (pids, users) = (Kind::Pid.flag(), Kind::User.flag());
    if namespaces & pids == 0 {
        return Ok(0);
    }
    match sys::join_namespaces(init, pids) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && namespaces & users != 0 => {
            Ok(pids | users)
        }
        joined => {
            joined.context("join the container's pid namespace")?;
            Ok(0)
        }
    }
}

fn own_pid_namespace() -> Result<Join> {
    let namespace = std::fs::File::open("/proc/self/ns/pid").context("open our pid namespace")?;
    Ok(Join { kind: Kind::Pid, namespace: namespace.into() })
}

/// What a mount of type `cgroup` is to show, by the container's directories.
pub(crate) fn cgroup_view(mode: Mode, paths: Record, namespaces: &Namespaces) -> CgroupView {
    let namespaced = namespaces.has(Kind::Cgroup);
    let mut hierarchies: Vec<HierarchyView> = Vec::new();
    for (controller, path) in paths {
        let own = PathBuf::from(path);
        if controller.is_empty() {
            if mode == Mode::V2 {
                return CgroupView::V2 { own, namespaced };
            }
            continue;
        }
        match hierarchies.iter_mut().find(|hierarchy| hierarchy.own == own) {
            Some(hierarchy) => hierarchy.controllers.push(controller),
            None => hierarchies.push(HierarchyView { controllers: vec![controller], own }),
        }
    }
    if hierarchies.is_empty() {
        return CgroupView::Absent;
    }
    CgroupView::V1 { hierarchies, namespaced }
}
