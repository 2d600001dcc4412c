//! What runc has not: the flags of `run --supervise`, and the verbs for containers that are so kept.

use std::path::PathBuf;

use clap::Args;

/// The flags that make `run` leave a supervisor beside the container.
#[derive(Args, Clone, Debug)]
pub(crate) struct Supervision {
    /// keep a small process beside the container, which writes its log and records its end
    #[arg(long)]
    pub(crate) supervise: bool,
    /// keep standard input open, attached or not
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// a name for people (default: the bundle's, or two words)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// forget the container when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// start it again when it has ended: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// file to write the log to (default: in the container's record)
    #[arg(long, value_name = "FILE")]
    pub(crate) log_path: Option<PathBuf>,
    /// size at which a log is moved aside, with k, m or g (default: 20m)
    #[arg(long, value_name = "SIZE")]
    pub(crate) log_max_size: Option<String>,
    /// how many files of the log are kept (default: 5)
    #[arg(long, value_name = "N")]
    pub(crate) log_max_files: Option<u32>,
    /// keys that leave the container running (default: ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Attach {
    /// show what it writes, and send it nothing
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// keys that leave the container running
    #[arg(long, default_value = crate::supervise::DEFAULT_KEYS, value_name = "KEYS")]
    pub(crate) detach_keys: String,
    /// send it the signals that come to us
    #[arg(long, default_value = "true", value_name = "BOOL")]
    pub(crate) sig_proxy: String,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}
