//! Refuses what can't be meant: one small check per section of config.json, all run before any
//! planning. The texts are runc's, since engines and people search for them.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::bundle::Bundle;
use crate::host::{self, Host};
use crate::plan::mounts::target;
use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::sysctl;
use crate::rooted::clean;
use crate::spec::{Hook, Linux, Mount, Process, Spec};

mod rootless;

use rootless::rootless;

/// What a check looks at.
struct Subject<'a> {
    bundle: &'a Bundle,
    spec: &'a Spec,
    host: &'a Host,
    linux: &'a Linux,
    namespaces: Namespaces,
}

type Check = fn(&Subject) -> Result<()>;

const CHECKS: &[Check] = &[
    version,
    process,
    root,
    hostname,
    domainname,
    mount_destinations,
    masks_need_a_mount_namespace,
    user_namespace,
    rootless,
    cgroup_namespace,
    time_namespace,
    sysctls,
    resources,
    hooks,
    labels,
    net_devices,
];

/// Runs every check; the first failure is returned.
pub(crate) fn validate(bundle: &Bundle, host: &Host) -> Result<()> {
    let spec = &bundle.spec;
    let empty = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&empty);
    let namespaces = Namespaces::plan(linux)?;
    let subject = Subject { bundle, spec, host, linux, namespaces };
    CHECKS.iter().try_for_each(|check| check(&subject))
}

fn version(subject: &Subject) -> Result<()> {
    let version = &subject.spec.oci_version;
    let major = version.split('.').next().unwrap_or_default();
    if !version.is_empty() && major != "1" {
        bail!("unsupported ociVersion {version:?}: only 1.x is known");
    }
    Ok(())
}

fn process(subject: &Subject) -> Result<()> {
    // Without one there is nothing to `start`, but the rest of the container can be made.
    subject.spec.process.as_ref().map_or(Ok(()), process_block)
}

/// What holds for the process of `exec`.
pub(crate) fn joining_process(process: &Process) -> Result<()> {
    process_block(process)?;
    process_labels(process)
}

/// What holds for the process of config.json and for that of `exec` alike.
fn process_block(process: &Process) -> Result<()> {
    if process.cwd.is_empty() {
        bail!("process.cwd: Cwd property must not be empty");
    }
    if !Path::new(&process.cwd).is_absolute() {
        bail!("process.cwd: Cwd must be an absolute path");
    }
    if process.args.is_empty() {
        bail!("process.args: args must not be empty");
    }
    for (index, limit) in process.rlimits.iter().enumerate() {
        if process.rlimits[..index].iter().any(|earlier| earlier.kind == limit.kind) {
            bail!("process.rlimits[{index}]: rlimit {} is given twice", limit.kind);
        }
        if limit.soft > limit.hard {
            bail!("process.rlimits[{index}]: the soft limit is above the hard one");
        }
    }
    if process.user.umask.is_some_and(|umask| umask > 0o777) {
        bail!("process.user.umask: no umask has bits above 0777");
    }
    if let Some(score) = process.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        bail!("process.oomScoreAdj: {score} is not between -1000 and 1000");
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        cpu_list(&affinity.initial).context("process.execCPUAffinity.initial")?;
        cpu_list(&affinity.last).context("process.execCPUAffinity.final")?;
    }
    Ok(())
}

/// A list of numbers and ranges, such as `0-3,7`.
fn cpu_list(list: &str) -> Result<()> {
    for part in list.split(',').map(str::trim).filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) if first <= last => {}
            _ => bail!("{part:?} is no number and no range"),
        }
    }
    Ok(())
}

fn root(subject: &Subject) -> Result<()> {
    if subject.spec.root.as_ref().is_none_or(|root| root.path.is_empty()) {
        bail!("root.path: root must be specified");
    }
    root_directory(subject).context("root.path")
}

fn root_directory(subject: &Subject) -> Result<()> {
    let path = &subject.bundle.rootfs;
    let metadata = std::fs::symlink_metadata(path)
        .with_context(|| format!("invalid rootfs: stat {}", path.display()))?;
    if metadata.is_symlink() {
        bail!("invalid rootfs: not an absolute path, or a symlink");
    }
    if !metadata.is_dir() {
        bail!("invalid rootfs: {} is not a directory", path.display());
    }
    Ok(())
}

