//! `restore`: the record first, then the cgroup, then CRIU in a process that already is where the
//! container is to be. What fails undoes all of it.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::dump::DESCRIPTORS;
use super::prepare::Preparation;
use super::rpc::{self, Kind};
use super::setting::{self, Directories};
use super::steps::Steps;
use super::swrk::{Launch, Streams, Swrk};
use super::{Criu, locked, log};
use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::error::{Sentinel, render};
use crate::host::Host;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::criu::{self as plan_criu, Lasting, Options};
use crate::plan::namespaces::Kind as NamespaceKind;
use crate::plan::{self, Choices, Plan};
use crate::resctrl::Class;
use crate::spawn::undo::Made;
use crate::spawn::{Console, Spawned, Stdio, files, locate_cgroup, make_cgroup};
use crate::state::{self, Record, StateStore};
use crate::validate;

/// The first whose profiles can be replaced.
const REPLACES_LABELS: u32 = 31_600;

/// What is to be restored, and how.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Bundle,
    pub(crate) host: &'a Host,
    pub(crate) store: &'a StateStore,
    /// What the flags say.
    pub(crate) options: Options,
    pub(crate) images: &'a Path,
    pub(crate) work: Option<&'a Path>,
    pub(crate) no_pivot: bool,
    pub(crate) console: Console,
    pub(crate) stdio: Stdio,
    /// Made absolute by the caller.
    pub(crate) pid_file: Option<PathBuf>,
}

impl Request<'_> {
    fn directories(&self) -> Directories<'_> {
        Directories { images: self.images, work: self.work }
    }
}

/// All that can be decided and can fail without a trace.
struct Prepared {
    criu: Criu,
    plan: Plan,
    limits: CgroupPlan,
    class: Option<Class>,
    options: Options,
    /// The directories of the images and of the logs, which the options name by number.
    _directories: Vec<OwnedFd>,
    /// Of the namespaces, likewise.
    kept: Vec<OwnedFd>,
    console: Option<OwnedFd>,
}

/// Restores a container whose processes then run.
pub(crate) fn restore(request: &Request) -> Result<Spawned> {
    let (prepared, mut cgroup) = Prepared::new(request)?;
    let mut made = Made::default();
    let mut init = None;
    let restored = Work { request, prepared: &prepared }.make(&mut cgroup, &mut made, &mut init);
    let error = match restored {
        Ok(spawned) => return Ok(spawned),
        Err(error) => error,
    };
    let error = match init.as_ref().map_or(Ok(()), kill) {
        Ok(()) => error,
        Err(also) => error.context(render(&also)),
    };
    Err(made.unmake(&cgroup, error))
}

impl Prepared {
    fn new(request: &Request) -> Result<(Self, Cgroup)> {
        let Request { bundle, host, .. } = *request;
        state::check_id(request.id)?;
        if request.store.load(request.id).is_ok() {
            return Err(Sentinel::AlreadyExists.into());
        }
        validate::validate(bundle, host)?;
        let choices = Choices { no_pivot: request.no_pivot, ..Choices::default() };
        let mut plan = plan::plan(request.id, &bundle.dir, &bundle.rootfs, &bundle.spec, choices)?;
        setting::refuse_host_mounts(&plan)?;
        let mut options = request.options.clone();
        options.joined = plan_criu::joined(&plan.namespaces)?;
        let linux = bundle.spec.linux.as_ref();
        let (cgroup, limits) = locate_cgroup(request.id, &bundle.spec, host, &mut plan.warnings)?;
        let intel_rdt = linux.and_then(|linux| linux.intel_rdt.as_ref());
        let class = intel_rdt.map(|asked| Class::locate(asked, request.id)).transpose()?;

        let directories = open_directories(request, &mut options)?;
        let descriptors = read_descriptors(request.images)?;
        let pipes = descriptors.into_iter().zip(0..).filter(|(name, _)| name.contains("pipe:"));
        options.inherited = pipes.collect();
        let criu = Criu::find()?;
        if options.lsm_profile.is_some() {
            criu.require(REPLACES_LABELS, "--lsm-profile")?;
        }
        if options.lsm_mount_context.is_some() {
            criu.require(REPLACES_LABELS, "--lsm-mount-context")?;
        }
        let lasting = setting::lasting(&criu, &plan)?;
        let kept = open_namespaces(&lasting, &mut options)?;
        if locked::stands(request.images, &lasting)? {
            options.empty_namespaces = 0;
        }
        let console = files::connect_console(&request.console, plan.process.terminal)?;
        let prepared = Prepared {
            criu,
            plan,
            limits,
            class,
            options,
            _directories: directories,
            kept,
            console,
        };
        Ok((prepared, cgroup))
    }
}

