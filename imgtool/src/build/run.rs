//! `RUN`: the command in a container that the runtime makes, on an overlay above the stage's layers.
//!
//! The mounts are made in a mount namespace of the thread that waits for the command, and the
//! runtime is the first process of a PID namespace and dies with that thread: however we end, the
//! kernel takes both away. What something is mounted on exists in a layer of our own beneath all
//! others, so that it leaves no trace in the stage's.

pub(crate) mod attach;
mod document;
mod network;
mod stubs;

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use self::document::Inputs;
pub(crate) use self::network::Network;
use super::report;
use super::settings::go_list;
use super::view::View;
use crate::bundle::overlay::{self, ROOTFS, UPPER};
use crate::bundle::{self, files, user};
use crate::layer;
use crate::layer::lower::{self, Lowers};
use crate::layer::record::{self, Record};
use crate::manifest::Platform;
use crate::store::{Image, RUN_PREFIX, Store};
use crate::sys;
use crate::userns::{self, Owners};

/// What the command's host is called.
const HOSTNAME: &str = "buildkitsandbox";

/// What is to be run, and how.
pub(crate) struct Job<'a> {
    pub(crate) words: &'a [String],
    pub(crate) env: &'a [String],
    pub(crate) directory: &'a str,
    pub(crate) user: &'a str,
    pub(crate) network: &'a Network,
    /// Whether it may do all that we may.
    pub(crate) insecure: bool,
    /// Lines for `/etc/hosts`.
    pub(crate) hosts: &'a [(String, IpAddr)],
    pub(crate) mounts: &'a [attach::Mounted],
    /// The script of a heredoc that names its own interpreter.
    pub(crate) script: Option<(&'a str, &'a str)>,
}

/// What a command runs on.
pub(crate) enum Ground {
    /// Layers that are mounted above each other, bottom first.
    Layers(Vec<PathBuf>),
    /// A tree of its own, unpacked from these.
    Copy(Box<Image>),
}

/// What a command left behind, for as long as this exists.
pub(crate) struct Ran {
    _home: tempfile::TempDir,
    pub(crate) left: Left,
}

pub(crate) enum Left {
    /// The upper directory above layers.
    Upper(PathBuf, Lowers),
    /// The whole tree, and what it was before.
    Tree(PathBuf, Record),
}

/// Whether commands can be run. The error is the reason why they never can.
pub(crate) fn possible() -> Result<Possible> {
    match userns::entered() {
        _ if geteuid().is_root() => Ok(Possible::Now),
        Some(Owners::Ourselves { because, .. }) => bail!(
            "RUN needs root or a user namespace, and {because} (a build of COPY, ENV and the like \
             needs neither)"
        ),
        _ => Ok(Possible::InNamespace),
    }
}

/// Whether commands can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Possible {
    Now,
    /// When a user namespace was entered.
    InNamespace,
}

/// Whether programs for the platform can be executed: by the processor, or by an emulator that the
/// kernel knows of.
pub(crate) fn executes(platform: &Platform) -> bool {
    let host = Platform::host().architecture;
    let wanted = platform.architecture.as_str();
    if wanted.is_empty() || wanted == host {
        return platform.os.is_empty() || platform.os == "linux";
    }
    let machine = match wanted {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        other => other,
    };
    let emulator = format!("/proc/sys/fs/binfmt_misc/qemu-{machine}");
    let is_on = |text: String| text.lines().next() == Some("enabled");
    matches!((host.as_str(), wanted), ("amd64", "386") | ("arm64", "arm"))
        || fs::read_to_string(emulator).is_ok_and(is_on)
}

/// The runtime that is asked for, or else ours: beside our own program, or in `PATH`.
pub(crate) fn runtime(wanted: Option<&Path>) -> PathBuf {
    wanted.map_or_else(|| bundle::sibling("runtime"), Path::to_owned)
}

/// Runs the command.
pub(crate) fn run(
    store: &Store,
    runtime: &Path,
    ground: &Ground,
    view: &View,
    job: &Job<'_>,
    shown: &report::Step<'_>,
) -> Result<Ran> {
    ensure!(!job.words.is_empty(), "RUN needs a command");
    let home = store.staging_subdirectory_as(RUN_PREFIX)?;
    let path = home.path();
    // Where all is copied, the places to mount on are made in the copy, before it is recorded.
    let below = path.join(if matches!(ground, Ground::Layers(_)) { "stubs" } else { ROOTFS });
    let root = lower::make_root(&below)?;
    if let Ground::Copy(image) = ground {
        layer::unpack_flat(store, image, root.as_fd())?;
    }
    let mut targets = stubs::Targets::new(view, &below)?;
    for mount in document::targets() {
        targets.add(&mount, stubs::Kind::Directory)?;
    }
    if let Some(note) = write_files(path, job)? {
        shown.note(&note);
    }
    for (name, target) in FILES {
        if path.join(name).exists() {
            targets.add(target, stubs::Kind::File)?;
        }
    }
    if let Some((name, body)) = job.script {
        fs::write(path.join("script"), body).context("write the script")?;
        set_mode(&path.join("script"), 0o755)?;
        targets.add(&document::script_path(name), stubs::Kind::File)?;
    }
    for mount in job.mounts {
        targets.add(&mount.target, mount.stub())?;
    }
    let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    shown.running(&id)?;
    let (all, left) = match ground {
        Ground::Layers(layers) => {
            let all: Vec<PathBuf> = std::iter::once(below).chain(layers.iter().cloned()).collect();
            fs::create_dir(path.join(ROOTFS)).context("create rootfs")?;
            overlay::prepare(path, all.last().context("no layers")?)?;
            (Some(all), Left::Upper(path.join(UPPER), Lowers::open(layers)?))
        }
        Ground::Copy(_) => (None, Left::Tree(below, recorded(root.as_fd())?)),
    };
    let all = all.as_deref();
    let code = thread::scope(|scope| {
        let waiter = thread::Builder::new()
            .name("run".to_owned())
            .spawn_scoped(scope, || in_namespaces(path, all, runtime, &id, job, shown));
        waiter.context("start a thread")?.join().map_err(|_| anyhow!("running stopped"))?
    })?;
    if code != 0 {
        let words = job.words.join(" ");
        bail!("process {words:?} did not complete successfully: exit code: {code}");
    }
    Ok(Ran { _home: home, left })
}

