//! Classes of service for caches and memory bandwidth (Intel RDT, AMD QoS), as directories of the
//! resctrl file system.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};

use crate::plan::resctrl::{self, ClassPlan, differs};
use crate::procfs::unescape;
use crate::spec::{IntelRdt, Spec};
use crate::state::Record;

mod stats;

pub(crate) use stats::Stats;

const TASKS: &str = "tasks";
const SCHEMATA: &str = "schemata";

/// Where resctrl is mounted, if it is.
pub(crate) fn root() -> Result<Option<PathBuf>> {
    let mountinfo =
        fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(mount_point(&mountinfo))
}

fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_resctrl = after.split(' ').next() == Some("resctrl");
        is_resctrl.then(|| before.split(' ').nth(4)).flatten().map(|path| unescape(path).into())
    })
}

/// Whether the hardware shares out what `info/<resource>` is of: `L3`, `MB`, `L3_MON`.
pub(crate) fn has(root: &Path, resource: &str) -> bool {
    root.join("info").join(resource).exists()
}

/// The group of a container.
pub(crate) struct Class {
    plan: ClassPlan,
    root: PathBuf,
}

impl Class {
    /// Where the container `id` belongs, if the host has what is asked for; touches nothing.
    pub(crate) fn locate(asked: &IntelRdt, id: &str) -> Result<Self> {
        let Some(root) = root()? else {
            bail!("linux.intelRdt: intelRdt is specified in config, but Intel RDT is not enabled");
        };
        Self::beneath(root, asked, id)
    }

    /// That of a running container, for `exec`; where it is gone a process can do without, as in
    /// runc.
    pub(crate) fn of(record: &Record, spec: &Spec) -> Result<Option<Self>> {
        let asked = spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
        match asked {
            Some(asked)
                if !record.intel_rdt_path.is_empty()
                    && Path::new(&record.intel_rdt_path).exists() =>
            {
                Class::locate(asked, &record.id).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn beneath(root: PathBuf, asked: &IntelRdt, id: &str) -> Result<Self> {
        let plan = resctrl::plan(asked, id)?;
        for (field, line, resource, name) in [
            ("l3CacheSchema", &asked.l3_cache_schema, "L3", "CAT"),
            ("memBwSchema", &asked.mem_bw_schema, "MB", "MBA"),
        ] {
            if !line.is_empty() && !has(&root, resource) {
                bail!(
                    "linux.intelRdt.{field}: intelRdt.{field} is specified in config, but Intel RDT/{name} is not enabled"
                );
            }
        }
        Ok(Class { plan, root })
    }

    /// The group's directory.
    pub(crate) fn path(&self) -> PathBuf {
        match self.plan.group.as_str() {
            "" => self.root.clone(),
            group => self.root.join(group),
        }
    }

    fn monitor(&self) -> Option<PathBuf> {
        self.plan.monitor.as_ref().map(|id| self.path().join("mon_groups").join(id))
    }

    /// The directories that have to be made, and are then ours to remove: a class that was asked
    /// for by name outlives the container, as others may have come to use it.
    pub(crate) fn to_be_made(&self) -> Vec<PathBuf> {
        let class = self.plan.own.then(|| self.path());
        class.into_iter().chain(self.monitor()).filter(|path| !path.exists()).collect()
    }

    /// Makes what is missing, and sets what is new or makes sure that what others have set is what
    /// is asked for. `made` grows with each directory.
    pub(crate) fn create(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let path = self.path();
        let asked = &self.plan.schemata;
        if !self.plan.own && asked.is_empty() && !path.exists() {
            bail!(
                "clos dir not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty): {}",
                path.display()
            );
        }
        if self.make(&path, made)? {
            self.write(&path.join(SCHEMATA), &lines(asked))?;
        } else if !asked.is_empty() {
            let file = path.join(SCHEMATA);
            let present = fs::read_to_string(&file)
                .with_context(|| format!("intelrdt: read {}", file.display()))?;
            if let Some(line) = differs(asked, &present) {
                bail!("intelrdt: {} exists and does not have {line:?}", path.display());
            }
        }
        self.monitor().map_or(Ok(()), |monitor| self.make(&monitor, made).map(|_| ()))
    }

    /// False if it was there.
    fn make(&self, path: &Path, made: &mut Vec<PathBuf>) -> Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => {
                made.push(path.to_owned());
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.explained(error, &format!("mkdir {}", path.display()))),
        }
    }

    /// Sets what is asked for in a group that is there. Returns what [`Class::restore`] needs; on
    /// failure the old lines are in force, though the kernel may have taken some of the new ones.
    pub(crate) fn change(&self) -> Result<String> {
        let file = self.path().join(SCHEMATA);
        let old = fs::read_to_string(&file)
            .with_context(|| format!("intelrdt: read {}", file.display()))?;
        if let Err(error) = self.write(&file, &lines(&self.plan.schemata)) {
            return Err(match self.restore(&old) {
                Ok(()) => error,
                Err(also) => error.context(format!("restore the old schemata: {also:#}")),
            });
        }
        Ok(old)
    }

    /// Puts back what [`Class::change`] returned.
    pub(crate) fn restore(&self, old: &str) -> Result<()> {
        self.write(&self.path().join(SCHEMATA), old)
    }

    /// Puts a process into the group, and into that by which it is watched.
    pub(crate) fn enter(&self, pid: i32) -> Result<()> {
        [Some(self.path()), self.monitor()]
            .into_iter()
            .flatten()
            .try_for_each(|group| self.write(&group.join(TASKS), &pid.to_string()))
            .with_context(|| format!("intelrdt: unable to add pid {pid}"))
    }

    /// One write: the kernel takes the text apart by itself.
    fn write(&self, file: &Path, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        fs::OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| {
                self.explained(error, &format!("unable to write {text:?} to {}", file.display()))
            })
    }