fn open_directories(request: &Request, options: &mut Options) -> Result<Vec<OwnedFd>> {
    // Before a directory is made for the log.
    setting::open_directory(request.images)?;
    if !request.images.join("inventory.img").exists() {
        bail!(
            "{} holds no checkpoint (inventory.img is missing): name its directory by --image-path",
            request.images.display()
        );
    }
    request.directories().open(options)
}

/// What descriptors 0, 1 and 2 were when it was dumped; a dump of another program's may not say.
fn read_descriptors(images: &Path) -> Result<Vec<String>> {
    let path = images.join(DESCRIPTORS);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let descriptors: Option<Vec<String>> =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    Ok(descriptors.unwrap_or_default())
}

/// The namespaces that the container finds again, to be open in CRIU's process.
fn open_namespaces(lasting: &[Lasting], options: &mut Options) -> Result<Vec<OwnedFd>> {
    let mut kept = Vec::new();
    for namespace in lasting {
        let file = std::fs::File::open(&namespace.path).with_context(|| {
            let (kind, path) = (namespace.kind.name(), namespace.path.display());
            format!("Requested {kind} namespace {path} does not exist")
        })?;
        options.inherited.push((namespace.key.to_owned(), file.as_raw_fd()));
        kept.push(file.into());
    }
    Ok(kept)
}

/// Carries it out.
struct Work<'a> {
    request: &'a Request<'a>,
    prepared: &'a Prepared,
}

impl<'a> Work<'a> {
    fn make(
        &self,
        cgroup: &mut Cgroup,
        made: &mut Made<'a>,
        init: &mut Option<OwnedFd>,
    ) -> Result<Spawned> {
        let Work { request, prepared } = *self;
        let Prepared { plan, class, .. } = prepared;
        let (store, host) = (request.store, request.host);
        let mut record =
            Record::intent(request.id, request.bundle, cgroup.record(), host.rootless, false);
        record.systemd = cgroup.unit().cloned();
        record.external_descriptors =
            files::external_descriptors(&request.stdio, plan.process.terminal);
        if let Some(class) = class {
            record.intel_rdt_path = class.path().display().to_string();
            record.resctrl_groups = class.to_be_made();
        }
        let _claim = made.record(store, plan, &record, &request.bundle.raw)?;

        let failed = "unable to apply cgroup configuration";
        // systemd makes one with its first process, which is then CRIU.
        let late = cgroup.needs_process();
        let spec = &request.bundle.spec;
        if late {
            cgroup.check_unused().context(failed)?;
        } else {
            make_cgroup(cgroup, &prepared.limits, plan, spec, &mut made.cgroup)?;
        }
        let place = store.directory(request.id).join("criu-root");
        DirBuilder::new().create(&place).with_context(|| format!("mkdir {}", place.display()))?;
        let mut swrk = self.launch(&place)?;
        if late {
            cgroup.start(swrk.pid).context(failed)?;
            make_cgroup(cgroup, &prepared.limits, plan, spec, &mut made.cgroup)?;
        }
        cgroup.apply(&prepared.limits).context(failed)?;
        // Until it is asked for something it waits: what it restores is born where it is by then.
        cgroup.enter(swrk.pid).context(failed)?;
        if let Some(class) = class {
            class
                .create(&mut made.groups)
                .and_then(|()| class.enter(swrk.pid))
                .context("unable to apply Intel RDT configuration")?;
        }
        if record.cgroup_paths != cgroup.record() {
            record.cgroup_paths = cgroup.record();
            store.save(&record)?;
        }

        let options = self.complete(&swrk, cgroup, &place)?;
        crate::log::debug(format_args!("Using CRIU in RESTORE mode: {options:?}"));
        let mut steps = Steps {
            store,
            plan,
            socket: prepared.console.as_ref(),
            record,
            hooks_ran: &mut made.hooks_ran,
            init,
            console: None,
        };
        let kind = Kind::Restore;
        let asked = rpc::work_request(kind, &options);
        let answer =
            swrk.converse(kind, &asked, &mut |step| steps.take(step)).map_err(|error| {
                log::explain(error, (request.directories().logs(), options.log_file))
            })?;
        let Steps { record, console, .. } = steps;
        let pid = record.init_process_pid;
        if answer.pid != Some(pid) {
            bail!("criu has restored another process than it told of");
        }
        // The images may lie where nothing can be removed: then the lock is taken for one that
        // stands, should they serve once more.
        let _ = locked::forget(request.images);
        // Empty: what is mounted on it is so in CRIU's namespace only.
        std::fs::remove_dir(&place).with_context(|| format!("rmdir {}", place.display()))?;
        files::publish(request.pid_file.as_deref(), pid)?;
        let pidfd = init.take().context("criu did not tell of the restored process")?;
        Ok(Spawned { pid, pidfd, console, warnings: plan.warnings.clone() })
    }