/// `__NEW_UTS_LEN`: what the kernel has room for.
const NAME_MAX: usize = 64;

fn hostname(subject: &Subject) -> Result<()> {
    let name = &subject.spec.hostname;
    if name.len() > NAME_MAX {
        bail!("hostname: longer than {NAME_MAX} bytes");
    }
    if !name.is_empty() && !subject.namespaces.has(Kind::Uts) {
        bail!("hostname: unable to set hostname without a private UTS namespace");
    }
    Ok(())
}

fn domainname(subject: &Subject) -> Result<()> {
    let name = &subject.spec.domainname;
    if name.len() > NAME_MAX {
        bail!("domainname: longer than {NAME_MAX} bytes");
    }
    if !name.is_empty() && !subject.namespaces.has(Kind::Uts) {
        bail!("domainname: unable to set domainname without a private UTS namespace");
    }
    Ok(())
}

fn mount_destinations(subject: &Subject) -> Result<()> {
    for (index, mount) in subject.spec.mounts.iter().enumerate() {
        mount_destination(mount, &subject.bundle.rootfs)
            .with_context(|| format!("mounts[{index}].destination"))?;
    }
    Ok(())
}

/// Files of /proc that lxcfs and its like may replace; anything else there would lie to us too.
const REPLACEABLE: [&str; 10] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// What holds for mounts that come to a container that is there, or go from it. Those of /proc and
/// those that hide or protect a path keep the container in: they are nobody's to take away, and
/// another of /proc would show what the first hides.
pub(crate) fn changed_mounts(mounts: &[Mount], spec: &Spec, rootfs: &Path) -> Result<()> {
    let guards = || spec.linux.iter().flat_map(|l| l.masked_paths.iter().chain(&l.readonly_paths));
    for (index, mount) in mounts.iter().enumerate() {
        let check = || {
            mount_destination(mount, rootfs)?;
            let target = target(mount.destination(), rootfs);
            if target == Path::new("proc") || guards().any(|path| clean(Path::new(path)) == target)
            {
                bail!("the mount at \"/{}\" keeps the container in", target.display());
            }
            Ok(())
        };
        check().with_context(|| format!("mounts[{index}].destination"))?;
    }
    Ok(())
}

fn mount_destination(mount: &Mount, rootfs: &Path) -> Result<()> {
    let target = target(mount.destination(), rootfs);
    if target.as_os_str().is_empty() {
        bail!("mount destination {:?} is the root itself", mount.destination());
    }
    let inside = target.starts_with("proc") && target != Path::new("proc");
    if inside && !REPLACEABLE.iter().any(|path| target == Path::new(path)) {
        bail!("\"/{}\" cannot be mounted because it is inside /proc", target.display());
    }
    Ok(())
}

fn masks_need_a_mount_namespace(subject: &Subject) -> Result<()> {
    let linux = subject.linux;
    let asked = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
    if asked && !subject.namespaces.has(Kind::Mount) {
        bail!("unable to restrict sys entries without a private MNT namespace");
    }
    Ok(())
}

/// `UID_GID_MAP_MAX_EXTENTS`, since Linux 4.15.
const MAPPINGS_MAX: usize = 340;

fn user_namespace(subject: &Subject) -> Result<()> {
    let linux = subject.linux;
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if mapped && !subject.namespaces.has(Kind::User) {
        let field = if linux.uid_mappings.is_empty() { "gid" } else { "uid" };
        bail!(
            "linux.{field}Mappings: user namespace mappings specified, but user namespace isn't enabled in the config"
        );
    }
    if subject.namespaces.is_new(Kind::User) {
        if linux.uid_mappings.is_empty() {
            bail!("linux.uidMappings: user namespaces enabled, but no uid mappings found");
        }
        if linux.gid_mappings.is_empty() {
            bail!("linux.gidMappings: user namespaces enabled, but no gid mappings found");
        }
    }
    for (field, mappings) in
        [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)]
    {
        if mappings.len() > MAPPINGS_MAX {
            let many = mappings.len();
            bail!("linux.{field}: {many} ranges are more than the {MAPPINGS_MAX} that Linux takes");
        }
    }
    Ok(())
}

