//! Freezing and thawing: v1's freezer hierarchy, or the file of the unified one.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::files::{Dir, is_gone};
use super::{Cgroup, pause};

/// As long as runc waits.
const FREEZE_TIME: Duration = Duration::from_secs(10);
/// A v1 freezer misses tasks that are being forked; writing the state again catches them.
const V1_ATTEMPTS: u32 = 1000;
const V1_THAW_EVERY: u32 = 50;
const V1_THAW_TIME: Duration = Duration::from_millis(10);

/// Where the freezer is.
enum Freezer {
    V1(Dir),
    Unified(Dir),
}

impl Cgroup {
    /// Stops every process and waits until all stand; on failure none is left stopped.
    pub(crate) fn freeze(&self) -> Result<()> {
        let freezer = self
            .freezer()?
            .context("cannot toggle freezer: cgroups not configured for container")?;
        let result = match &freezer {
            Freezer::V1(dir) => freeze_v1(dir),
            Freezer::Unified(dir) => freeze_unified(dir),
        };
        if let Err(error) = result {
            return Err(match freezer.thaw() {
                Ok(()) => error,
                Err(thaw) => error.context(format!("{thaw:#}")),
            });
        }
        Ok(())
    }

    /// Lets every process go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.freezer()?
            .context("cannot toggle freezer: cgroups not configured for container")?
            .thaw()
    }

    /// True if this cgroup itself (not an ancestor) is frozen, or about to be.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        match self.freezer()? {
            None => Ok(false),
            Some(Freezer::Unified(dir)) => {
                Ok(dir.read_if_exists("cgroup.freeze")?.is_some_and(|text| text.trim() == "1"))
            }
            Some(Freezer::V1(dir)) => {
                let state = dir.read_if_exists("freezer.state")?.unwrap_or_default();
                if state.is_empty() || state.trim() == "THAWED" {
                    return Ok(false);
                }
                let own = dir.read_if_exists("freezer.self_freezing")?;
                Ok(own.is_none_or(|own| own.trim() == "1"))
            }
        }
    }

    /// True if whatever enters the cgroup stands still at once, be it for an ancestor's sake.
    pub(crate) fn is_held(&self) -> Result<bool> {
        match self.freezer()? {
            None => Ok(false),
            Some(Freezer::Unified(dir)) => is_held(&dir),
            Some(Freezer::V1(dir)) => {
                let state = dir.read_if_exists("freezer.state")?.unwrap_or_default();
                Ok(!state.is_empty() && state.trim() != "THAWED")
            }
        }
    }

    /// `None` if there is no freezer, or no cgroup.
    fn freezer(&self) -> Result<Option<Freezer>> {
        let v1 = self.hierarchies.iter().find(|hierarchy| hierarchy.has("freezer"));
        let hierarchy = match (v1, self.unified()) {
            (None, None) => return Ok(None),
            (Some(hierarchy), _) | (None, Some(hierarchy)) => hierarchy,
        };
        let dir = Dir::open_if_exists(&hierarchy.path)?;
        Ok(dir.map(if v1.is_some() { Freezer::V1 } else { Freezer::Unified }))
    }
}

impl Freezer {
    fn thaw(&self) -> Result<()> {
        match self {
            Self::V1(dir) => dir.write("freezer.state", "THAWED")?,
            Self::Unified(dir) => dir.write("cgroup.freeze", "0")?,
        }
        Ok(())
    }
}

/// v2: an empty cgroup, too, counts as frozen when it or one above it is.
pub(super) fn is_held(dir: &Dir) -> Result<bool> {
    let events = dir.read_if_exists("cgroup.events")?.unwrap_or_default();
    Ok(events.lines().any(|line| line == "frozen 1"))
}

fn freeze_unified(dir: &Dir) -> Result<()> {
    dir.write("cgroup.freeze", "1").context("freezer not supported")?;
    let frozen =
        wait_for_event(dir, FREEZE_TIME, |events| events.lines().any(|line| line == "frozen 1"))?;
    if !frozen {
        bail!("timeout of {}s reached waiting for the cgroup to freeze", FREEZE_TIME.as_secs());
    }
    Ok(())
}

/// Waits until `cgroup.events` satisfies `done`; false if the time is over. A cgroup that goes
/// away satisfies everything.
pub(super) fn wait_for_event(
    dir: &Dir,
    time: Duration,
    done: impl Fn(&str) -> bool,
) -> Result<bool> {
    let deadline = Instant::now() + time;
    let file = dir.open_file("cgroup.events")?;
    let mut buffer = [0; 256];
    loop {
        // Reading arms the event: what changes after this wakes the poll.
        let length = match rustix::io::pread(&file, &mut buffer, 0) {
            Ok(length) => length,
            Err(errno) if is_gone(errno) => return Ok(true),
            Err(errno) => return Err(errno).context("read cgroup.events"),
        };
        if done(&String::from_utf8_lossy(&buffer[..length])) {
            return Ok(true);
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(rest).context("timeout of poll")?;
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll cgroup.events"),
        }
    }
}

/// Tasks that appear while the kernel goes through the list (by fork, or by being moved in) stay
/// out of it and keep the state at FREEZING. A thaw now and then lets the fork end.
fn freeze_v1(dir: &Dir) -> Result<()> {
    for attempt in 1..=V1_ATTEMPTS {
        if attempt % V1_THAW_EVERY == 0 {
            dir.write("freezer.state", "THAWED")?;
            pause(V1_THAW_TIME)?;
        }
        dir.write("freezer.state", "FROZEN")?;
        match dir.read("freezer.state")?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            state => bail!("unexpected state {state} while freezing"),
        }
    }
    bail!("unable to freeze");
}
