//! Word of processes that the kernel kills for want of memory.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use rustix::io::Errno;

use super::files::Dir;
use super::{Cgroup, Mode};

/// Readable when there may be news.
#[derive(Debug)]
pub(crate) struct OomWatch(Source);

#[derive(Debug)]
enum Source {
    /// The kernel counts on this descriptor; the file has to stay open.
    V1 { events: OwnedFd, _control: File },
    /// The file with the count changes.
    V2 { changes: OwnedFd, dir: Dir, kills: u64 },
}

impl Cgroup {
    /// Watches from now on; `None` without a memory controller.
    pub(crate) fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let Some(hierarchy) = self.hierarchy("memory") else { return Ok(None) };
        let Some(dir) = Dir::open_if_exists(&hierarchy.path)? else { return Ok(None) };
        match self.mode {
            Mode::V1 | Mode::Hybrid => watch_v1(&dir).map(Some),
            Mode::V2 => watch_v2(dir),
        }
    }
}

fn watch_v1(dir: &Dir) -> Result<OomWatch> {
    let control = dir.open_file("memory.oom_control")?;
    let events = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .context("eventfd")?;
    let request = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
    dir.write("cgroup.event_control", &request)?;
    Ok(OomWatch(Source::V1 { events, _control: control }))
}

fn watch_v2(dir: Dir) -> Result<Option<OomWatch>> {
    if !dir.exists("memory.events")? {
        return Ok(None);
    }
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let changes = inotify::init(flags).context("inotify_init")?;
    inotify::add_watch(&changes, dir.path.join("memory.events"), inotify::WatchFlags::MODIFY)
        .context("watch memory.events")?;
    let kills = kills_v2(&dir)?;
    Ok(Some(OomWatch(Source::V2 { changes, dir, kills })))
}

fn kills_v2(dir: &Dir) -> Result<u64> {
    Ok(super::stats::value(&super::stats::table(dir, "memory.events")?, "oom_kill"))
}

impl OomWatch {
    /// How many have been killed since the last call. v1 also counts the cgroup's own removal,
    /// which is no kill.
    pub(crate) fn take(&mut self, cgroup: &Cgroup) -> Result<u64> {
        match &mut self.0 {
            Source::V1 { events, .. } => {
                let mut count = [0; 8];
                match rustix::io::read(&*events, &mut count) {
                    Ok(_) if cgroup.exists()? => Ok(u64::from_ne_bytes(count)),
                    Ok(_) | Err(Errno::AGAIN) => Ok(0),
                    Err(errno) => Err(errno).context("read eventfd"),
                }
            }
            Source::V2 { changes, dir, kills } => {
                let mut buffer = [0; 1024];
                match rustix::io::read(&*changes, &mut buffer) {
                    Ok(_) | Err(Errno::AGAIN) => {}
                    Err(errno) => return Err(errno).context("read inotify"),
                }
                let now = kills_v2(dir)?;
                let new = now.saturating_sub(*kills);
                *kills = now.max(*kills);
                Ok(new)
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::V1 { events, .. } => events.as_fd(),
            Source::V2 { changes, .. } => changes.as_fd(),
        }
    }
}