fn cgroup_namespace(subject: &Subject) -> Result<()> {
    let wanted = subject.namespaces.has(Kind::Cgroup);
    if wanted && !Path::new("/proc/self/ns/cgroup").exists() {
        bail!("linux.namespaces: cgroup namespaces aren't enabled in the kernel");
    }
    Ok(())
}

fn time_namespace(subject: &Subject) -> Result<()> {
    if subject.linux.time_offsets.is_empty() {
        return Ok(());
    }
    if !subject.namespaces.has(Kind::Time) {
        bail!(
            "linux.timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the config"
        );
    }
    for (clock, offset) in &subject.linux.time_offsets {
        if clock != "boottime" && clock != "monotonic" {
            bail!("linux.timeOffsets: unknown clock {clock:?} in time namespace offsets");
        }
        if offset.nanosecs >= 1_000_000_000 {
            bail!(
                "linux.timeOffsets.{clock}.nanosecs: invalid offset: nanosecs is not below a second"
            );
        }
    }
    Ok(())
}

/// System V IPC settings, which an IPC namespace has of its own.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

fn sysctls(subject: &Subject) -> Result<()> {
    separate_sysctls(subject).context("linux.sysctl")
}

fn separate_sysctls(subject: &Subject) -> Result<()> {
    let namespaces = &subject.namespaces;
    for key in subject.linux.sysctl.keys() {
        let path = sysctl(key);
        if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            bail!("sysctl {key:?} is not a name");
        }
        let needed = if IPC_SYSCTLS.iter().any(|known| path == Path::new(known))
            || path.starts_with("fs/mqueue")
        {
            Kind::Ipc
        } else if path.starts_with("net") {
            Kind::Network
        } else if path == Path::new("kernel/domainname") {
            Kind::Uts
        } else if path == Path::new("kernel/hostname") {
            // It would race with the hostname of config.json.
            bail!("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field");
        } else if path.starts_with("user") {
            Kind::User
        } else {
            bail!("sysctl {key:?} is not in a separate kernel namespace");
        };
        if !namespaces.has(needed) {
            bail!("sysctl {key:?} is not allowed in the hosts {} namespace", needed.name());
        }
    }
    Ok(())
}

/// What the kernel would refuse, or take without effect, half-way through.
fn resources(subject: &Subject) -> Result<()> {
    let Some(resources) = &subject.linux.resources else { return Ok(()) };
    if let Some(cpu) = &resources.cpu {
        cpu_list(&cpu.cpus).context("linux.resources.cpu.cpus")?;
        cpu_list(&cpu.mems).context("linux.resources.cpu.mems")?;
    }
    if let Some(memory) = &resources.memory
        && let (Some(limit), Some(swap)) = (memory.limit, memory.swap)
        && swap > 0
        && swap < limit
    {
        bail!("linux.resources.memory.swap: memory and swap together are less than memory alone");
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|block_io| block_io.weight)
        && weight != 0
        && !(10..=1000).contains(&weight)
    {
        bail!("linux.resources.blockIO.weight: {weight} is not between 10 and 1000");
    }
    Ok(())
}

fn hooks(subject: &Subject) -> Result<()> {
    let Some(hooks) = &subject.spec.hooks else { return Ok(()) };
    let all = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (name, list) in all {
        for (index, hook) in list.iter().enumerate() {
            self::hook(hook).with_context(|| format!("hooks.{name}[{index}]"))?;
        }
    }
    Ok(())
}

fn hook(hook: &Hook) -> Result<()> {
    if !hook.path().is_absolute() {
        bail!("path {:?} is not absolute", hook.path());
    }
    if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        bail!("timeout is not above 0");
    }
    match hook.env().iter().flatten().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        Some(entry) => bail!("{entry:?} in env is no NAME=VALUE"),
        None => Ok(()),
    }
}

