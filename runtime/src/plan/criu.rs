//! What CRIU is to be told, decided from the flags and the container's configuration.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::devices::Node;
use super::mounts::{Kind as MountKind, MountPlan};
use super::namespaces::{Kind, Namespaces};
use crate::args::{Checkpoint, Images, Restore};
use crate::spec::Spec;

/// Names a configuration of CRIU's for this container; empty, there is to be none.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// runc's name for the one of all containers. CRIU goes on without it if it is not there.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";

const NULL: &str = "/dev/null";

/// `criu_opts`; descriptors are ours, which CRIU opens by way of /proc, where it does not say other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) restoring: bool,
    pub(crate) images_dir: i32,
    pub(crate) work_dir: Option<i32>,
    /// The init of the container to be dumped.
    pub(crate) pid: Option<i32>,
    pub(crate) root: PathBuf,
    pub(crate) log_file: &'static str,
    pub(crate) leave_running: bool,
    pub(crate) external_unix_sockets: bool,
    pub(crate) tcp_established: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) link_remap: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) status_fd: Option<i32>,
    pub(crate) page_server: Option<PageServer>,
    /// Relative to the directory of the image files.
    pub(crate) parent_images: Option<PathBuf>,
    pub(crate) external_mounts: Vec<ExternalMount>,
    pub(crate) cgroups: CgroupMode,
    /// Controller and path of the cgroup that takes the place of the one that was saved.
    pub(crate) cgroup_roots: Vec<(String, String)>,
    pub(crate) freezer: Option<PathBuf>,
    /// What CRIU finds open in its own process in the place of what it saved by this key.
    pub(crate) inherited: Vec<(String, i32)>,
    /// `kind[inode]:key`
    pub(crate) external: Vec<String>,
    pub(crate) joined: Vec<(String, PathBuf)>,
    /// `CLONE_NEW*`
    pub(crate) empty_namespaces: u32,
    pub(crate) config_file: Option<String>,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// A mount that is not saved. In a dump the key is its place and the value the name it gets, in a
/// restore the key is that name and the value what on the host is bound there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalMount {
    pub(crate) key: PathBuf,
    pub(crate) value: PathBuf,
}

/// Who takes or gives pages of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageServer {
    pub(crate) address: String,
    pub(crate) port: u16,
}

/// `--manage-cgroups-mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CgroupMode {
    Ignore,
    Soft,
    Full,
    Strict,
    /// CRIU's own choice.
    #[default]
    Default,
}

impl CgroupMode {
    fn parse(word: Option<&str>) -> Result<Self> {
        match word {
            None | Some("") => Ok(CgroupMode::Default),
            Some("ignore") => Ok(CgroupMode::Ignore),
            Some("soft") => Ok(CgroupMode::Soft),
            Some("full") => Ok(CgroupMode::Full),
            Some("strict") => Ok(CgroupMode::Strict),
            Some(other) => bail!("invalid manage-cgroups-mode value: {other}"),
        }
    }

    /// `criu_cg_mode`
    pub(crate) fn number(self) -> u32 {
        match self {
            CgroupMode::Ignore => 0,
            CgroupMode::Soft => 3,
            CgroupMode::Full => 4,
            CgroupMode::Strict => 5,
            CgroupMode::Default => 6,
        }
    }
}

/// What the flags of `checkpoint` alone decide.
pub(crate) fn checkpoint(args: &Checkpoint, spec: &Spec) -> Result<Options> {
    Ok(Options {
        log_file: "dump.log",
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        page_server: args.page_server.as_deref().map(page_server).transpose()?.flatten(),
        parent_images: args.parent().map(Path::to_owned),
        ..common(&args.images, spec)?
    })
}

/// What the flags of `restore` alone decide.
pub(crate) fn restore(args: &Restore, spec: &Spec) -> Result<Options> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(Options {
        restoring: true,
        log_file: "restore.log",
        lsm_profile: given(&args.lsm_profile),
        lsm_mount_context: given(&args.lsm_mount_context),
        ..common(&args.images, spec)?
    })
}

fn common(images: &Images, spec: &Spec) -> Result<Options> {
    let config_file = match spec.annotations.get(CONFIG_ANNOTATION) {
        Some(path) => Some(path.clone()).filter(|path| !path.is_empty()),
        None => Some(CONFIG_FILE.to_owned()),
    };
    Ok(Options {
        external_unix_sockets: images.ext_unix_sk,
        tcp_established: images.tcp_established,
        shell_job: images.shell_job,
        file_locks: images.file_locks,
        auto_dedup: images.auto_dedup,
        lazy_pages: images.lazy_pages,
        cgroups: CgroupMode::parse(images.manage_cgroups_mode.as_deref())?,
        // Interfaces are the business of whoever made the network.
        empty_namespaces: u32::try_from(Kind::Network.flag())?,
        config_file,
        ..Options::default()
    })
}

