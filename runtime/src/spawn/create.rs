//! `create` and `run`: a new container, from what can be decided without a trace to a process that
//! waits for `start`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use super::child::Child;
use super::placing::{self, Forked};
use super::serve::{self, Outcome, Station};
use super::undo::Made;
use super::{
    SpawnOptions, Spawned, cgroup_view, compile_filter, files, idmap, log_clone, own_pid_namespace,
    set_undumpable, streams,
};
use crate::apply::limits::{self, Setter};
use crate::bundle::Bundle;
use crate::cgroup::systemd::UnitWish;
use crate::cgroup::{Cgroup, Mode, Privilege};
use crate::channel::{Channel, Message};
use crate::error::Sentinel;
use crate::host::Host;
use crate::init;
use crate::init::joining::{Join, Relay};
use crate::plan::cgroup::CgroupPlan;
use crate::plan::mounts::Kind as MountKind;
use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::seccomp::Filter;
use crate::plan::{self, Choices, Plan};
use crate::resctrl::Class;
use crate::spec::Spec;
use crate::state::{Claim, Record, StateStore, Status};
use crate::sys::{self, Cloned};
use crate::validate;

/// All that `create` needs to know.
pub(crate) struct CreateRequest<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Bundle,
    pub(crate) host: &'a Host,
    pub(crate) store: &'a StateStore,
    pub(crate) no_pivot: bool,
    pub(crate) options: SpawnOptions,
}

/// Makes a container whose process waits for `start`.
pub(crate) fn create(request: &CreateRequest) -> Result<Spawned> {
    files::check_preserved(request.options.preserve_fds)?;
    validate::validate(request.bundle, request.host)?;
    let Prepared { plan, filter, mut cgroup, limits, class } = Prepared::new(request)?;
    let mut made = Made::default();
    let (filter, class) = (filter.as_ref(), class.as_ref());
    let work = Work { request, plan: &plan, filter, limits: &limits, class };
    match work.make(&mut cgroup, &mut made) {
        Ok(mut spawned) => {
            spawned.warnings.splice(0..0, plan.warnings.iter().cloned());
            if request.host.rootless
                && cgroup.record().is_empty()
                && !plan.namespaces.is_new(Kind::Pid)
            {
                spawned.warnings.push(UNKILLABLE.to_owned());
            }
            Ok(spawned)
        }
        // The id was refused: nothing has been tried.
        Err(error) if error.is::<Sentinel>() => Err(made.unmake(&cgroup, error)),
        Err(error) => Err(made.unmake(&cgroup, error).context("unable to start container process")),
    }
}

/// runc's suite looks for these words.
const UNKILLABLE: &str = "the container has neither a cgroup nor a pid namespace of its own. Such \
                          configuration is strongly discouraged, as it is impossible to properly \
                          kill all its processes";

/// All that can be decided and can fail without a trace.
struct Prepared {
    plan: Plan,
    filter: Option<Filter>,
    cgroup: Cgroup,
    limits: CgroupPlan,
    class: Option<Class>,
}

impl Prepared {
    fn new(request: &CreateRequest) -> Result<Self> {
        let spec = &request.bundle.spec;
        let linux = spec.linux.as_ref();
        let choices = Choices {
            no_pivot: request.no_pivot,
            no_new_keyring: request.options.no_new_keyring,
            preserve_fds: request.options.preserve_fds,
        };
        let bundle = request.bundle;
        let mut plan = plan::plan(request.id, &bundle.dir, &bundle.rootfs, spec, choices)?;
        let filter = compile_filter(linux, &mut plan.warnings)?;
        let (cgroup, limits) = locate_cgroup(request.id, spec, request.host, &mut plan.warnings)?;
        let intel_rdt = linux.and_then(|linux| linux.intel_rdt.as_ref());
        let class = intel_rdt.map(|asked| Class::locate(asked, request.id)).transpose()?;
        Ok(Prepared { plan, filter, cgroup, limits, class })
    }
}

