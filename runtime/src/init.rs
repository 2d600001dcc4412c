//! The child half: two flat functions, one for the first process of a container and one for a
//! process that joins it. The order of the steps is the design; each says why it stands there.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::DumpableBehavior;

use crate::apply::devices::Making;
use crate::apply::limits::Setter;
use crate::apply::mounts::{CgroupView, Mounter};
use crate::apply::rootfs::Views;
use crate::apply::{devices, identity, lsm, program, rootfs, sysctl, terminal};
use crate::channel::{Channel, Message};
use crate::plan::Plan;
use crate::plan::mounts::{Kind as MountKind, MountPlan};
use crate::plan::namespaces::Kind;
use crate::plan::process::ProcessPlan;
use crate::plan::seccomp::Filter;
use crate::procfs::Procfs;
use crate::rooted::{Root, clean};
use crate::state::{self, Record, Status};
use crate::{hooks, sys};

pub(crate) mod joining;
pub(crate) mod mounts;
mod process;

use joining::{Join, Relay};
use process::become_process;

/// What the first process of a container gets from the parent half.
pub(crate) struct Create<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) record: &'a Record,
    pub(crate) relay: Option<Relay>,
    pub(crate) joins: Vec<Join>,
    pub(crate) cgroups: &'a CgroupView,
    /// The parent half may open sources of mounts that we might not.
    pub(crate) reaches_further: bool,
    /// A handle on the pipe that `start` opens.
    pub(crate) fifo: BorrowedFd<'a>,
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    pub(crate) limits: Setter,
    /// clone3 has put us into the cgroup already.
    pub(crate) placed: bool,
}

/// What a process that joins a container gets from the parent half.
pub(crate) struct Exec<'a> {
    pub(crate) process: &'a ProcessPlan,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) channel: Channel,
    /// The container's first process, whose namespaces are joined.
    pub(crate) init: BorrowedFd<'a>,
    /// `CLONE_NEW*` of those that a process in between is to join, to make us there: the parent
    /// could not join that of the pids for us.
    pub(crate) relayed: u64,
    /// `CLONE_NEW*` of the others, without that of the pids.
    pub(crate) namespaces: u64,
    pub(crate) keyring: Option<&'a std::ffi::CString>,
    pub(crate) preserve_fds: u32,
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    pub(crate) limits: Setter,
    pub(crate) placed: bool,
}

/// Becomes the first process of a container.
pub(crate) fn create(start: &Create, channel: Channel) -> ! {
    let mut channel = Some(channel);
    let Err(error) = create_steps(start, &mut channel);
    fail(channel, &error)
}

/// Becomes a further process of a container.
pub(crate) fn exec(start: Exec) -> ! {
    let Err(error) = exec_steps(&start);
    fail(Some(start.channel), &error)
}

/// Tells the parent half, or, once that has left, whoever reads the container's stderr.
fn fail(channel: Option<Channel>, error: &anyhow::Error) -> ! {
    let text = crate::error::render(error);
    let told = channel.is_some_and(|channel| channel.send(&Message::Failed(text.clone())).is_ok());
    if !told {
        // Where stderr is closed too there is nobody left to tell.
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{text}\n").as_bytes());
    }
    sys::exit_now(1)
}

