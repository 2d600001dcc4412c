//! The systemd driver: the container's cgroup is that of a transient unit, which systemd makes,
//! keeps and removes. A scope can't be without processes, so the order is: check, fork, start,
//! create (what systemd leaves to us), apply, enter.

mod manager;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::manager::Manager;
use super::{Cgroup, Mode, Privilege, topology};
use crate::host::Host;
use crate::log;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::systemd::{Property, Unit, annotations, limits};
use crate::spec::resources::Resources;

/// Whose systemd it is shows in who owns this.
const SYSTEM_PRIVATE: &str = "/run/systemd/private";

/// What the state record keeps of the unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitRecord {
    /// `runc-ID.scope`
    pub(crate) unit: String,
    /// The systemd is the user's, not the system's.
    pub(crate) user: bool,
}

/// The unit of a cgroup.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) record: UnitRecord,
    /// The directory of the unit's cgroup in the unified hierarchy.
    base: PathBuf,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Waits for its first process.
    Planned(Box<Start>),
    /// By us; its first process is in it.
    Started,
    /// By an earlier command.
    Recorded,
}

impl Managed {
    /// As a later command sees it.
    pub(super) fn recorded(&self) -> Self {
        let Managed { record, base, .. } = self;
        Managed { record: record.clone(), base: base.clone(), stage: Stage::Recorded }
    }
}

/// All that is needed to start it.
#[derive(Debug)]
struct Start {
    manager: Manager,
    unit: Unit,
    properties: Vec<Property>,
}

/// What decides about the unit of a new container.
pub(crate) struct UnitWish<'a> {
    pub(crate) cgroups_path: Option<&'a str>,
    pub(crate) id: &'a str,
    pub(crate) annotations: &'a BTreeMap<String, String>,
    pub(crate) resources: &'a Resources,
    pub(crate) host: &'a Host,
}

impl Cgroup {
    /// Decides which unit, and where its cgroup will be; also what can't be said to systemd. The
    /// connection is made here, since without one nothing can be made.
    pub(crate) fn locate_unit(
        wish: &UnitWish,
        mode: Mode,
        privilege: Privilege,
    ) -> Result<(Self, Vec<String>)> {
        let user = is_users(wish.host)?;
        if user && mode != Mode::V2 {
            bail!("cannot use rootless systemd cgroups manager on cgroup v1");
        }
        let program = wish.host.program.name();
        let unit = Unit::plan(wish.cgroups_path, wish.id, program, user)?;
        let mut properties = annotations::properties(wish.annotations)?;
        let mut manager = Manager::connect(user)?;
        let limits = limits::at_start(wish.resources, mode, manager.version)?;
        // Of two values the last holds: an annotation does not loosen a limit.
        properties.extend(limits.properties);
        let mut path = if user { manager.control_group()? } else { String::new() };
        path.push_str(&unit.path);
        let mut cgroup = Self::locate(Some(&path), wish.id, mode, privilege)?;
        let record = UnitRecord { unit: unit.name.clone(), user };
        let start = Start { manager, unit, properties };
        cgroup.manage(record, Stage::Planned(Box::new(start)));
        Ok((cgroup, limits.warnings))
    }

    /// This cgroup as that of a unit that is there.
    pub(crate) fn managed_by(mut self, unit: Option<UnitRecord>) -> Self {
        if let Some(record) = unit {
            self.manage(record, Stage::Recorded);
        }
        self
    }

    fn manage(&mut self, record: UnitRecord, stage: Stage) {
        let base = self.unified().map(|hierarchy| hierarchy.path.clone()).unwrap_or_default();
        self.unit = Some(Managed { record, base, stage });
    }

    /// What the state record keeps of the unit, if the cgroup is of one.
    pub(crate) fn unit(&self) -> Option<&UnitRecord> {
        self.unit.as_ref().map(|unit| &unit.record)
    }

    /// The cgroup comes to be with its first process.
    pub(crate) fn needs_process(&self) -> bool {
        matches!(self.unit, Some(Managed { stage: Stage::Planned(_), .. }))
    }

    /// The unit has been started by us, so that its cgroup has a process.
    pub(crate) fn is_started(&self) -> bool {
        matches!(self.unit, Some(Managed { stage: Stage::Started, .. }))
    }

