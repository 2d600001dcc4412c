//! A container's cgroup: located (touching nothing), created, limited, entered, frozen, killed,
//! removed. One directory per mounted v1 hierarchy, or the one of the unified hierarchy.
//! The order that spares the container every surprise: create, apply, then enter.

mod apply;
mod controllers;
mod create;
mod devices_bpf;
mod exec;
mod files;
mod freezer;
mod journal;
mod oom;
mod processes;
mod remove;
pub(crate) mod stats;
pub(crate) mod systemd;
mod topology;
mod tree;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::files::Dir;
pub(crate) use self::journal::Journal;
pub(crate) use crate::plan::cgroup::{Mode, Privilege};

/// Controller (or `name=…`; empty for the unified hierarchy) -> absolute directory: the shape of
/// `cgroup_paths` in runc's state.json.
pub(crate) type Record = BTreeMap<String, String>;

/// The cgroup of one container, which may not exist (yet, or any more).
#[derive(Debug)]
pub(crate) struct Cgroup {
    mode: Mode,
    privilege: Privilege,
    insistence: Insistence,
    hierarchies: Vec<Hierarchy>,
    /// Ancestors that [`Cgroup::create`] made on the way, outermost first.
    made_parents: Vec<PathBuf>,
    /// It is that of a unit of systemd.
    unit: Option<systemd::Managed>,
    /// What was not to be had, and where the container therefore stays in our own cgroup.
    given_up: Vec<Hierarchy>,
}

/// Without privilege: where being denied the cgroup is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Insistence {
    /// The path is somebody's choice.
    Everywhere,
    /// The path is our own choice; on v1 one hierarchy more or less makes no difference, the
    /// unified one is left out only if nothing is wanted of it.
    Unified,
    /// A further process comes where it can.
    Nowhere,
}

/// The directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// Several where v1 controllers are mounted together; empty for the unified hierarchy.
    controllers: Vec<String>,
    path: PathBuf,
}

impl Cgroup {
    /// Decides where the cgroup is. An absolute `cgroups_path` counts from the mounts; a relative
    /// one, or the id in its absence, from our own cgroup (v2: from its parent, since a cgroup
    /// with processes can't hand controllers down).
    pub(crate) fn locate(
        cgroups_path: Option<&str>,
        id: &str,
        mode: Mode,
        privilege: Privilege,
    ) -> Result<Self> {
        let given = cgroups_path.filter(|path| !path.is_empty());
        if let Some(path) = given {
            refuse_systemd_form(path)?;
        }
        let path = clean(given.unwrap_or(id));
        if path == Path::new("") || path == Path::new("/") {
            bail!("cgroupsPath {:?} names no cgroup", given.unwrap_or(id));
        }
        let mut hierarchies = Vec::new();
        for place in topology::places(mode)? {
            let path = if path.is_absolute() {
                place.mount.join(path.strip_prefix("/")?)
            } else {
                let own = place.own.context("own cgroup is not beneath its mount")?;
                let parent = match (mode, own.parent()) {
                    (Mode::V2, Some(parent)) if own != place.mount => parent.to_owned(),
                    _ => own,
                };
                parent.join(&path)
            };
            hierarchies.push(Hierarchy { controllers: place.controllers, path });
        }
        let devices = mode == Mode::V2 || find(&hierarchies, "devices").is_some();
        if !devices && privilege == Privilege::Root {
            bail!("mountpoint for devices not found");
        }
        let insistence = if given.is_some() { Insistence::Everywhere } else { Insistence::Unified };
        Ok(Self::of(mode, privilege, insistence, hierarchies))
    }

    fn of(
        mode: Mode,
        privilege: Privilege,
        insistence: Insistence,
        hierarchies: Vec<Hierarchy>,
    ) -> Self {
        Self {
            mode,
            privilege,
            insistence,
            hierarchies,
            made_parents: Vec::new(),
            unit: None,
            given_up: Vec::new(),
        }
    }