    /// Starts CRIU, with a namespace of its own for the mounts that it needs.
    fn launch(&self, place: &Path) -> Result<Swrk> {
        let Work { request, prepared } = *self;
        let streams = match &request.stdio {
            _ if prepared.plan.process.terminal => Streams::Null,
            Stdio::Inherit => Streams::Inherited,
            Stdio::Fds(fds) => Streams::Given(fds.each_ref().map(AsFd::as_fd)),
        };
        let preparation =
            Preparation { rootfs: &request.bundle.rootfs, place, mounts: &prepared.plan.mounts };
        Launch {
            program: &prepared.criu.program,
            streams,
            kept: &prepared.kept,
            namespaces: NamespaceKind::Mount.flag(),
            before: &|| preparation.carry_out(),
        }
        .start()
    }

    /// What is known only once the places of the mounts and the process are there.
    fn complete(&self, swrk: &Swrk, cgroup: &Cgroup, place: &Path) -> Result<Options> {
        let Work { request, prepared } = *self;
        let plan = &prepared.plan;
        let masked = !plan.masked.is_empty();
        let rootfs = &request.bundle.rootfs;
        let external_mounts =
            setting::external_mounts(plan, rootfs, cgroup, |outside| outside.restored(masked))?;
        let path = format!("/proc/{}/cgroup", swrk.pid);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Ok(Options {
            root: place.to_owned(),
            external_mounts,
            cgroup_roots: cgroup_roots(&text),
            ..prepared.options.clone()
        })
    }
}

/// Controller and path by the text of a /proc/PID/cgroup; the unified hierarchy has no name.
fn cgroup_roots(text: &str) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let each = controllers.split(',');
        Some(each.map(|name| (name.to_owned(), path.to_owned())).collect::<Vec<_>>())
    };
    text.lines().filter_map(parse).flatten().collect()
}

fn kill(init: &OwnedFd) -> Result<()> {
    match rustix::process::pidfd_send_signal(init, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).context("kill the restored process"),
    }
    let waited = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(init.as_fd()), WaitIdOptions::EXITED)
    });
    match waited {
        Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
        Err(error) => Err(error).context("wait for the restored process"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_has_its_root() {
        let text = "3:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\n";
        let expected = [("cpu", "/a:b"), ("cpuacct", "/a:b"), ("name=systemd", "/s"), ("", "/u")];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(cgroup_roots(text), expected);
    }
}