/// `ADDRESS:PORT`; an IPv6 address is in brackets.
fn page_server(text: &str) -> Result<Option<PageServer>> {
    const USAGE: &str = "Use --page-server ADDRESS:PORT to specify page server";
    if text.is_empty() {
        return Ok(None);
    }
    let Some((address, port)) = text.rsplit_once(':') else { bail!(USAGE) };
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    if address.is_empty() || port.is_empty() || (bare.is_none() && address.contains(':')) {
        bail!(USAGE);
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok(Some(PageServer { address: address.to_owned(), port })),
        _ => bail!("Invalid port number"),
    }
}

/// The mounts that come from outside.
#[derive(Clone, Copy)]
pub(crate) struct Outside<'a> {
    pub(crate) mounts: &'a [MountPlan],
    pub(crate) nodes: &'a [Node],
    /// Where in the root a path leads, by the symlinks that are there.
    pub(crate) resolve: &'a dyn Fn(&Path) -> PathBuf,
    /// Of a v1 hierarchy bound into the container: its name there and the directory.
    pub(crate) cgroups: &'a [(String, PathBuf)],
}

impl Outside<'_> {
    /// For a dump: by the place of each, which is also the name it gets. `masked` are the files
    /// that nothing stands for.
    pub(crate) fn dumped(&self, masked: &[PathBuf]) -> Vec<ExternalMount> {
        let own_name =
            |(place, _): (PathBuf, PathBuf)| ExternalMount { key: place.clone(), value: place };
        let masked = masked
            .iter()
            .map(|path| ExternalMount { key: Path::new("/").join(path), value: NULL.into() });
        self.all().into_iter().map(own_name).chain(masked).collect()
    }

    /// For a restore: by the names of a dump. `masked` says that there are files that nothing
    /// stands for.
    pub(crate) fn restored(&self, masked: bool) -> Vec<ExternalMount> {
        let null = masked.then(|| ExternalMount { key: NULL.into(), value: NULL.into() });
        let named = |(key, value)| ExternalMount { key, value };
        self.all().into_iter().map(named).chain(null).collect()
    }

    /// Place and source of each.
    fn all(&self) -> Vec<(PathBuf, PathBuf)> {
        let place = |path: &Path| Path::new("/").join((self.resolve)(path));
        let mut all = Vec::new();
        for mount in self.mounts {
            match mount.kind {
                MountKind::Bind { .. } if !mount.remount => {
                    // CRIU goes up from it to its mount point, and stumbles over a `.` on the way.
                    all.push((place(&mount.target), mount.source.components().collect()));
                }
                MountKind::Cgroup => {
                    let binds = self.cgroups.iter();
                    all.extend(
                        binds.map(|(name, own)| (place(&mount.target.join(name)), own.clone())),
                    );
                }
                _ => {}
            }
        }
        all.extend(
            self.nodes.iter().map(|node| (place(&node.path), Path::new("/").join(&node.path))),
        );
        all
    }
}

/// A namespace that the container joined, and outlives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lasting {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    /// Its name to CRIU.
    pub(crate) key: &'static str,
    /// The first CRIU that knows of such.
    pub(crate) since: u32,
}

/// The namespaces that CRIU leaves alone, to be there again in a restore.
pub(crate) fn lasting(namespaces: &Namespaces) -> Vec<Lasting> {
    let known = |(kind, path): &(Kind, PathBuf)| {
        let (key, since) = match kind {
            Kind::Network => ("extRootNetNS", 31_100),
            Kind::Pid => ("extRootPidNS", 31_500),
            _ => return None,
        };
        Some(Lasting { kind: *kind, path: path.clone(), key, since })
    };
    namespaces.join.iter().filter_map(known).collect()
}

/// The namespaces that CRIU enters instead of making them anew.
pub(crate) fn joined(namespaces: &Namespaces) -> Result<Vec<(String, PathBuf)>> {
    let mut joined = Vec::new();
    for (kind, path) in &namespaces.join {
        match kind {
            Kind::Network | Kind::Pid => {}
            Kind::Cgroup => {
                bail!("Do not know how to handle namespace cgroup: CRIU can't join one")
            }
            kind => joined.push((short_name(*kind).to_owned(), path.clone())),
        }
    }
    Ok(joined)
}

/// The name of the file in /proc/PID/ns, by which CRIU knows a kind as well.
pub(crate) fn short_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Network => "net",
        Kind::Mount => "mnt",
        kind => kind.name(),
    }
}

/// True if `mount` has its place in something that is there only once it is mounted itself, so that
/// it is not in the root: CRIU makes the whole tree of a tmpfs, and the kernel that of others.
pub(crate) fn lies_in_another(mount: &MountPlan, mounts: &[MountPlan]) -> bool {
    let kinds = [MountKind::Tmpfs, MountKind::Proc, MountKind::Sysfs, MountKind::Cgroup];
    mounts.iter().any(|other| {
        (kinds.contains(&other.kind) || other.filesystem == "cgroup2")
            && other.target != mount.target
            && mount.target.starts_with(&other.target)
    })
}

#[cfg(test)]
mod tests;