    /// The connection that waits to start the unit, not to be inherited.
    pub(crate) fn connection(&self) -> Option<BorrowedFd<'_>> {
        match &self.unit {
            Some(Managed { stage: Stage::Planned(start), .. }) => Some(start.manager.as_fd()),
            _ => None,
        }
    }

    /// Starts the unit with its first process. Afterwards what systemd did not make can be created.
    pub(crate) fn start(&mut self, pid: i32) -> Result<()> {
        let Some(managed) = &mut self.unit else { return Ok(()) };
        let stage = std::mem::replace(&mut managed.stage, Stage::Started);
        let Stage::Planned(start) = stage else { return Ok(()) };
        let Start { mut manager, unit, properties: asked } = *start;
        let number = u32::try_from(pid).context("a process id")?;
        let mut properties = unit.properties(number, self.mode);
        properties.extend(asked);
        manager
            .start(&unit.name, properties)
            .with_context(|| format!("unable to start unit {:?}", unit.name))?;
        if unit.is_slice() || self.mode != Mode::V2 {
            return Ok(());
        }
        // Limits that are set on one cgroup while the process is in another limit nothing.
        let found = topology::unified_path_of(pid)?;
        if found.as_ref() != Some(&managed.base) {
            let failure = format!(
                "systemd has put the container into {} and not into {}",
                found.unwrap_or_default().display(),
                managed.base.display()
            );
            manager.stop(&unit.name).context(failure.clone())?;
            bail!(failure);
        }
        Ok(())
    }

    /// Moves a process by way of systemd, where that has to be; false if it is left to us.
    pub(super) fn enter_unit(&self, pid: i32) -> Result<bool> {
        let Some(managed) = &self.unit else { return Ok(false) };
        if self.mode != Mode::V2 || managed.record.unit.ends_with(".slice") {
            return Ok(false);
        }
        if let Stage::Recorded = managed.stage {
            let beneath = self.hierarchies.first().map(|it| it.path.strip_prefix(&managed.base));
            let beneath = beneath.transpose().context("outside of the unit's cgroup")?;
            let beneath = format!("/{}", beneath.unwrap_or("".as_ref()).display());
            let pid = u32::try_from(pid).context("a process id")?;
            Manager::connect(managed.record.user)?.attach(&managed.record.unit, &beneath, pid)?;
        }
        Ok(true)
    }

    /// Tells systemd of the limits that are in force since `plan` was applied, or it would write the
    /// old ones again some day. What it can't be told is returned. The plan is applied again, for
    /// systemd has its own ideas of some values (`io.bfq.weight`).
    pub(crate) fn update_unit(
        &self,
        resources: &Resources,
        plan: &CgroupPlan,
    ) -> Result<Vec<String>> {
        let Some(managed) = &self.unit else { return Ok(Vec::new()) };
        let mut manager = Manager::connect(managed.record.user)?;
        let limits = limits::of_update(resources, self.mode, manager.version)?;
        if limits.properties.is_empty() {
            return Ok(limits.warnings);
        }
        // On v1 systemd applies device rules by forbidding everything first.
        let freeze = self.mode != Mode::V2 && !self.is_frozen()?;
        if freeze {
            self.freeze()?;
        }
        let result = manager.set_properties(&managed.record.unit, limits.properties);
        if freeze {
            self.thaw()?;
        }
        result?;
        self.apply(&plan.unconditional())?;
        Ok(limits.warnings)
    }

    /// Ends the unit.
    pub(super) fn stop_unit(&self) -> Result<()> {
        let Some(Managed { record: UnitRecord { unit, user }, stage, .. }) = &self.unit else {
            return Ok(());
        };
        if let Stage::Planned(_) = stage {
            return Ok(());
        }
        match Manager::connect(*user) {
            Ok(mut manager) => manager.stop(unit),
            // An empty scope ends by itself. Should the cgroup stay, its removal tells.
            Err(error) => {
                log::warn(format_args!("unit {unit} is left to end by itself: {error:#}"));
                Ok(())
            }
        }
    }
}

/// Root of the host has the system's systemd, everybody else the user's: also root of a user
/// namespace, unless that namespace is of a container with a systemd of its own.
fn is_users(host: &Host) -> Result<bool> {
    if !host.rootless || host.euid != 0 || !host.in_userns {
        return Ok(host.rootless);
    }
    match std::fs::metadata(SYSTEM_PRIVATE) {
        Ok(metadata) => Ok(metadata.uid() != 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("stat {SYSTEM_PRIVATE}")),
    }
}