/// Where the container's cgroup is to be, and what is to limit it there.
pub(crate) fn locate_cgroup(
    id: &str,
    spec: &Spec,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<(Cgroup, CgroupPlan)> {
    let linux = spec.linux.as_ref();
    let mode = Mode::probe()?;
    let cgroups_path = linux.and_then(|linux| linux.cgroups_path.as_deref());
    let resources = linux.and_then(|linux| linux.resources.clone()).unwrap_or_default();
    let privilege = privilege(host);
    let (cgroup, resources) = if host.systemd_cgroup {
        let annotations = &spec.annotations;
        let wish = UnitWish { cgroups_path, id, annotations, resources: &resources, host };
        let (cgroup, more) = Cgroup::locate_unit(&wish, mode, privilege)?;
        warnings.extend(more);
        (cgroup, plan::systemd::limits::rounded(resources))
    } else {
        (Cgroup::locate(cgroups_path, id, mode, privilege)?, resources)
    };
    let limits = plan::cgroup::plan(Some(&resources), mode)?;
    warnings.extend(limits.warnings.iter().cloned());
    Ok((cgroup, limits))
}

/// Makes the cgroup, or what systemd has left of it to us; `owned` tells whether it is ours to
/// clear.
pub(crate) fn make_cgroup(
    cgroup: &mut Cgroup,
    limits: &CgroupPlan,
    plan: &Plan,
    spec: &Spec,
    owned: &mut bool,
) -> Result<()> {
    // systemd has checked that what it has started is nobody else's.
    *owned = cgroup.is_started();
    cgroup.create(limits).context("unable to apply cgroup configuration")?;
    // Not before: what has been refused may be another container's.
    *owned = true;
    if manages_own_cgroup(plan)
        && let Some(uid) = idmap::process_user(spec)
    {
        cgroup.delegate(uid).context("unable to apply cgroup configuration")?;
    }
    Ok(())
}

/// Carries a prepared start out.
struct Work<'a> {
    request: &'a CreateRequest<'a>,
    plan: &'a Plan,
    filter: Option<&'a Filter>,
    limits: &'a CgroupPlan,
    class: Option<&'a Class>,
}

impl<'a> Work<'a> {
    fn make(&self, cgroup: &mut Cgroup, made: &mut Made<'a>) -> Result<Spawned> {
        let Work { request, plan, .. } = *self;
        let options = &request.options;
        let host = request.host;
        let setter = Setter::choose()?;
        let keyring = options.no_new_keyring;
        let mut record =
            Record::intent(request.id, request.bundle, cgroup.record(), host.rootless, keyring);
        record.systemd = cgroup.unit().cloned();
        record.external_descriptors =
            files::external_descriptors(&options.stdio, plan.process.terminal);
        if let Some(class) = self.class {
            record.intel_rdt_path = class.path().display().to_string();
            record.resctrl_groups = class.to_be_made();
        }
        let claim = made.record(request.store, plan, &record, &request.bundle.raw)?;

        // What can fail on the host comes before the process, while there is little to undo.
        let console = files::connect_console(&options.console, plan.process.terminal)?;
        let pidfd_socket = options.pidfd_socket.as_deref().map(files::connect).transpose()?;
        let late = cgroup.needs_process();
        if late {
            cgroup.check_unused().context("unable to apply cgroup configuration")?;
        } else {
            self.make_cgroup(cgroup, &mut made.cgroup)?;
        }
        let Begun { child, placed, relayed } = self.clone(&record, cgroup, &claim, setter)?;
        let child = made.child.insert(child);
        if relayed {
            child.follow_relay()?;
        }
        log_clone(child.pid);
        record.set_process(child.pid)?;
        request.store.save(&record)?;
        if plan.namespaces.is_new(Kind::User) {
            idmap::write(child.pid, &plan.namespaces, host)?;
            child.tell(&Message::Mapped)?;
        }
        if late {
            let pid = child.pid;
            cgroup.start(pid).context("unable to apply cgroup configuration")?;
            self.make_cgroup(cgroup, &mut made.cgroup)?;
        }
        // Before anything enters: a v1 cpuset takes no process until it has CPUs and memory nodes.
        cgroup.apply(self.limits).context("unable to apply cgroup configuration")?;
        if !placed {
            cgroup.enter(child.pid).context("unable to apply cgroup configuration")?;
            child.tell(&Message::Placed)?;
        }
        if let Some(class) = self.class {
            class
                .create(&mut made.groups)
                .and_then(|()| class.enter(child.pid))
                .context("unable to apply Intel RDT configuration")?;
        }
        files::set_oom_score(child.pid, plan.process.oom_score_adj, host)?;

        let mut outcome = Outcome::default();
        let station = Station {
            record: &record,
            console,
            filter: self.filter,
            cgroup,
            status: Status::Creating,
        };
        made.hooks_ran = true;
        serve::create(child, &station, plan, &mut outcome)?;
        if setter == Setter::Parent {
            limits::set(child.pid, &plan.process.limits)?;
        }
        if record.cgroup_paths != cgroup.record() {
            record.cgroup_paths = cgroup.record();
            request.store.save(&record)?;
        }
        files::publish(options.pid_file.as_deref(), child.pid)?;
        if let Some(socket) = pidfd_socket {
            files::send_descriptor(socket.as_fd(), child.as_fd(), b"standard")?;
        }
        Ok(outcome.spawned(made.keep()?))
    }