    /// The kernel has a sentence on what it did not like.
    fn explained(&self, error: io::Error, what: &str) -> Error {
        let error = Error::new(error).context(format!("intelrdt: {what}"));
        match fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) => error.context(format!("last_cmd_status: {}", status.trim())),
            // Older than 4.16, or not mounted any more: then the error number has to do.
            Err(_) => error,
        }
    }
}

fn lines(schemata: &[String]) -> String {
    schemata.iter().map(|line| format!("{line}\n")).collect()
}

/// Removes groups of ours, the last made first; whoever is in them goes back where all start.
pub(crate) fn remove(groups: &[PathBuf]) -> Result<()> {
    for group in groups.iter().rev() {
        match fs::remove_dir(group) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("rmdir {}", group.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree like the kernel's, but that its files have to be made by hand.
    pub(super) struct Tree(pub(super) PathBuf);

    impl Tree {
        pub(super) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("resctrl-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("info/L3")).unwrap();
            fs::write(path.join("info/last_cmd_status"), "ok\n").unwrap();
            let tree = Tree(path);
            tree.group("");
            tree
        }

        fn group(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.join("mon_groups")).unwrap();
            fs::write(path.join(TASKS), "").unwrap();
            fs::write(path.join(SCHEMATA), "L3:0=0ff\n").unwrap();
            path
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    impl Tree {
        pub(super) fn class(&self, json: &str) -> Result<Class> {
            Class::beneath(self.0.clone(), &serde_json::from_str(json).unwrap(), "c1")
        }

        /// Makes it; returns what was made, or the error.
        fn create(&self, json: &str) -> Result<Vec<PathBuf>> {
            let mut made = Vec::new();
            self.class(json)?.create(&mut made).map(|()| made)
        }
    }

    #[test]
    fn the_mount_is_found_by_its_type_alone() {
        let line =
            |kind| format!("30 24 0:26 / /mnt/res\\040ctrl rw,nosuid shared:9 - {kind} x rw\n");
        let found = mount_point(&(line("tmpfs") + &line("resctrl")));
        assert_eq!(found.as_deref(), Some(Path::new("/mnt/res ctrl")));
        assert_eq!(mount_point(&line("tmpfs")), None);
        assert_eq!(mount_point("nonsense"), None);
    }

    #[test]
    fn a_group_of_its_own_is_made_and_removed() {
        let tree = Tree::new("own");
        let class = tree.class("{}").unwrap();
        assert_eq!(class.to_be_made(), [tree.0.join("c1")]);
        assert_eq!(tree.create("{}").unwrap(), [tree.0.join("c1")]);
        assert!(tree.0.join("c1").is_dir());
        assert!(class.to_be_made().is_empty());
        remove(&[tree.0.join("c1")]).unwrap();
        assert!(!tree.0.join("c1").exists());
        remove(&[tree.0.join("c1")]).unwrap();
    }

    #[test]
    fn a_named_group_must_be_as_asked_for() {
        let tree = Tree::new("named");
        tree.group("gold");
        let json = r#"{"closID":"gold","l3CacheSchema":"L3:0=ff"}"#;
        let class = tree.class(json).unwrap();
        assert!(class.to_be_made().is_empty());
        assert!(tree.create(json).unwrap().is_empty());
        class.enter(77).unwrap();
        assert_eq!(tree.read("gold/tasks"), "77");
        let error = tree.create(r#"{"closID":"gold","schemata":["L3:0=f"]}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("does not have \"L3:0=f\""), "{error}");
    }

    #[test]
    fn a_named_group_without_schemata_must_be_there() {
        let tree = Tree::new("missing");
        let error = tree.create(r#"{"closID":"gold"}"#).unwrap_err().to_string();
        assert!(error.starts_with("clos dir not accessible"), "{error}");
        assert!(!tree.0.join("gold").exists());
    }

    #[test]
    fn who_is_watched_is_in_both_groups_and_only_the_watching_ends() {
        let tree = Tree::new("watched");
        let json = r#"{"closID":"/","enableMonitoring":true}"#;
        let class = tree.class(json).unwrap();
        let monitor = tree.0.join("mon_groups/c1");
        assert_eq!(class.to_be_made(), [&*monitor]);
        assert_eq!(tree.create(json).unwrap(), [&*monitor]);
        fs::write(monitor.join(TASKS), "").unwrap();
        class.enter(5).unwrap();
        assert_eq!(
            (tree.read("tasks"), tree.read("mon_groups/c1/tasks")),
            ("5".into(), "5".into())
        );
    }

    #[test]
    fn the_kernels_reason_is_told() {
        let tree = Tree::new("reason");
        let class = tree.class(r#"{"closID":"new","schemata":["L3:0=0"]}"#).unwrap();
        let mut made = Vec::new();
        // No file comes to be in it: as if it were refused.
        let text = format!("{:#}", class.create(&mut made).unwrap_err());
        assert_eq!(made, [tree.0.join("new")]);
        assert!(text.contains("last_cmd_status: ok") && text.contains("L3:0=0"), "{text}");
    }

    #[test]
    fn a_change_can_be_taken_back() {
        let tree = Tree::new("change");
        tree.group("c1");
        let class = tree.class(r#"{"l3CacheSchema":"L3:0=f","schemata":["MB:0=10"]}"#).unwrap();
        let old = class.change().unwrap();
        assert_eq!(tree.read("c1/schemata"), "L3:0=f\nMB:0=10\n");
        class.restore(&old).unwrap();
        // A file of the kernel's would not keep the tail of what was longer.
        assert!(tree.read("c1/schemata").starts_with("L3:0=0ff\n"));
        fs::remove_file(tree.0.join("c1/schemata")).unwrap();
        let text = format!("{:#}", class.change().unwrap_err());
        assert!(text.contains("c1/schemata"), "{text}");
    }

    #[test]
    fn what_the_hardware_lacks_is_refused() {
        let tree = Tree::new("lacks");
        let error = tree.create(r#"{"memBwSchema":"MB:0=50"}"#).unwrap_err().to_string();
        assert!(error.ends_with("but Intel RDT/MBA is not enabled"), "{error}");
        assert!(tree.class(r#"{"l3CacheSchema":"L3:0=f"}"#).is_ok());
    }
}
