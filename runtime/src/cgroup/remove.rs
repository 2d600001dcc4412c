//! Removing the cgroup and everything beneath it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rustix::io::Errno;

use super::files::{Dir, FileError, is_gone};
use super::{Cgroup, freezer, pause, tree};

/// The last process of a cgroup leaves it a moment after it is seen dead.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const ATTEMPTS: u32 = 11;

impl Cgroup {
    /// Removes what is one directory, with nothing in it: the common case, in one call. False is no
    /// failure, but for [`Cgroup::remove`] to deal with.
    pub(crate) fn remove_at_once(&self) -> Result<bool> {
        match self.hierarchies.as_slice() {
            [only] if self.unit().is_none() && remove_once(&only.path).is_ok() => {}
            _ => return Ok(false),
        }
        let mut failures = Vec::new();
        self.remove_parents(&mut failures);
        if failures.is_empty() { Ok(true) } else { Err(anyhow!(failures.join("; "))) }
    }

    /// Removes the cgroup in every hierarchy, with those that the container made beneath it.
    /// What is gone already is no error; what can't be removed does not keep the rest.
    pub(crate) fn remove(&self) -> Result<()> {
        let mut failures = Vec::new();
        if let Err(error) = self.stop_unit() {
            failures.push(format!("{error:#}"));
        }
        for hierarchy in &self.hierarchies {
            if let Err(error) = remove(&hierarchy.path) {
                failures.push(format!("{error:#}"));
            }
        }
        self.remove_parents(&mut failures);
        if failures.is_empty() { Ok(()) } else { Err(anyhow!(failures.join("; "))) }
    }

    fn remove_parents(&self, failures: &mut Vec<String>) {
        for path in self.made_parents.iter().rev() {
            match remove_once(path) {
                Ok(()) => {}
                // Somebody else has come to use it.
                Err(error) if matches!(error.errno, Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(error) => failures.push(format!("{error}: {}", error.errno)),
            }
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    // The common case is one call. Whatever it fails with, the directory tells what is true: a
    // read-only mount answers EROFS even for what does not exist.
    if remove_once(path).is_ok() {
        return Ok(());
    }
    let Some(dir) = Dir::open_if_exists(path)? else { return Ok(()) };
    tree::walk(dir, |_| Ok(()), remove_emptied)?;
    match (path.parent(), path.file_name().and_then(|it| it.to_str())) {
        (Some(parent), Some(name)) => remove_emptied(&Dir::open(parent)?, name),
        _ => Ok(()),
    }
}

/// Removes the cgroup `name`, whose processes may just be leaving.
fn remove_emptied(parent: &Dir, name: &str) -> Result<()> {
    let mut time = FIRST_PAUSE;
    for attempt in 1.. {
        match parent.remove_child(name) {
            Ok(()) => break,
            Err(error) if is_gone(error.errno) => break,
            Err(error) if error.errno == Errno::BUSY && attempt < ATTEMPTS => {
                match parent.child(name) {
                    Ok(dir) => wait_until_empty(&dir, time)?,
                    Err(error) if is_gone(error.errno) => break,
                    Err(error) => return Err(error.into()),
                }
                time *= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn remove_once(path: &Path) -> Result<(), FileError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|it| it.to_str()))
    else {
        return Ok(());
    };
    let result = Dir::open(parent).and_then(|dir| dir.remove_child(name));
    match result {
        Err(error) if is_gone(error.errno) => Ok(()),
        other => other,
    }
}

/// v2 says when the last process has left; v1 does not.
fn wait_until_empty(dir: &Dir, time: Duration) -> Result<()> {
    if dir.exists("cgroup.events")? {
        let empty = |events: &str| events.lines().any(|line| line == "populated 0");
        if !freezer::wait_for_event(dir, time, empty)? {
            return Ok(());
        }
        // Empty but still busy: the kernel is not through with the dead.
    }
    pause(time)
}