fn create_steps(start: &Create, channel: &mut Option<Channel>) -> Result<Infallible> {
    let plan = start.plan;
    let parent = channel.as_ref().context("the runtime is gone")?;
    own_process(start.stdio, plan.preserve_fds)?;
    // Who waits for `start` waits for long, and must hold nothing of the runtime's or its caller's:
    // not for the time of a create, as exec would do it, but from now on.
    let mut kept: Vec<BorrowedFd> = start.joins.iter().map(|it| it.namespace.as_fd()).collect();
    kept.extend([parent.as_fd(), start.fifo]);
    sys::close_inherited_but(&kept, 3 + plan.preserve_fds).context("close_range")?;

    // Joined namespaces come first: what is made from here on is to be made within them.
    match &start.relay {
        Some(relay) => joining::relay(&start.joins, relay, parent)?,
        None => joining::join_all(&start.joins)?,
    }
    start.joins.iter().for_each(|it| sys::close_inherited(it.namespace.as_fd()));

    // The clocks can be set only before anybody is in the namespace, and the file only by its
    // owner, who we are until the ids change.
    if plan.namespaces.is_new(Kind::Time) {
        joining::enter_new_time_namespace(&plan.namespaces.time_offsets)?;
    }
    // A bundle is for its owner alone as a rule, and we are still its owner.
    let place = rootfs::open(&plan.root)?;
    if plan.namespaces.is_new(Kind::User) {
        parent.expect(&Message::Mapped)?;
    }
    if plan.namespaces.has(Kind::User) {
        identity::set_ids(0, 0)?;
    }
    if plan.namespaces.late_ipc() {
        sys::unshare(Kind::Ipc.flag()).context("unshare the IPC namespace")?;
    }
    // The namespace may be another container's, whose processes must not look into us
    // (CVE-2016-9962). Changing ids has had its effect on this flag already. Nobody else is yet in
    // namespaces of our own, and an ordinary user's hooks reach them through us.
    let alone = plan.namespaces.is_new(Kind::User) && plan.namespaces.is_new(Kind::Pid);
    if !alone {
        be_undumpable()?;
    }
    rustix::process::setsid().context("setsid")?;
    if let Some(name) = &plan.keyring {
        identity::join_keyring(name, &plan.process, &Procfs::of_host()?)?;
    }
    if plan.namespaces.is_new(Kind::Network) {
        sys::loopback_up().context("bring up lo")?;
    }

    let own_mounts = plan.namespaces.has(Kind::Mount);
    let root = if own_mounts {
        rootfs::prepare(&plan.root, &place)?
    } else if plan.mounts.is_empty() {
        open_root(&plan.root.path)?
    } else {
        rootfs::prepare_among_the_hosts(&plan.root, &place)?
    };
    // It is of the host: who waits for `start` must not hold it.
    drop(place);
    let mut mounter = Mounter::new(&root, &plan.root.mount_label, start.cgroups);
    let mut in_place = false;
    for (index, mount) in plan.mounts.iter().enumerate() {
        let from_parent = needs_parent(mount, start.reaches_further) || hosts_own(mount, plan);
        let shows_cgroup = mount.kind == MountKind::Cgroup || mount.filesystem == "cgroup2";
        // A cgroup mount shows where we are: be there first, and in the namespace rooted there. And
        // what the parent half says of that comes before any answer.
        if !in_place && (from_parent || shows_cgroup) {
            settle_in_cgroup(plan, parent, start.placed)?;
            in_place = true;
        }
        let source = if from_parent { Some(ask_for_source(parent, index)?) } else { None };
        mounter.mount(index, mount, source)?;
    }
    let own_dev = own_mounts || plan.mounts.iter().any(|mount| mount.target == Path::new("dev"));
    if own_dev && let Some(nodes) = &plan.nodes {
        let making = if plan.namespaces.has(Kind::User) { Making::Bind } else { Making::Mknod };
        devices::populate(&root, nodes, making)?;
    }
    if !in_place {
        settle_in_cgroup(plan, parent, start.placed)?;
    }
    let views = Views {
        root: &root,
        procfs: mounter.procfs.as_ref().map(OwnedFd::try_clone).transpose()?.map(Root::new),
        sysfs: mounter.sysfs.take().map(Root::new),
    };
    // Before the root changes: where we can't make a procfs, the host's is still to be had.
    let procfs = match mounter.procfs.take() {
        Some(mount) => Procfs::from_mount(mount),
        None => Procfs::private()?,
    };

    // Hooks see the mounts made, and their paths are the host's: the root must not have changed.
    if plan.pauses_when_prepared() {
        parent.send(&Message::Prepared)?;
        parent.expect(&Message::Proceed)?;
    }
    be_undumpable()?;
    if !plan.hooks.create_container.is_empty() {
        let state = state_document(start.record, Status::Creating)?;
        // In the root, whose files they name by relative paths: so runc has it. Its path may lead through
        // directories that are closed to the container's ids.
        rustix::process::fchdir(root.as_fd()).context("chdir to the root file system")?;
        hooks::run("createContainer", &plan.hooks.create_container, &state, Path::new("."))?;
    }

    if own_mounts {
        rootfs::enter(&root, plan.root.no_pivot)?;
    } else {
        rootfs::change_root_to(&root)?;
    }

    // The user's mounts and hooks had their chance to bring a devpts; nothing is read-only yet.
    if plan.process.terminal {
        let devpts = mounter.devpts.as_ref().map(AsFd::as_fd);
        let terminal = terminal::open(&root, devpts, plan.process.console_size)?;
        if own_mounts {
            terminal::bind_console(&root, &terminal)?;
        }
        parent.send(&Message::Console(terminal::take(terminal, plan.process.uid)?))?;
    } else if own_mounts && plan.nodes.is_some() {
        terminal::own_null(&root, &procfs)?;
    }
    let cwd = clean(Path::new(&plan.process.cwd));
    root.directory(&cwd).with_context(|| format!("mkdir {}", plan.process.cwd))?;
    mounter.finish()?;
    if own_mounts {
        rootfs::settle(&plan.root, &root)?;
    }
    set_names(plan)?;
    // Through a procfs that the paths below are not yet mounted on.
    lsm::set_for_exec(&plan.process, &procfs)?;
    sysctl::set(&procfs, &plan.sysctls).context("linux.sysctl")?;
    rootfs::read_only_paths(&views, &plan.read_only)?;
    rootfs::mask_paths(&views, &plan.masked, &plan.root.mount_label)?;
    drop(views);

    // A filter may refuse what it takes to find it.
    let descriptors = procfs.descriptors()?;
    // `kill` and `stop` reach a created container too.
    sys::end_on_signals().context("sigaction")?;
    let program =
        become_process(&plan.process, start.filter, &root, &procfs, parent, start.limits)?;

    // All that can fail has been done, so that `create` fails and not `start`. The channel closes:
    // from here on we belong to nobody.
    parent.send(&Message::Ready)?;
    *channel = None;
    drop(mounter);
    drop((procfs, root));
    if alone && !start.reaches_further {
        // An ordinary user's `exec` can join no one who can't be looked into. Nothing is left here to be
        // found but the pipe's handle and the container's own /proc; the program starts anew.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
            .context("prctl(PR_SET_DUMPABLE)")?;
    }
    let fifo = descriptors.reopen(start.fifo, OFlags::WRONLY).context("open exec fifo")?;
    rustix::io::write(&fifo, b"0").context("write exec fifo")?;
    drop(fifo);
    let path = program.path.context("process property must not be empty")?;
    if !plan.hooks.start_container.is_empty() {
        let state = state_document(start.record, Status::Created)?;
        let (list, env) = (&plan.hooks.start_container, &program.env);
        hooks::run_with("startContainer", list, &state, Path::new("."), env)?;
    }
    program::execute(&path, &plan.process.argv, &program.env)
}

