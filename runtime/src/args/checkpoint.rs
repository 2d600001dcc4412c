//! `checkpoint` and `restore`: all of runc's flags are taken, since engines look whether they are
//! there; what is read of them so far is what a wrong use is told by.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

/// What both commands have in common.
#[derive(Args, Clone, Debug)]
#[allow(
    dead_code,
    reason = "known by name to the engines that ask; CRIU, that they are for, is not driven"
)]
pub(crate) struct Images {
    /// directory of CRIU's image files (default: checkpoint)
    #[arg(long, value_name = "DIR")]
    pub(crate) image_path: Option<PathBuf>,
    /// directory for CRIU's work files and logs
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// go on though there are open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// go on though there are connected unix sockets from outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// go on though the container has the terminal of a shell
    #[arg(long)]
    shell_job: bool,
    /// handle file locks
    #[arg(long)]
    file_locks: bool,
    /// what is done about cgroups: soft, full, strict or ignore (default: soft)
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// make this namespace, but leave it empty: network
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// keep each page of memory once in the image files
    #[arg(long)]
    auto_dedup: bool,
    /// bring memory by userfaultfd, when it is needed
    #[arg(long)]
    lazy_pages: bool,
}

#[derive(Args, Clone, Debug)]
#[allow(
    dead_code,
    reason = "known by name to the engines that ask; CRIU, that they are for, is not driven"
)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) images: Images,
    /// image files of an earlier pre-dump, relative to those of this one
    #[arg(long, value_name = "DIR")]
    pub(crate) parent_path: Option<PathBuf>,
    /// let the container run on
    #[arg(long)]
    leave_running: bool,
    /// leave out TCP connections that are being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// link files again that are open but have no name
    #[arg(long)]
    link_remap: bool,
    /// descriptor that is written to when the lazy pages can be asked for
    #[arg(long, default_value_t = -1, allow_hyphen_values = true, value_name = "FD")]
    status_fd: i32,
    /// send the pages of memory to this server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// save memory only, and let the container run on
    #[arg(long)]
    pre_dump: bool,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}

#[derive(Args, Clone, Debug)]
#[allow(
    dead_code,
    reason = "known by name to the engines that ask; CRIU, that they are for, is not driven"
)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) images: Images,
    /// unix socket that is sent the master end of the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// directory of the bundle (default: the current one)
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// file to write the process id to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// do not adopt the processes that the container leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// do not use pivot_root, as for a rootfs on a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// LSM profile for the restored processes
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// LSM context for the restored mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}

impl Images {
    /// The values that can be wrong by themselves.
    pub(crate) fn check(&self) -> Result<()> {
        match self.manage_cgroups_mode.as_deref() {
            None | Some("soft" | "full" | "strict" | "ignore") => {}
            Some(other) => bail!("invalid manage-cgroups-mode value: {other}"),
        }
        match self.empty_ns.iter().find(|name| *name != "network") {
            None => Ok(()),
            Some(other) => bail!("namespace {other:?} is not supported"),
        }
    }
}

impl Checkpoint {
    pub(crate) fn check(&self) -> Result<()> {
        self.images.check()?;
        if self.parent_path.as_ref().is_some_and(|path| path.is_absolute()) {
            bail!("--parent-path must be relative");
        }
        let Some(server) = &self.page_server else { return Ok(()) };
        match server.rsplit_once(':') {
            Some((address, port)) if !address.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
            _ => bail!("Use --page-server ADDRESS:PORT to specify page server"),
        }
    }
}
