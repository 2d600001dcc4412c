//! `checkpoint` and `restore`: the saved life of a container.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::create::{absolute, console};
use super::delete;
use crate::args::{Checkpoint, Images, Restore};
use crate::bundle::Bundle;
use crate::criu::{dump, restore};
use crate::error;
use crate::foreground::{self, Foreground};
use crate::host::Host;
use crate::log;
use crate::plan::criu as plan;
use crate::spawn::{Console, Spawned, Stdio};
use crate::state::{self, StateStore, Status};

pub(super) fn checkpoint(args: &Checkpoint, host: &Host, store: &StateStore) -> Result<u8> {
    warn_rootless(host, "checkpoint");
    let record = store.load(&args.id)?;
    let claim = store.claim(&args.id)?;
    let status = state::status(store, &record)?;
    if matches!(status, Status::Created | Status::Stopped) {
        bail!("Container cannot be checkpointed in {status} state");
    }
    args.check()?;
    let spec = store.load_spec(&args.id)?;
    let options = plan::checkpoint(args, &spec)?;
    let paths = Paths::new(&args.images)?;
    if let Some(parent) = args.parent() {
        check_parent(&paths.images, parent)?;
    }
    let stays = options.leave_running || args.pre_dump;
    dump::checkpoint(&dump::Request {
        record: &record,
        spec: &spec,
        options,
        images: &paths.images,
        work: paths.work.as_deref(),
        pre_dump: args.pre_dump,
        status_fd: args.status_fd,
    })?;
    // It is saved, whatever becomes of what is left of it: a delete goes on with that.
    if !stays && let Err(error) = delete::destroy_by_id(&args.id, store) {
        log::warn(error::render(&error));
    }
    drop(claim);
    Ok(0)
}

/// As the user stands, before anything changes the directory.
struct Paths {
    images: PathBuf,
    work: Option<PathBuf>,
}

impl Paths {
    fn new(images: &Images) -> Result<Self> {
        let directory = images.directory();
        Ok(Paths {
            images: std::path::absolute(directory)
                .with_context(|| format!("resolve {}", directory.display()))?,
            work: absolute(images.work().map(Path::to_owned))?,
        })
    }
}

/// Before the directory of the images is made: it then has nothing but itself on the way up.
fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    let path = images.join(parent);
    let path = if images.exists() { path } else { clean(&path) };
    let metadata = std::fs::metadata(&path)
        .with_context(|| format!("invalid --parent-path: stat {}", path.display()))?;
    if !metadata.is_dir() {
        bail!("invalid --parent-path: {} is no directory", path.display());
    }
    Ok(())
}

fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean
}

pub(super) fn restore(args: &Restore, host: &Host, store: &StateStore) -> Result<u8> {
    warn_rootless(host, "restore");
    args.images.check()?;
    let paths = Paths::new(&args.images)?;
    let socket = absolute(args.console_socket.clone())?;
    let pid_file = absolute(args.pid_file.clone())?;
    let bundle = Bundle::enter(args.bundle.as_deref().unwrap_or(Path::new(".")), None)?;
    let terminal = bundle.spec.process.as_ref().is_some_and(|process| process.terminal);
    let console = console(terminal, args.detach, socket.as_deref())?;
    let setting = Setting { args, paths, pid_file, bundle, host, store };
    if args.detach {
        setting.restore(console, Stdio::Inherit)?;
        return Ok(0);
    }
    let (ours, theirs) = foreground::stdio(terminal, &setting.bundle.spec)?;
    let mut foreground = Foreground::new(ours, !args.no_subreaper)?;
    let spawned = setting.restore(console, theirs)?;
    let outcome = foreground.wait(spawned);
    let destroyed = delete::destroy_by_id(&args.id, store);
    drop(foreground);
    let code = outcome?;
    destroyed?;
    Ok(code)
}

/// The request of `restore`, with absolute paths.
struct Setting<'a> {
    args: &'a Restore,
    paths: Paths,
    pid_file: Option<PathBuf>,
    bundle: Bundle,
    host: &'a Host,
    store: &'a StateStore,
}

impl Setting<'_> {
    fn restore(&self, console: Console, stdio: Stdio) -> Result<Spawned> {
        let spawned = restore::restore(&restore::Request {
            id: &self.args.id,
            bundle: &self.bundle,
            host: self.host,
            store: self.store,
            options: plan::restore(self.args, &self.bundle.spec)?,
            images: &self.paths.images,
            work: self.paths.work.as_deref(),
            no_pivot: self.args.no_pivot,
            console,
            stdio,
            pid_file: self.pid_file.clone(),
        })?;
        for warning in &spawned.warnings {
            log::warn(warning);
        }
        Ok(spawned)
    }
}

fn warn_rootless(host: &Host, verb: &str) {
    if host.euid != 0 || host.in_userns {
        let name = host.program.name();
        log::warn(format_args!("{name} {verb} is untested with rootless containers"));
    }
}
