//! Making the directories, so that limits can be set in them, and putting processes there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use rustix::io::Errno;

use super::files::{Dir, FileError, NOT_A_CGROUP};
use super::{Cgroup, Hierarchy, Insistence, Mode, Privilege, controllers, freezer, pause};
use crate::plan::cgroup::CgroupPlan;

/// Another runtime may remove an empty parent while we are on the way down.
const CREATE_ATTEMPTS: u32 = 10;
const ENTER_ATTEMPTS: u32 = 5;
const ENTER_PAUSE: Duration = Duration::from_millis(30);

impl Cgroup {
    /// Makes the cgroup in every hierarchy, or nothing. Without privilege, a path in the spec or
    /// limits, a hierarchy that we may not write to is given up: the container then stays in
    /// our own cgroup there, and [`Cgroup::record`] no longer names it.
    pub(crate) fn create(&mut self, plan: &CgroupPlan) -> Result<()> {
        if !self.is_started() {
            self.check_unused()?;
        }
        let mut made = Vec::new();
        let mut usable = Vec::new();
        for hierarchy in &self.hierarchies {
            let result = match self.mode {
                Mode::V2 => create_unified(hierarchy, plan, &mut made),
                Mode::V1 | Mode::Hybrid => create_v1(hierarchy, plan, &mut made),
            };
            match result {
                Ok(()) => usable.push(hierarchy.clone()),
                Err(error) if self.may_do_without(&error) => {
                    if self.mode == Mode::V2 && plan.controllers().next().is_some() {
                        return Err(undo(&made, error).context(
                            "rootless needs no limits + no cgrouppath when no permission is \
                             granted for cgroups",
                        ));
                    }
                }
                Err(error) => return Err(undo(&made, error)),
            }
        }
        self.keep(usable);
        made.retain(|path| self.hierarchies.iter().all(|hierarchy| hierarchy.path != *path));
        self.made_parents.extend(made);
        Ok(())
    }

    /// Refuses a cgroup that has processes or is frozen: the container would share its fate with
    /// strangers, or hang at once.
    pub(crate) fn check_unused(&self) -> Result<()> {
        if self.mode == Mode::V2
            && let [only] = self.hierarchies.as_slice()
            && Dir::open_if_exists(&only.path)?.is_none()
        {
            return Ok(());
        }
        let processes = self.pids()?.len();
        if processes != 0 {
            bail!("container's cgroup is not empty: {processes} process(es) found");
        }
        if self.is_frozen()? {
            bail!("container's cgroup unexpectedly frozen");
        }
        Ok(())
    }

    /// Moves a process into the cgroup, in every hierarchy.
    pub(crate) fn enter(&mut self, pid: i32) -> Result<()> {
        if self.enter_unit(pid)? {
            return Ok(());
        }
        let mut usable = Vec::new();
        for hierarchy in &self.hierarchies {
            match enter(&hierarchy.path, pid) {
                Ok(()) => usable.push(hierarchy.clone()),
                Err(error) if self.may_do_without(&error) && !self.insists_on_entry() => {}
                Err(error) => return Err(error),
            }
        }
        self.keep(usable);
        Ok(())
    }

    fn keep(&mut self, usable: Vec<Hierarchy>) {
        let all = std::mem::replace(&mut self.hierarchies, usable);
        self.given_up.extend(all.into_iter().filter(|it| !self.hierarchies.contains(it)));
    }

    /// A cgroup that could be made must take its process.
    fn insists_on_entry(&self) -> bool {
        self.mode == Mode::V2 && self.insistence != Insistence::Nowhere
    }

    fn may_do_without(&self, error: &Error) -> bool {
        let denied = error.chain().any(|cause| {
            cause.downcast_ref::<FileError>().is_some_and(|error| {
                matches!(error.errno, Errno::ACCESS | Errno::PERM | Errno::ROFS)
            })
        });
        denied && self.privilege == Privilege::Rootless && self.insistence != Insistence::Everywhere
    }
}

