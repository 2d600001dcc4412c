//! What will be done, decided in full before anything is touched: a pure function of config.json.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::MountPropagationFlags;

use crate::rooted::clean;
use crate::spec::{Capabilities, Hooks, Process, Spec};

pub(crate) mod cgroup;
pub(crate) mod criu;
pub(crate) mod devices;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod netdevices;
pub(crate) mod process;
pub(crate) mod resctrl;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod systemd;

use devices::Node;
use mounts::MountPlan;
use namespaces::Namespaces;
use netdevices::NetDevicePlan;
use process::ProcessPlan;
use scheduling::Affinity;

/// Flags of the command line that change what is done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choices {
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    /// Passed through to the process, from 3 on.
    pub(crate) preserve_fds: u32,
}

/// A container to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) bundle: PathBuf,
    pub(crate) namespaces: Namespaces,
    pub(crate) root: RootPlan,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) net_devices: Vec<NetDevicePlan>,
    /// `None` if /dev is not ours to fill.
    pub(crate) nodes: Option<Vec<Node>>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
    /// Path beneath /proc/sys, and value.
    pub(crate) sysctls: Vec<(PathBuf, String)>,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) process: ProcessPlan,
    pub(crate) hooks: Hooks,
    /// The name of the session keyring, if there is to be a new one.
    pub(crate) keyring: Option<CString>,
    pub(crate) preserve_fds: u32,
    /// What is left out as runc leaves it out.
    pub(crate) warnings: Vec<String>,
}

/// The root file system.
#[derive(Clone, Debug)]
pub(crate) struct RootPlan {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) no_pivot: bool,
    pub(crate) mount_label: String,
    /// Of the whole namespace before anything is mounted; always recursive.
    pub(crate) prepare: MountPropagationFlags,
    /// Of the new root at the end, and whether beneath it too.
    pub(crate) settle: Option<(MountPropagationFlags, bool)>,
}

impl Plan {
    /// The parent half has something to do once the container's namespaces and mounts are there.
    pub(crate) fn pauses_when_prepared(&self) -> bool {
        !self.net_devices.is_empty()
            || !self.hooks.prestart.is_empty()
            || !self.hooks.create_runtime.is_empty()
    }
}

/// Decides everything about the container.
pub(crate) fn plan(
    id: &str,
    bundle: &Path,
    rootfs: &Path,
    spec: &Spec,
    choices: Choices,
) -> Result<Plan> {
    let mut warnings = Vec::new();
    let linux = spec.linux.clone().unwrap_or_default();
    let idle = idle_process();
    let written = spec.process.as_ref().unwrap_or(&idle);
    let (prepare, settle) = propagation(&linux.rootfs_propagation)?;
    let root = RootPlan {
        path: rootfs.to_owned(),
        read_only: spec.root.as_ref().is_some_and(|root| root.readonly),
        no_pivot: choices.no_pivot,
        mount_label: linux.mount_label.clone(),
        prepare,
        settle,
    };
    let namespaces = Namespaces::plan(&linux)?;
    let mounts = mounts::plan(&spec.mounts, bundle, rootfs, &mut warnings)?;
    let unmapped = |mount: &&MountPlan| mount.id_map.as_ref().is_some_and(|it| it.maps.is_none());
    if let Some(mount) = mounts.iter().find(unmapped)
        && !namespaces.has(namespaces::Kind::User)
    {
        bail!("mount {} is to be mapped, but there are no mappings", mount.destination.display());
    }
    let nodes = devices::plan(&linux)?;
    let mut process = process::plan(written, &linux, &mut warnings)?;
    // Those are for `exec` only.
    process.scheduling.affinity = Affinity::default();
    let net_devices = netdevices::plan(&linux)?;
    Ok(Plan {
        bundle: bundle.to_owned(),
        namespaces,
        root,
        mounts,
        net_devices,
        nodes: devices::is_ours(&spec.mounts).then_some(nodes),
        masked: unique(&linux.masked_paths),
        read_only: unique(&linux.readonly_paths),
        sysctls: linux.sysctl.iter().map(|(key, value)| (sysctl(key), value.clone())).collect(),
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        process,
        hooks: spec.hooks.clone().unwrap_or_default(),
        keyring: keyring(id, choices.no_new_keyring)?,
        preserve_fds: choices.preserve_fds,
        warnings,
    })
}

