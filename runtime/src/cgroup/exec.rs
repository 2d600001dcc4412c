//! Where further processes of a running container go, and giving the cgroup to its root user.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use super::controllers::THREADED;
use super::files::Dir;
use super::systemd::Managed;
use super::{Cgroup, Insistence, Mode, topology};

/// Where the kernel lists the files that belong to a delegated cgroup (4.15).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";

impl Cgroup {
    /// The cgroup for a further process: the sub cgroups that `--cgroup` names as
    /// `[CONTROLLER,…:]PATH`, else the container's own. Where that one is gone or can't take
    /// processes, since init has moved on to another, it is init's.
    pub(crate) fn for_exec(&self, arguments: &[String], init: i32) -> Result<Self> {
        let wanted = parse(arguments)?;
        let mut target = Self {
            mode: self.mode,
            privilege: self.privilege,
            insistence: Insistence::Nowhere,
            hierarchies: self.hierarchies.clone(),
            made_parents: Vec::new(),
            unit: self.unit.as_ref().map(Managed::recorded),
            given_up: Vec::new(),
        };
        if let Some(path) = wanted.get("") {
            for hierarchy in &mut target.hierarchies {
                hierarchy.path = beneath(&hierarchy.path, path)?;
            }
            return Ok(target);
        }
        for (controller, path) in &wanted {
            let hierarchy = target
                .hierarchies
                .iter_mut()
                .find(|hierarchy| hierarchy.has(controller))
                .with_context(|| format!("unknown controller {controller} in SubCgroupPaths"))?;
            hierarchy.path = beneath(&hierarchy.path, path)?;
        }
        if self.mode == Mode::V2 {
            target.follow_init(init)?;
        }
        Ok(target)
    }

    fn follow_init(&mut self, init: i32) -> Result<()> {
        let Some(hierarchy) = self.hierarchies.first_mut() else { return Ok(()) };
        if takes_processes(&hierarchy.path)? {
            return Ok(());
        }
        let Some(path) = topology::unified_path_of(init)? else { return Ok(()) };
        // The unit knows of no cgroup but its own.
        if !path.starts_with(&hierarchy.path) {
            self.unit = None;
        }
        hierarchy.path = path;
        Ok(())
    }

    /// v2: lets `uid` (the container's root, as the host sees it) manage what is beneath, as for
    /// a container that has its own writable view of the cgroup.
    pub(crate) fn delegate(&self, uid: u32) -> Result<()> {
        let (Mode::V2, Some(hierarchy)) = (self.mode, self.hierarchies.first()) else {
            return Ok(());
        };
        let dir = Dir::open(&hierarchy.path)?;
        dir.give(".", uid)?;
        let files = match std::fs::read_to_string(DELEGATE) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned()
            }
            Err(error) => return Err(error).with_context(|| format!("read {DELEGATE}")),
        };
        for file in files.lines() {
            match dir.give(file, uid) {
                // Listed for kernels and controllers that have it.
                Err(error) if error.errno == Errno::NOENT => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn takes_processes(path: &Path) -> Result<bool> {
    let Some(dir) = Dir::open_if_exists(path)? else { return Ok(false) };
    let handed_down = dir.read_if_exists("cgroup.subtree_control")?.unwrap_or_default();
    Ok(handed_down.split_whitespace().all(|controller| THREADED.contains(&controller)))
}

/// Controller -> path; with no controller named, the path is for all.
fn parse(arguments: &[String]) -> Result<BTreeMap<&str, &str>> {
    let mut paths = BTreeMap::new();
    for argument in arguments {
        let Some((controllers, path)) = argument.split_once(':') else {
            if arguments.len() != 1 {
                bail!("invalid --cgroup argument: {argument} (missing <controller>: prefix)");
            }
            return Ok(BTreeMap::from([("", argument.as_str())]));
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                bail!("invalid --cgroup argument: {argument} (empty <controller> prefix)");
            }
            if paths.insert(controller, path).is_some() {
                bail!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                );
            }
        }
    }
    Ok(paths)
}

/// `path` counts from the container's cgroup and must not leave it.
fn beneath(base: &Path, path: &str) -> Result<std::path::PathBuf> {
    let mut target = base.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => bail!("bad sub cgroup path: {path}"),
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn sub_cgroups_are_named_once_and_with_a_controller() {
        let given = arguments(&["cpu,memory:a", "pids:/b/c"]);
        let expected = BTreeMap::from([("cpu", "a"), ("memory", "a"), ("pids", "/b/c")]);
        assert_eq!(parse(&given).unwrap(), expected);
        assert_eq!(parse(&arguments(&["x/y"])).unwrap(), BTreeMap::from([("", "x/y")]));
        for (bad, text) in [
            (&["a", "cpu:b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&[":a"], "invalid --cgroup argument: :a (empty <controller> prefix)"),
            (
                &["cpu:a", "cpu:b"],
                "invalid --cgroup argument(s): controller cpu specified multiple times",
            ),
        ] {
            assert_eq!(parse(&arguments(bad)).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn sub_cgroups_stay_beneath_the_container() {
        let base = Path::new("/c/x");
        assert_eq!(beneath(base, "/a/./b").unwrap(), Path::new("/c/x/a/b"));
        assert_eq!(beneath(base, "").unwrap(), base);
        assert!(beneath(base, "a/../../y").is_err());
    }
}