    fn make_cgroup(&self, cgroup: &mut Cgroup, owned: &mut bool) -> Result<()> {
        make_cgroup(cgroup, self.limits, self.plan, &self.request.bundle.spec, owned)
    }

    fn clone(
        &self,
        record: &Record,
        cgroup: &Cgroup,
        claim: &Claim,
        limits: Setter,
    ) -> Result<Begun> {
        let Work { request, plan, .. } = *self;
        let directory = request.store.directory(request.id);
        let fifo = files::make_fifo(&directory, idmap::container_root(&request.bundle.spec))?;
        let view = cgroup_view(cgroup.mode(), cgroup.shown()?, &plan.namespaces);
        let new = plan.namespaces.clone_flags();
        let mut relayed = needs_relay(&plan.namespaces);
        let mut enters_pids = false;
        let into = cgroup.dir_fd()?;
        let mut start = init::Create {
            plan,
            filter: self.filter,
            record,
            relay: None,
            joins: open_joins(&plan.namespaces)?,
            cgroups: &view,
            reaches_further: plan.namespaces.has(Kind::User) && request.host.euid == 0,
            fifo: fifo.as_fd(),
            stdio: streams(&request.options.stdio),
            limits,
            placed: false,
        };
        // Only the child's children would be in a pid namespace that the child joins itself.
        let pids = start.joins.iter().find(|join| join.kind == Kind::Pid);
        let own = pids.map(|_| own_pid_namespace()).transpose()?;
        if let Some(pids) = pids {
            // Those who live there already must not look into the newcomer.
            set_undumpable()?;
            match pids.enter() {
                // Those of the user namespace may, where the process in between will be.
                Err(Errno::PERM) if plan.namespaces.joins(Kind::User) => enters_pids = true,
                other => other.context("join the pid namespace")?,
            }
        }
        relayed |= enters_pids;
        start.relay = relayed.then_some(Relay { new, enters_pids });
        let (ours, theirs) = Channel::pair()?;
        let flags = if relayed { 0 } else { new };
        let forked = placing::fork(flags, into.as_ref().map(AsFd::as_fd));
        if let Ok(Forked { cloned: Cloned::Child, placed }) = forked {
            // The lock is the parent's: held here too it would outlive it.
            sys::close_inherited(claim.as_fd());
            if let Some(connection) = cgroup.connection() {
                sys::close_inherited(connection);
            }
            drop(ours);
            start.placed = placed;
            init::create(&start, theirs)
        }
        if let Some(own) = own.filter(|_| !enters_pids) {
            own.enter().context("return to our pid namespace")?;
        }
        match forked.context("clone3")? {
            Forked { cloned: Cloned::Parent { pid, pidfd }, placed } => {
                Ok(Begun { child: Child { pid, pidfd, channel: ours }, placed, relayed })
            }
            Forked { cloned: Cloned::Child, .. } => bail!("the child has come back"),
        }
    }
}

/// What clone3 has made.
struct Begun {
    child: Child,
    /// It is in its cgroup already.
    placed: bool,
    /// It is the one in between, which makes the container's.
    relayed: bool,
}

fn privilege(host: &Host) -> Privilege {
    if host.rootless { Privilege::Rootless } else { Privilege::Root }
}

fn open_joins(namespaces: &Namespaces) -> Result<Vec<Join>> {
    let open = |(kind, path): &(Kind, PathBuf)| {
        let namespace = std::fs::File::open(path)
            .with_context(|| format!("linux.namespaces: lstat {}", path.display()))?
            .into();
        Ok(Join { kind: *kind, namespace })
    };
    namespaces.join.iter().map(open).collect()
}

/// New namespaces belong to the user namespace of whoever makes them: one that is joined has to be
/// joined before, and what only the host's rights can join, before a new one is made.
fn needs_relay(namespaces: &Namespaces) -> bool {
    let joins_others = namespaces.join.iter().any(|(kind, _)| *kind != Kind::Pid);
    let joins_user = namespaces.joins(Kind::User) && namespaces.clone_flags() != 0;
    joins_user || (namespaces.is_new(Kind::User) && joins_others)
}

/// The container sees its cgroup as the root of all, and may write there.
fn manages_own_cgroup(plan: &Plan) -> bool {
    plan.namespaces.is_new(Kind::Cgroup)
        && plan.mounts.iter().any(|mount| mount.kind == MountKind::Cgroup && !mount.read_only())
}
