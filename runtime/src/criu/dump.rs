//! `checkpoint`: everything that can be wrong is found out before CRIU is told to begin, and a dump
//! that fails leaves the container as it was.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::rpc::{self, Feature, Kind};
use super::setting::{self, Directories};
use super::swrk::{self, Launch, Step};
use super::{Criu, locked, log};
use crate::cgroup::Mode;
use crate::plan::criu::{self as plan_criu, Lasting, Options};
use crate::plan::{self, Choices, Plan};
use crate::rooted::Root;
use crate::spec::Spec;
use crate::state::Record;
use crate::{spawn, sys};

/// Beside the images: what the standard streams were.
pub(super) const DESCRIPTORS: &str = "descriptors.json";

/// From here on the page server's readiness is a step that we are told of.
const TELLS_READINESS: u32 = 31_500;
/// From here on the freezer of the unified hierarchy is known.
const KNOWS_UNIFIED_FREEZER: u32 = 31_400;

/// What is to be saved, and where.
pub(crate) struct Request<'a> {
    /// With a live init.
    pub(crate) record: &'a Record,
    /// The container's own config.json.
    pub(crate) spec: &'a Spec,
    /// What the flags say.
    pub(crate) options: Options,
    pub(crate) images: &'a Path,
    pub(crate) work: Option<&'a Path>,
    pub(crate) pre_dump: bool,
    /// -1 is none.
    pub(crate) status_fd: i32,
}

/// Saves the container; whether it is there afterwards is in the options.
pub(crate) fn checkpoint(request: &Request) -> Result<()> {
    let record = request.record;
    let choices = Choices::default();
    let plan =
        plan::plan(&record.id, &record.bundle(), &record.config.rootfs, request.spec, choices)?;
    setting::refuse_host_mounts(&plan)?;
    let criu = Criu::find()?;
    let lasting = setting::lasting(&criu, &plan)?;
    if request.pre_dump {
        swrk::require(&criu.program, Feature::MemoryTracking)?;
    }
    let mut options = request.options.clone();
    let mut status = None;
    if options.lazy_pages {
        swrk::require(&criu.program, Feature::LazyPages)?;
        status = status_descriptor(request.status_fd)?;
        if !criu.is_at_least(TELLS_READINESS) {
            options.status_fd = status.as_ref().map(AsRawFd::as_raw_fd);
        }
    }

    setting::make_directory(request.images)?;
    let directories = Directories { images: request.images, work: request.work };
    let _open = directories.open(&mut options)?;
    describe(request, &plan, &lasting, &criu, &mut options)?;
    if !request.pre_dump {
        let text = serde_json::to_vec(&record.external_descriptors)?;
        write(&request.images.join(DESCRIPTORS), &text)?;
        locked::note(request.images, if options.leave_running { &[] } else { &lasting })?;
    }

    let kind = if request.pre_dump { Kind::PreDump } else { Kind::Dump };
    crate::log::debug(format_args!("Using CRIU in {} mode: {options:?}", kind.name()));
    let mut on_step = |step: Step| match (step.name, status.take()) {
        ("status-ready", Some(status)) => {
            // Whoever waits for it closes its end when it has waited for long enough.
            rustix::io::write(&status, b"\0").map(drop).context("write to --status-fd")
        }
        (_, kept) => {
            status = kept;
            Ok(())
        }
    };
    let paused = record.cgroup().is_frozen()?;
    let dumped = Launch::plain(&criu.program).start()?.converse(
        kind,
        &rpc::work_request(kind, &options),
        &mut on_step,
    );
    let Err(error) = dumped else { return Ok(()) };
    let error = log::explain(error, (directories.logs(), options.log_file));
    match go_on(record, paused).and_then(|()| locked::forget(request.images)) {
        Ok(()) => Err(error),
        Err(also) => Err(error.context(format!("let the container go on: {also:#}"))),
    }
}

/// A CRIU that was killed may leave the container frozen.
fn go_on(record: &Record, paused: bool) -> Result<()> {
    let cgroup = record.cgroup();
    if !paused && cgroup.is_frozen()? {
        cgroup.thaw()?;
    }
    Ok(())
}

/// What CRIU has to know of the container.
fn describe(
    request: &Request,
    plan: &Plan,
    lasting: &[Lasting],
    criu: &Criu,
    options: &mut Options,
) -> Result<()> {
    let record = request.record;
    let init = record.init_process_pid;
    let cgroup = record.cgroup();
    options.pid = Some(init);
    options.root.clone_from(&record.config.rootfs);
    if cgroup.mode() != Mode::V2 || criu.is_at_least(KNOWS_UNIFIED_FREEZER) {
        options.freezer = cgroup.path("freezer").map(Path::to_owned);
    }
    for namespace in lasting {
        let name = plan_criu::short_name(namespace.kind);
        let path = format!("/proc/{init}/ns/{name}");
        let stat = rustix::fs::stat(&path).with_context(|| format!("stat {path}"))?;
        options.external.push(format!("{name}[{}]:{}", stat.st_ino, namespace.key));
    }
    if !request.pre_dump {
        let masked = masked_files(init, &plan.masked)?;
        let rootfs = &record.config.rootfs;
        options.external_mounts =
            setting::external_mounts(plan, rootfs, &cgroup, |outside| outside.dumped(&masked))?;
    }
    Ok(())
}

/// The masked paths that are files in the container; directories are saved as what they are.
fn masked_files(init: i32, masked: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let root = Root::new(setting::open_directory(Path::new(&format!("/proc/{init}/root")))?);
    let mut files = Vec::new();
    for path in masked {
        let found = match root.open(path, OFlags::PATH) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(error).with_context(|| format!("open /{}", path.display())),
        };
        let mode = rustix::fs::fstat(found.as_fd()).context("stat a masked path")?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Directory {
            files.push(root.name_of(path).unwrap_or_else(|_| path.clone()));
        }
    }
    Ok(files)
}

/// `--status-fd`, if there is one: it must have been left open for us, for writing.
fn status_descriptor(number: i32) -> Result<Option<OwnedFd>> {
    if number == -1 {
        return Ok(None);
    }
    let invalid = || format!("invalid --status-fd argument {number}");
    let positive = u32::try_from(number).ok().filter(|number| *number > 2).with_context(invalid)?;
    if !spawn::files::is_inherited(positive)? {
        bail!("{}: it was not passed to us", invalid());
    }
    let descriptor = sys::inherited::adopt(number).with_context(invalid)?;
    let flags = rustix::fs::fcntl_getfl(&descriptor).with_context(invalid)?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        bail!("{}: not writable", invalid());
    }
    Ok(Some(descriptor))
}

/// A file of our own beside the images.
pub(super) fn write(path: &Path, text: &[u8]) -> Result<()> {
    // Not through a link that was left there.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text))
        .with_context(|| format!("write {}", path.display()))
}
