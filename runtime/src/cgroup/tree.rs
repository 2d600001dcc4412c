//! Walking over a cgroup and all beneath it. A container that manages its own cgroups chooses how
//! deep they go: neither the length of a path nor the number of descriptors may be a limit here.

use anyhow::Result;

use super::files::{Dir, FileError, is_gone};

/// Calls `enter` for `root` and every cgroup beneath, and, when all beneath one is done, `leave`
/// with its parent and its name. What goes away meanwhile is left out.
pub(super) fn walk(
    root: Dir,
    mut enter: impl FnMut(&Dir) -> Result<()>,
    mut leave: impl FnMut(&Dir, &str) -> Result<()>,
) -> Result<()> {
    enter(&root)?;
    let mut pending = vec![children(&root)?];
    let mut names: Vec<String> = Vec::new();
    let mut here = root;
    while let Some(siblings) = pending.last_mut() {
        if let Some(name) = siblings.pop() {
            let child = match here.child(&name) {
                Err(error) if is_gone(error.errno) => continue,
                other => other?,
            };
            enter(&child)?;
            pending.push(children(&child)?);
            names.push(name);
            here = child;
        } else {
            pending.pop();
            let Some(name) = names.pop() else { break };
            here = here.parent()?;
            leave(&here, &name)?;
        }
    }
    Ok(())
}

fn children(dir: &Dir) -> Result<Vec<String>, FileError> {
    match dir.children() {
        Err(error) if is_gone(error.errno) => Ok(Vec::new()),
        other => other,
    }
}