fn exec_steps(start: &Exec) -> Result<Infallible> {
    let process = start.process;
    let parent = &start.channel;
    own_process(start.stdio, start.preserve_fds)?;
    // The container's /proc may be missing, or not what it seems.
    let outside = Procfs::of_host()?;
    if start.relayed != 0 {
        joining::relay_into(start.init, start.relayed, parent)?;
    }
    // Before the cgroup namespace is joined, which would hide where we come from.
    if !start.placed {
        parent.expect(&Message::Placed)?;
    }
    // All at once: the kernel orders them so that each is still allowed.
    sys::join_namespaces(start.init, start.namespaces)
        .context("join the namespaces of the container's init")?;
    if (start.namespaces | start.relayed) & Kind::User.flag() != 0 {
        identity::set_ids(0, 0)?;
    }
    rustix::process::setsid().context("setsid")?;
    if let Some(name) = start.keyring {
        identity::join_keyring(name, process, &outside)?;
    }
    let root = open_root(Path::new("/"))?;
    let procfs = Procfs::private_or(outside);
    if process.terminal {
        let terminal = terminal::open(&root, None, process.console_size)?;
        parent.send(&Message::Console(terminal::take(terminal, process.uid)?))?;
    }
    lsm::set_for_exec(process, &procfs)?;
    let program = become_process(process, start.filter, &root, &procfs, parent, start.limits)?;
    parent.send(&Message::Ready)?;
    if start.limits == Setter::Parent && !process.limits.is_empty() {
        parent.expect(&Message::Proceed)?;
    }
    let path = program.path.context("args must not be empty")?;
    program::execute(&path, &process.argv, &program.env)
}

