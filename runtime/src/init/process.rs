//! The steps that `create` and `exec` share at their end: from the runtime's rights to the process's.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};

use crate::apply::limits::{self, Setter};
use crate::apply::{identity, program, scheduling, seccomp, terminal};
use crate::channel::{Channel, Message};
use crate::plan::process::ProcessPlan;
use crate::plan::seccomp::Filter;
use crate::procfs::Procfs;
use crate::rooted::{Root, clean};

/// What is left to do is to execute this.
pub(super) struct Program {
    /// `None` where there is no process to `start`.
    pub(super) path: Option<CString>,
    pub(super) env: Vec<CString>,
}

/// Carries them out, all but the execution.
pub(super) fn become_process(
    process: &ProcessPlan,
    filter: Option<&Filter>,
    root: &Root,
    procfs: &Procfs,
    parent: &Channel,
    limits: Setter,
) -> Result<Program> {
    // Before a filter may refuse the calls that this takes. Root may enter directories that the
    // user may not, and the other way round on some network file systems.
    let entered = enter_cwd(root, process);
    let mut env = process.env.clone();
    if process.needs_home {
        let home = identity::home(root, process.uid)?;
        env.push(CString::new(format!("HOME={home}")).context("set HOME")?);
    }
    if let Some(warning) = scheduling::set(&process.scheduling)? {
        parent.send(&Message::Warning(warning))?;
    }
    if limits == Setter::Child {
        limits::set_own(&process.limits)?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    } else {
        // Without that flag only CAP_SYS_ADMIN may load a filter: before it goes.
        load_filter(filter, parent)?;
    }
    if let Some(sets) = &process.capabilities {
        identity::bound_capabilities(sets)?;
        rustix::thread::set_keep_capabilities(true).context("prctl(PR_SET_KEEPCAPS)")?;
    }
    own_stdio(process.uid)?;
    identity::become_user(process, procfs)?;
    if entered.is_err() {
        enter_cwd(root, process)?;
    }
    if let Some(sets) = &process.capabilities {
        rustix::thread::set_keep_capabilities(false).context("prctl(PR_SET_KEEPCAPS)")?;
        for warning in identity::set_capabilities(sets)? {
            parent.send(&Message::Warning(warning))?;
        }
    }
    // As the user, whose right to execute is the one that counts.
    let name = process.argv.first();
    let path = name.map(|name| program::find(name, &process.search_path)).transpose()?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    if process.no_new_privileges {
        // As late as possible: what comes after it has to pass.
        load_filter(filter, parent)?;
    }
    Ok(Program { path, env })
}

/// Goes under the filter. Its listener is the parent's to pass on, and has to stay open with us
/// until the parent has it.
fn load_filter(filter: Option<&Filter>, parent: &Channel) -> Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    let Some(listener) = seccomp::load(filter)? else { return Ok(()) };
    parent.send(&Message::Listener(listener.as_raw_fd()))?;
    match parent.receive_plain()? {
        Some(Message::Taken) => Ok(()),
        Some(Message::Send) => parent.send(&Message::Sent(listener)),
        Some(other) => anyhow::bail!("waited for the listener to be taken, got {other:?}"),
        None => anyhow::bail!("waited for the listener to be taken, but the runtime is gone"),
    }
}

fn enter_cwd(root: &Root, process: &ProcessPlan) -> Result<()> {
    let enter = || -> Result<()> {
        let cwd = clean(Path::new(&process.cwd));
        let directory = root.open(&cwd, OFlags::PATH | OFlags::DIRECTORY)?;
        rustix::process::fchdir(&directory)?;
        Ok(())
    };
    enter()
        .with_context(|| format!("chdir to cwd ({:?}) set in config.json failed", process.cwd))?;
    // The kernel shows a directory outside the root as unreachable (CVE-2024-21626).
    let shown = rustix::process::getcwd(Vec::new()).context("getcwd")?;
    if !shown.as_bytes().starts_with(b"/") {
        anyhow::bail!("current working directory is outside of container mount namespace root");
    }
    Ok(())
}

/// Lets the user open /dev/stdout and its like anew.
fn own_stdio(uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        if stat.st_uid == uid || terminal::is_null(&stat) {
            continue;
        }
        match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
            // Soft: a stream on a foreign or read-only file system can be used, if not reopened.
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => {}
            Err(error) => return Err(error).context("chown a standard stream"),
        }
    }
    Ok(())
}
