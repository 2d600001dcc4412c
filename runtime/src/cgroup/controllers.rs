//! v2: handing controllers down to a cgroup, and telling why one is missing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::io::Errno;

use super::files::{Dir, FileError};
use super::pause;

/// Controllers that know threads: a cgroup that hands down only these may have processes.
pub(super) const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

/// A process that is just leaving, another runtime's at most, keeps a cgroup busy for a moment.
const BUSY_ATTEMPTS: u32 = 6;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Beneath a cgroup with processes only threaded cgroups, with the controllers that know threads,
/// are possible.
pub(super) fn adapt_type(dir: &Dir, wanted: &[&str]) -> Result<()> {
    let domain = wanted.iter().find(|controller| !THREADED.contains(controller));
    let kind = dir.read_if_exists("cgroup.type")?.unwrap_or_default();
    match (kind.trim(), domain) {
        ("domain invalid", Some(domain)) => bail!(
            "cannot enter cgroupv2 {:?} with domain controllers -- it is in an invalid state: a \
             cgroup above it is threaded, so that {domain} can't be limited here (drop the limit, \
             or set another linux.cgroupsPath)",
            dir.path
        ),
        ("domain invalid", None) => dir.write("cgroup.type", "threaded")?,
        (kind @ ("threaded" | "domain threaded"), Some(domain)) => bail!(
            "cannot enter cgroupv2 {:?} with domain controllers -- it is in {kind} mode, in which \
             {domain} can't be limited (drop the limit, or set another linux.cgroupsPath)",
            dir.path
        ),
        _ => {}
    }
    Ok(())
}

/// Hands every controller down that is not yet. One that can't be (another owner, processes in
/// the way) shows when its limit is set; those of `wanted` are worth some patience.
pub(super) fn hand_down(dir: &Dir, wanted: &[&str]) -> Result<()> {
    let missing = missing(dir)?;
    let all = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    if missing.is_empty() || dir.write("cgroup.subtree_control", &all).is_ok() {
        return Ok(());
    }
    for controller in missing {
        let mut time = BUSY_PAUSE;
        for attempt in 1.. {
            match enable(dir, &controller) {
                Err(error)
                    if error.errno == Errno::BUSY
                        && wanted.contains(&controller.as_str())
                        && attempt < BUSY_ATTEMPTS =>
                {
                    pause(time)?;
                    time *= 2;
                }
                // One that refuses must not keep the others back; `apply` tells of it if it is
                // wanted.
                _ => break,
            }
        }
    }
    Ok(())
}

fn missing(dir: &Dir) -> Result<Vec<String>> {
    let available = dir.read("cgroup.controllers")?;
    let enabled = dir.read("cgroup.subtree_control")?;
    let mut missing: Vec<String> = available.split_whitespace().map(str::to_owned).collect();
    missing.retain(|name| !has(&enabled, name));
    Ok(missing)
}

fn enable(dir: &Dir, controller: &str) -> Result<(), FileError> {
    dir.write("cgroup.subtree_control", &format!("+{controller}"))
}

fn has(list: &str, controller: &str) -> bool {
    list.split_whitespace().any(|known| known == controller)
}

/// `None` if `dir` has the controller. Else at which cgroup above it the way down ends, and why:
/// that is tried once more to hear the kernel's reason.
pub(super) fn why_missing(dir: &Dir, controller: &str) -> Result<Option<String>> {
    if has(&dir.read("cgroup.controllers")?, controller) {
        return Ok(None);
    }
    for ancestor in dir.path.ancestors().skip(1) {
        let available = match Dir::open(ancestor) {
            Ok(above) => above.read_if_exists("cgroup.controllers")?.map(|list| (above, list)),
            // Above the mount point.
            Err(_) => None,
        };
        let Some((above, available)) = available else { break };
        if has(&available, controller) {
            return Ok(Some(refusal(&above, controller)));
        }
    }
    Ok(Some(format!(
        "the cgroup v2 hierarchy has no controller {controller} (the kernel lacks it, a v1 \
         hierarchy uses it, or it was not handed down to {})",
        top(&dir.path).display()
    )))
}

fn refusal(above: &Dir, controller: &str) -> String {
    let path = above.path.display();
    let start = format!("controller {controller} can't be handed down from {path}");
    match enable(above, controller).map_err(|error| error.errno) {
        Err(Errno::BUSY) => format!(
            "{start}: it has processes of its own (move them into a cgroup beneath it, or set \
             another linux.cgroupsPath)"
        ),
        Err(Errno::OPNOTSUPP) => format!("{start}: it is threaded"),
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            format!("{start}: it is not ours to change (it has to be delegated to us)")
        }
        Err(errno) => format!("{start}: {}", crate::error::errno_text(to_nix(errno))),
        Ok(()) => format!("{start} until now; try again"),
    }
}

fn to_nix(errno: Errno) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(errno.raw_os_error())
}

/// The uppermost cgroup above `path` that we can see.
fn top(path: &Path) -> &Path {
    path.ancestors().take_while(|path| Dir::open(path).is_ok()).last().unwrap_or(path)
}