fn labels(subject: &Subject) -> Result<()> {
    subject.spec.process.as_ref().map_or(Ok(()), process_labels)?;
    let label = &subject.linux.mount_label;
    if !label.is_empty() && !host::selinux_is_enabled() {
        bail!("linux.mountLabel {label:?}: {NO_SELINUX}");
    }
    Ok(())
}

/// runc's words.
const NO_SELINUX: &str =
    "selinux label is specified in config, but selinux is disabled or not supported";

/// A label that would be ignored is a missing wall.
fn process_labels(process: &Process) -> Result<()> {
    if !process.apparmor_profile.is_empty() && !host::apparmor_is_enabled() {
        bail!("process.apparmorProfile: apparmor: config provided but apparmor not supported");
    }
    if !process.selinux_label.is_empty() && !host::selinux_is_enabled() {
        bail!("process.selinuxLabel: {NO_SELINUX}");
    }
    Ok(())
}

/// Their names are looked at when the move is planned.
fn net_devices(subject: &Subject) -> Result<()> {
    if subject.linux.net_devices.is_empty() {
        return Ok(());
    }
    if !subject.namespaces.has(Kind::Network) {
        bail!("linux.netDevices: unable to move network devices without a NET namespace");
    }
    if subject.host.rootless {
        bail!("linux.netDevices: network devices are not supported for rootless containers");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(edit: &str) -> String {
        let sound =
            r#"{"ociVersion":"1.0.2","process":{"args":["x"],"cwd":"/"},"root":{"path":"/"}}"#;
        let mut document: serde_json::Value = serde_json::from_str(sound).unwrap();
        let edit: serde_json::Value = serde_json::from_str(&format!("{{{edit}}}")).unwrap();
        document.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        let spec = crate::spec::parse(document.to_string().as_bytes()).unwrap();
        let bundle =
            Bundle { dir: "/".into(), rootfs: "/".into(), spec, raw: Vec::new(), own_config: true };
        let host = Host {
            rootless_said: None,
            program: crate::host::Program::Runtime,
            euid: 0,
            in_userns: false,
            rootless: true,
            systemd_cgroup: false,
        };
        validate(&bundle, &host).err().map_or_else(String::new, |error| format!("{error:#}"))
    }

    #[test]
    fn a_sound_document_passes() {
        assert_eq!(refusal(r#""hostname":"""#), "");
        assert_eq!(refusal(r#""process":null"#), "");
    }

    #[test]
    fn each_flaw_is_named() {
        for (edit, text) in [
            (r#""hostname":"h""#, "unable to set hostname without a private UTS namespace"),
            (r#""root":null"#, "root must be specified"),
            (r#""process":{"args":["x"],"cwd":""}"#, "Cwd property must not be empty"),
            (r#""process":{"args":["x"],"cwd":"a"}"#, "Cwd must be an absolute path"),
            (r#""process":{"cwd":"/"}"#, "args must not be empty"),
            (r#""ociVersion":"2.0.0""#, "unsupported ociVersion \"2.0.0\""),
            (
                r#""linux":{"sysctl":{"kernel.panic":"1"}}"#,
                "sysctl \"kernel.panic\" is not in a separate kernel namespace",
            ),
            (r#""linux":{"sysctl":{"net/../kernel/panic":"1"}}"#, "is not a name"),
            (r#""linux":{"namespaces":[{"type":"user"}]}"#, "no uid mappings found"),
            (
                r#""mounts":[{"destination":"/proc/self/attr","type":"tmpfs"}]"#,
                "\"/proc/self/attr\" cannot be mounted because it is inside /proc",
            ),
            (r#""mounts":[{"destination":"/..","type":"tmpfs"}]"#, "is the root itself"),
            (
                r#""linux":{"netDevices":{"eth0":{}}}"#,
                "unable to move network devices without a NET namespace",
            ),
            (
                r#""linux":{"netDevices":{"eth0":{}},"namespaces":[{"type":"network"}]}"#,
                "network devices are not supported for rootless containers",
            ),
        ] {
            let found = refusal(edit);
            assert!(found.contains(text), "{edit}: {found}");
        }
    }
}
