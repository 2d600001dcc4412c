//! What runc has not: the flags of `run --supervise`, and the verbs for containers that are so kept.

use std::path::PathBuf;

use clap::Args;

/// The flags that make `run` leave a supervisor beside the container.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Supervision {
    /// keep a small process beside the container, which writes its log and records its end
    #[arg(long)]
    pub(crate) supervise: bool,
    /// keep standard input open, attached or not
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// forget the container when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// start it again when it has ended: no, on-failure[:N], always or unless-stopped (default: the bundle's, else no)
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// file to write the log to (default: in the container's record)
    #[arg(long, value_name = "FILE")]
    pub(crate) log_path: Option<PathBuf>,
    /// size at which a log is moved aside, with k, m or g (default: the bundle's, else 20m)
    #[arg(long, value_name = "SIZE")]
    pub(crate) log_max_size: Option<String>,
    /// how many files of the log are kept (default: the bundle's, else 5)
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

#[derive(Args, Clone, Debug)]
pub(crate) struct Inspect {
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Logs {
    /// go on with what it writes, until it ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// only so many of the last lines
    #[arg(long, short = 'n', default_value = "all", value_name = "N")]
    pub(crate) tail: String,
    /// only from this time on: 2026-01-02T15:04:05Z, or 10m for so long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// only up to this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// begin each line with its time
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    /// only stdout or stderr
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<String>,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Start {
    /// only those that their restart policy wants to run after a boot; of all, if no id is given
    #[arg(long)]
    pub(crate) boot: bool,
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Stats {
    /// table or json
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: String,
    /// show them once, and exit
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// default: all that run
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}

/// Of `stop` and of `restart`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Stop {
    /// kill what has not ended after so many seconds; -1: wait for ever (default: the bundle's, else 10)
    #[arg(long, short, value_name = "SECONDS")]
    pub(crate) time: Option<String>,
    /// signal to send (default: the image's, else SIGTERM)
    #[arg(long, short, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Unit {
    /// none: a unit that starts, at boot, all whose restart policy wants it
    #[arg(value_name = "container-id")]
    pub(crate) id: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Wait {
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}