/// What the tree is now.
fn recorded(root: BorrowedFd<'_>) -> Result<Record> {
    let mut lines = Vec::new();
    record::write(root, &mut lines)?;
    Record::read(&lines[..])
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}

/// The files of the container that are ours.
const FILES: [(&str, &str); 2] = [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts")];

/// Gives what the user should know.
fn write_files(home: &Path, job: &Job<'_>) -> Result<Option<String>> {
    let (servers, note) = match job.network {
        Network::Host => (files::read_host_file("/etc/resolv.conf")?, None),
        Network::None => (String::new(), None),
        Network::Bridge(_) => files::reachable_servers()?,
    };
    let mut hosts =
        format!("127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in job.hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    for (name, text) in [("resolv.conf", servers), ("hosts", hosts)] {
        let path = home.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        set_mode(&path, 0o644)?;
    }
    Ok(note)
}

/// In a thread of its own, whose namespaces go with it.
fn in_namespaces(
    home: &Path,
    layers: Option<&[PathBuf]>,
    runtime: &Path,
    id: &str,
    job: &Job<'_>,
    shown: &report::Step<'_>,
) -> Result<i32> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context("unshare the mounts")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make mounts private")?;
    let mounts = attach::prepare(home, job.mounts)?;
    if let Some(layers) = layers {
        overlay::mount_as(home, layers, overlay::Upper::Volatile)?;
    }
    let rootfs = lower::open_directory(&home.join(ROOTFS))?;
    let identity = user::resolve(job.user, rootfs.as_fd())?;
    drop(rootfs);
    let document = document::make(&Inputs {
        job,
        identity: &identity,
        hostname: HOSTNAME,
        cgroup: id,
        files: &FILES,
        mounts,
        maps: userns::enter()?.maps(),
    })?;
    let path = home.join("config.json");
    fs::write(&path, serde_json::to_vec(&document)?)
        .with_context(|| format!("write {}", path.display()))?;
    let code = execute(home, runtime, id, shown);
    overlay::unmount(home)?;
    code
}

fn execute(home: &Path, runtime: &Path, id: &str, shown: &report::Step<'_>) -> Result<i32> {
    let (out, out_end) = io::pipe().context("make a pipe")?;
    let (err, err_end) = io::pipe().context("make a pipe")?;
    thread::scope(|scope| {
        for pipe in [out, err] {
            let relay = move || relay(pipe, shown);
            thread::Builder::new().spawn_scoped(scope, relay).context("start a thread")?;
        }
        // From here on this thread can start processes, and no threads.
        unshare(CloneFlags::CLONE_NEWPID).context("unshare the process ids")?;
        let mut command = Command::new(runtime);
        command
            .arg("--root")
            .arg(home.join("state"))
            .args(["run", "--bundle"])
            .arg(home)
            .arg(id)
            .stdin(Stdio::null())
            .stdout(out_end)
            .stderr(err_end);
        let guard = sys::first_of_its_namespace(&mut command)?;
        let mut child = command
            .spawn()
            .with_context(|| format!("start {} (--runtime names another)", runtime.display()))?;
        // It has our ends of the pipes, which then end with what it starts.
        drop(command);
        let status = child.wait().context("wait for the runtime")?;
        drop(guard);
        match (status.code(), status.signal()) {
            (Some(code), _) => Ok(code),
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                bail!("{} was ended by signal {signal}", runtime.display())
            }
        }
    })
}

/// Shows whole lines as they come.
fn relay(mut pipe: io::PipeReader, shown: &report::Step<'_>) {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => kept.extend_from_slice(&buffer[..read]),
        }
        // A line without an end is shown when it is long enough.
        let end = match kept.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if kept.len() > 1 << 20 => kept.len(),
            None => continue,
        };
        shown.output(&kept[..end]);
        kept.drain(..end);
    }
    if !kept.is_empty() {
        kept.push(b'\n');
        shown.output(&kept);
    }
}

/// What the history says of a command: the arguments it sees before it.
pub(crate) fn history(arguments: &[(&str, &str)], words: &[String], exec: bool) -> String {
    let line = if exec { go_list(words) } else { words.join(" ") };
    if arguments.is_empty() {
        return format!("RUN {line} # buildkit");
    }
    let shown: Vec<String> = arguments.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("RUN |{} {} {line} # buildkit", shown.len(), shown.join(" "))
}