    /// The cgroup that an earlier [`Cgroup::record`] tells of.
    pub(crate) fn from_record(record: &Record, privilege: Privilege) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for (controller, path) in record.iter().filter(|(_, path)| !path.is_empty()) {
            let path = PathBuf::from(path);
            let index = hierarchies.iter().position(|known| known.path == path);
            let index = index.unwrap_or_else(|| {
                hierarchies.push(Hierarchy { controllers: Vec::new(), path });
                hierarchies.len() - 1
            });
            if !controller.is_empty() {
                hierarchies[index].controllers.push(controller.clone());
            }
        }
        let unified = hierarchies.iter().any(Hierarchy::is_unified);
        let mode = match (unified, hierarchies.len()) {
            (true, 1) => Mode::V2,
            (true, _) => Mode::Hybrid,
            (false, _) => Mode::V1,
        };
        Self::of(mode, privilege, Insistence::Everywhere, hierarchies)
    }

    /// What the state record keeps.
    pub(crate) fn record(&self) -> Record {
        to_record(&self.hierarchies)
    }

    /// Where the container's processes are: as the record, and where there was nothing to be had,
    /// in our own cgroup.
    pub(crate) fn shown(&self) -> Result<Record> {
        let mut record = self.record();
        if !self.given_up.is_empty() {
            let own = topology::places(self.mode)?.into_iter().filter_map(|place| {
                Some(Hierarchy { controllers: place.controllers, path: place.own? })
            });
            let missing =
                |own: &Hierarchy| self.given_up.iter().any(|it| it.controllers == own.controllers);
            record.extend(to_record(&own.filter(missing).collect::<Vec<_>>()));
        }
        Ok(record)
    }

    /// How the host mounts cgroups.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The directory of `controller` (v2: of all), for those who watch or show it.
    pub(crate) fn path(&self, controller: &str) -> Option<&Path> {
        self.hierarchy(controller).map(|hierarchy| hierarchy.path.as_path())
    }

    /// True if the cgroup is there (v1: judged by the principal hierarchy).
    pub(crate) fn exists(&self) -> Result<bool> {
        match self.principal() {
            Some(hierarchy) => Ok(Dir::open_if_exists(&hierarchy.path)?.is_some()),
            None => Ok(false),
        }
    }

    /// v2: the directory for `CLONE_INTO_CGROUP`. Otherwise processes have to be put in by
    /// [`Cgroup::enter`].
    pub(crate) fn dir_fd(&self) -> Result<Option<OwnedFd>> {
        if self.needs_process() {
            return Ok(None);
        }
        match (self.mode, self.hierarchies.first()) {
            (Mode::V2, Some(hierarchy)) => Ok(Some(Dir::open(&hierarchy.path)?.into_fd())),
            _ => Ok(None),
        }
    }

    /// The hierarchy whose files limit `controller`.
    fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        match self.mode {
            Mode::V2 => self.hierarchies.first(),
            Mode::V1 | Mode::Hybrid => find(&self.hierarchies, controller),
        }
    }

    fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.is_unified())
    }

    /// The hierarchy whose processes stand for all: every container is in `devices` on v1.
    fn principal(&self) -> Option<&Hierarchy> {
        self.hierarchy("devices").or(self.hierarchies.first())
    }
}

impl Hierarchy {
    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }
}

fn to_record(hierarchies: &[Hierarchy]) -> Record {
    let mut record = Record::new();
    for hierarchy in hierarchies {
        let path = hierarchy.path.to_string_lossy();
        if hierarchy.is_unified() {
            record.insert(String::new(), path.into_owned());
        } else {
            for controller in &hierarchy.controllers {
                record.insert(controller.clone(), path.clone().into_owned());
            }
        }
    }
    record
}

fn find<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Option<&'a Hierarchy> {
    hierarchies.iter().find(|hierarchy| hierarchy.has(controller))
}

/// `slice:prefix:name` is the systemd driver's form; as a directory name it would put the
/// container where nobody looks for it.
fn refuse_systemd_form(path: &str) -> Result<()> {
    let mut parts = path.split(':');
    if let (Some(slice), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
        && slice.ends_with(".slice")
        && !path.contains('/')
    {
        bail!(
            "cgroupsPath {path:?} is of the form \"slice:prefix:name\", which needs \
             --systemd-cgroup"
        );
    }
    Ok(())
}

/// Resolves `.` and `..` in the text; a path can't climb above its start. Relative stays relative.
fn clean(path: &str) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::Normal(_) => plain.push(part),
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// Waits for something the kernel gives no event for.
fn pause(time: Duration) -> Result<()> {
    let timeout = nix::poll::PollTimeout::try_from(time).context("timeout of poll")?;
    match nix::poll::poll(&mut [], timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context("poll"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_climb_above_their_start() {
        for (path, plain) in [
            ("/a/../../b", "/b"),
            ("../../a/./b/", "a/b"),
            ("a/../..", ""),
            ("/..", "/"),
            ("a//b", "a/b"),
        ] {
            assert_eq!(clean(path), Path::new(plain), "{path}");
        }
    }

    #[test]
    fn the_systemd_form_is_refused() {
        assert!(refuse_systemd_form("system.slice:runc:x").is_err());
        assert!(refuse_systemd_form("/a:b:c").is_ok());
        assert!(refuse_systemd_form("a:b:c").is_ok());
    }

    #[test]
    fn a_record_says_all_that_is_needed() {
        let v1 = Hierarchy {
            controllers: vec!["cpu".to_owned(), "cpuacct".to_owned()],
            path: PathBuf::from("/c/cpu,cpuacct/x"),
        };
        let unified = Hierarchy { controllers: Vec::new(), path: PathBuf::from("/c/unified/x") };
        for (mode, hierarchies) in [
            (Mode::V1, vec![v1.clone()]),
            (Mode::Hybrid, vec![unified.clone(), v1]),
            (Mode::V2, vec![unified]),
        ] {
            let cgroup = Cgroup {
                mode,
                privilege: Privilege::Root,
                insistence: Insistence::Everywhere,
                hierarchies: hierarchies.clone(),
                made_parents: Vec::new(),
                unit: None,
                given_up: Vec::new(),
            };
            let again = Cgroup::from_record(&cgroup.record(), Privilege::Root);
            assert_eq!((again.mode, again.hierarchies), (mode, hierarchies));
        }
    }
}