fn enter(path: &Path, pid: i32) -> Result<()> {
    let dir = Dir::open(path)?;
    for attempt in 1.. {
        match dir.write("cgroup.procs", &pid.to_string()) {
            Ok(()) => break,
            // The task may be too young to be moved.
            Err(error) if error.errno == Errno::INVAL && attempt < ENTER_ATTEMPTS => {
                pause(ENTER_PAUSE)?;
            }
            Err(error) if error.errno == Errno::BUSY => {
                return Err(Error::new(error).context(format!(
                    "{} hands controllers down to the cgroups beneath it, so it takes no process \
                     itself",
                    path.display()
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes what was made, innermost first; what can't be removed is told beside the cause.
fn undo(made: &[PathBuf], cause: Error) -> Error {
    let failures: Vec<String> = made
        .iter()
        .rev()
        .filter_map(|path| {
            let (parent, name) = (path.parent()?, path.file_name()?.to_str()?);
            Dir::open(parent).and_then(|dir| dir.remove_child(name)).err()
        })
        .map(|error| format!("{error}: {}", error.errno))
        .collect();
    if failures.is_empty() { cause } else { cause.context(failures.join("; ")) }
}

/// The cgroups from the mount point down to `path` that exist, and the names that are missing.
fn descend(path: &Path) -> Result<(Vec<Dir>, Vec<&str>)> {
    let mut existing = Vec::new();
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        match Dir::open(ancestor) {
            Ok(dir) => existing.push(dir),
            Err(error) if error.errno == Errno::NOENT && existing.is_empty() => {
                let name = ancestor.file_name().and_then(|name| name.to_str());
                missing.push(name.ok_or_else(|| anyhow!("cgroup path is not UTF-8"))?);
            }
            // Above the mount point.
            Err(error) if error.errno == NOT_A_CGROUP && !existing.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    existing.reverse();
    missing.reverse();
    Ok((existing, missing))
}

/// One level of a path, as it is prepared.
struct Level<'a> {
    dir: &'a Dir,
    parent: Option<&'a Dir>,
    new: bool,
    /// It lies directly beneath the root of the hierarchy.
    topmost: bool,
}

/// Makes the missing part of `path`; `prepare` sees every level, outermost first.
fn make(
    path: &Path,
    made: &mut Vec<PathBuf>,
    mut prepare: impl FnMut(Level) -> Result<()>,
) -> Result<()> {
    for attempt in 1.. {
        let (existing, missing) = descend(path)?;
        let mut parent: Option<Dir> = None;
        let mut depth = 0;
        for dir in existing {
            let topmost = depth == 1;
            prepare(Level { dir: &dir, parent: parent.as_ref(), new: false, topmost })?;
            parent = Some(dir);
            depth += 1;
        }
        let mut vanished = false;
        for name in missing {
            let Some(dir) = parent.take() else { bail!("no cgroup file system at {path:?}") };
            match dir.make_child(name) {
                Ok((child, new)) => {
                    if new {
                        made.push(child.path.clone());
                    }
                    let topmost = depth == 1;
                    prepare(Level { dir: &child, parent: Some(&dir), new, topmost })?;
                    parent = Some(child);
                    depth += 1;
                }
                Err(error) if error.errno == Errno::NOENT && attempt < CREATE_ATTEMPTS => {
                    vanished = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !vanished {
            break;
        }
    }
    Ok(())
}

fn create_v1(hierarchy: &Hierarchy, plan: &CgroupPlan, made: &mut Vec<PathBuf>) -> Result<()> {
    let cpuset = hierarchy.has("cpuset");
    make(&hierarchy.path, made, |Level { dir, parent, .. }| match parent {
        Some(parent) if cpuset => {
            let own = dir.path == hierarchy.path;
            inherit_cpuset(dir, parent, |file| own && plan.sets(file))
        }
        _ => Ok(()),
    })
}

/// A new v1 cpuset is empty, and no task may enter an empty one. What the plan sets is left out:
/// the parent's list could collide with an exclusive sibling.
fn inherit_cpuset(dir: &Dir, parent: &Dir, planned: impl Fn(&str) -> bool) -> Result<()> {
    for name in ["cpus", "mems"] {
        let prefixed = format!("cpuset.{name}");
        if planned(&prefixed) {
            continue;
        }
        let file = if dir.exists(&prefixed)? { &prefixed } else { name };
        if dir.read(file)?.trim().is_empty() {
            dir.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

fn create_unified(hierarchy: &Hierarchy, plan: &CgroupPlan, made: &mut Vec<PathBuf>) -> Result<()> {
    let wanted: Vec<&str> = plan.controllers().collect();
    make(&hierarchy.path, made, |Level { dir, parent, new, topmost }| {
        let own = dir.path == hierarchy.path;
        // The root of all, which has no type, is neither threaded nor frozen: nor is what is new in it.
        let plain = match parent {
            Some(parent) if new && topmost => !parent.exists("cgroup.type")?,
            _ => false,
        };
        if parent.is_some() && !plain {
            controllers::adapt_type(dir, &wanted)?;
        }
        match own {
            true if plain => Ok(()),
            true => refuse_frozen(dir),
            false => controllers::hand_down(dir, &wanted),
        }
    })
}

/// A cgroup above that is frozen would stop the container's process before its first step, and us
/// with it.
fn refuse_frozen(dir: &Dir) -> Result<()> {
    if freezer::is_held(dir)? {
        bail!(
            "container's cgroup unexpectedly frozen: a cgroup above {} is frozen",
            dir.path.display()
        );
    }
    Ok(())
}