/// What waits in a container without a process, with no right to anything.
fn idle_process() -> Process {
    let capabilities = Some(Capabilities::default());
    Process { cwd: "/".to_owned(), capabilities, ..Process::default() }
}

/// The name of a container's session keyring.
pub(crate) fn keyring(id: &str, no_new_keyring: bool) -> Result<Option<CString>> {
    if no_new_keyring {
        return Ok(None);
    }
    CString::new(format!("_ses.{id}")).map(Some).context("name the session keyring")
}

/// Mounts made in the container must not reach the host unless the propagation asks for it.
pub(crate) fn propagation(
    word: &str,
) -> Result<(MountPropagationFlags, Option<(MountPropagationFlags, bool)>)> {
    let recursive = word.starts_with('r');
    let flag = match word.strip_prefix('r').unwrap_or(word) {
        "" => return Ok((MountPropagationFlags::DOWNSTREAM, None)),
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => bail!("linux.rootfsPropagation: rootfsPropagation={word} is not supported"),
    };
    // An unbindable tree could not be bound to make the new root of it.
    let unbindable = flag == MountPropagationFlags::UNBINDABLE;
    let prepare = if unbindable { MountPropagationFlags::PRIVATE } else { flag };
    Ok((prepare, Some((flag, recursive))))
}

fn unique(paths: &[String]) -> Vec<PathBuf> {
    let mut seen: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths.iter().map(|path| clean(Path::new(path))) {
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
    seen
}

/// As in sysctl(8), the first separator says which of the two forms it is.
pub(crate) fn sysctl(key: &str) -> PathBuf {
    let dots_first = key.find(['.', '/']).is_some_and(|at| key[at..].starts_with('.'));
    if !dots_first {
        return PathBuf::from(key);
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    key.chars().map(swap).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_sysctl_name_the_same_file() {
        assert_eq!(sysctl("net.ipv4.ip_forward"), Path::new("net/ipv4/ip_forward"));
        assert_eq!(sysctl("net/ipv4/conf/eth0.1/x"), Path::new("net/ipv4/conf/eth0.1/x"));
        assert_eq!(sysctl("net.ipv4.conf.eth0/1.x"), Path::new("net/ipv4/conf/eth0.1/x"));
    }

    #[test]
    fn a_path_is_masked_once() {
        let paths = ["/proc/a".to_owned(), "/proc/./a/".to_owned(), "/b".to_owned()];
        assert_eq!(unique(&paths), [Path::new("proc/a"), Path::new("b")]);
    }

    #[test]
    fn mounts_of_the_container_never_reach_the_host_by_default() {
        assert_eq!(propagation("").unwrap(), (MountPropagationFlags::DOWNSTREAM, None));
        assert!(propagation("rshard").is_err());
        let (prepare, settle) = propagation("unbindable").unwrap();
        assert_eq!(prepare, MountPropagationFlags::PRIVATE);
        assert_eq!(settle, Some((MountPropagationFlags::UNBINDABLE, false)));
    }

    #[test]
    fn a_whole_document_is_planned_without_touching_anything() {
        let spec = crate::spec::parse(
            br#"{"ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/","env":[]},
                "root":{"path":"r","readonly":true},"hostname":"h",
                "mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
                "linux":{"namespaces":[{"type":"pid"},{"type":"mount"}],"maskedPaths":["/proc/kcore"]}}"#,
        )
        .unwrap();
        let plan =
            plan("c", Path::new("/b"), Path::new("/b/r"), &spec, Choices::default()).unwrap();
        assert!(plan.root.read_only);
        assert_eq!(plan.mounts[0].target, Path::new("proc"));
        assert_eq!(plan.nodes.unwrap().len(), 6);
        assert_eq!(plan.keyring.unwrap().as_c_str(), c"_ses.c");
    }
}
