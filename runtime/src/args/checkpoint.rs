//! `checkpoint` and `restore`, with runc's flags.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

/// What both commands have in common.
#[derive(Args, Clone, Debug)]
pub(crate) struct Images {
    /// directory of CRIU's image files (default: checkpoint)
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// directory for CRIU's work files and logs
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// go on though there are open TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// go on though there are connected unix sockets from outside
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// go on though the container has the terminal of a shell
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// handle file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// what is done about cgroups: soft, full, strict or ignore (default: soft)
    #[arg(long, value_name = "MODE")]
    pub(crate) manage_cgroups_mode: Option<String>,
    /// make this namespace, but leave it empty: network
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// keep each page of memory once in the image files
    #[arg(long)]
    pub(crate) auto_dedup: bool,
    /// bring memory by userfaultfd, when it is needed
    #[arg(long)]
    pub(crate) lazy_pages: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) images: Images,
    /// image files of an earlier pre-dump, relative to those of this one
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// let the container run on
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// leave out TCP connections that are being made
    #[arg(long)]
    pub(crate) tcp_skip_in_flight: bool,
    /// link files again that are open but have no name
    #[arg(long)]
    pub(crate) link_remap: bool,
    /// descriptor that is written to when the lazy pages can be asked for
    #[arg(long, default_value_t = -1, allow_hyphen_values = true, value_name = "FD")]
    pub(crate) status_fd: i32,
    /// send the pages of memory to this server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) page_server: Option<String>,
    /// save memory only, and let the container run on
    #[arg(long)]
    pub(crate) pre_dump: bool,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) images: Images,
    /// unix socket that is sent the master end of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// directory of the bundle (default: the current one)
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// detach from the container's process
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// file to write the process id to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// do not adopt the processes that the container leaves behind
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// do not use pivot_root, as for a rootfs on a ramdisk
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// LSM profile for the restored processes
    #[arg(long, value_name = "TYPE:NAME")]
    pub(crate) lsm_profile: Option<String>,
    /// LSM context for the restored mounts
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) lsm_mount_context: Option<String>,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}

impl Images {
    /// The directory of the image files, as the user gave it.
    pub(crate) fn directory(&self) -> &Path {
        given(self.image_path.as_ref()).unwrap_or(Path::new("checkpoint"))
    }

    /// The directory of the logs, if it is another one.
    pub(crate) fn work(&self) -> Option<&Path> {
        given(self.work_path.as_ref())
    }

    /// The values that can be wrong by themselves.
    pub(crate) fn check(&self) -> Result<()> {
        match self.empty_ns.iter().find(|name| *name != "network") {
            None => Ok(()),
            Some(other) => bail!("namespace {other:?} is not supported"),
        }
    }
}

impl Checkpoint {
    /// The directory of the earlier pre-dump.
    pub(crate) fn parent(&self) -> Option<&Path> {
        given(self.parent_path.as_ref())
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.images.check()?;
        if self.parent().is_some_and(Path::is_absolute) {
            bail!("--parent-path must be relative");
        }
        Ok(())
    }
}

/// To runc an empty value is one that was not given.
fn given(path: Option<&PathBuf>) -> Option<&Path> {
    path.map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
}