/// Sheds what the runtime's process has and the container's must not.
fn own_process(stdio: Option<[BorrowedFd; 3]>, preserve_fds: u32) -> Result<()> {
    sys::reset_signals().context("reset signals")?;
    rustix::process::umask(Mode::empty());
    if let Some(streams) = stdio {
        terminal::use_as_stdio(streams)?;
    }
    sys::close_on_exec_from(3 + preserve_fds).context("close_range")
}

fn be_undumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("prctl(PR_SET_DUMPABLE)")
}

fn open_root(path: &Path) -> Result<Root> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("open {}", path.display()))?;
    Ok(Root::new(directory))
}

/// Whether the mount has a source that only the parent half can prepare.
fn needs_parent(mount: &MountPlan, reaches_further: bool) -> bool {
    let binds = matches!(mount.kind, MountKind::Bind { .. }) && !mount.remount;
    binds && (reaches_further || mount.id_map.is_some())
}

/// Whether it is for the host to mount: a disk, which the cgroup lets no container open, or a
/// server, which the container's network need not reach. A user namespace has no right to either.
fn hosts_own(mount: &MountPlan, plan: &Plan) -> bool {
    const SERVERS: [&str; 6] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p"];
    let is_disk = || {
        rustix::fs::stat(&mount.source)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice)
    };
    mount.kind == MountKind::Other
        && !plan.namespaces.has(Kind::User)
        && (SERVERS.contains(&mount.filesystem.as_str()) || is_disk())
}

fn ask_for_source(parent: &Channel, index: usize) -> Result<OwnedFd> {
    parent.send(&Message::Source(u32::try_from(index).context("number of a mount")?))?;
    match parent.receive()? {
        Some(Message::Tree(tree)) => Ok(tree),
        Some(other) => anyhow::bail!("waited for the source of a mount, got {other:?}"),
        None => anyhow::bail!("waited for the source of a mount, but the runtime is gone"),
    }
}

/// The namespace is rooted where we are when it is made.
fn settle_in_cgroup(plan: &Plan, parent: &Channel, placed: bool) -> Result<()> {
    if !placed {
        parent.expect(&Message::Placed)?;
    }
    if plan.namespaces.is_new(Kind::Cgroup) {
        sys::unshare(Kind::Cgroup.flag()).context("unshare the cgroup namespace")?;
    }
    Ok(())
}

fn state_document(record: &Record, status: Status) -> Result<Vec<u8>> {
    // The pid as the hook sees it, which runs in our namespace.
    state::hook_document(record, status, rustix::process::getpid().as_raw_nonzero().get())
}

fn set_names(plan: &Plan) -> Result<()> {
    if !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes()).context("sethostname")?;
    }
    if !plan.domainname.is_empty() {
        rustix::system::setdomainname(plan.domainname.as_bytes()).context("setdomainname")?;
    }
    Ok(())
}
