//! The record of one supervised container.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::state;
use crate::supervise::Restart;

/// `record.json`. Other tools may read it: keys stay, new ones may come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Supervised {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Where its live state is kept while it runs.
    pub(crate) root: PathBuf,
    pub(crate) bundle: PathBuf,
    /// The document that takes the place of the bundle's config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<PathBuf>,
    pub(crate) rootfs: PathBuf,
    pub(crate) oci_version: String,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The command line, for people.
    pub(crate) command: Vec<String>,
    pub(crate) terminal: bool,
    pub(crate) created: String,
    pub(crate) setup: Setup,
    pub(crate) log: LogPlan,
    pub(crate) restart: Restart,
    /// Standard input stays open.
    pub(crate) interactive: bool,
    /// Forget it when it has ended.
    #[serde(default)]
    pub(crate) remove: bool,
    pub(crate) life: Life,
}

/// What the command line of `run` said of the container, for the starts to come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) systemd_cgroup: bool,
    /// `--rootless`, if it was said.
    pub(crate) rootless: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid_file: Option<PathBuf>,
}

/// Where the log goes, and how much of it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LogPlan {
    pub(crate) path: PathBuf,
    /// A file that has grown past this makes room for a new one.
    pub(crate) max_bytes: u64,
    /// This many files are kept, the one written to among them.
    pub(crate) max_files: u32,
}

/// What became of it so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Life {
    /// The process that supervises it, if one does.
    pub(crate) supervisor: Option<ProcessId>,
    pub(crate) started: Option<String>,
    pub(crate) finished: Option<String>,
    /// 128 and the signal if one ended it; nothing while it runs, or when nobody saw the end.
    pub(crate) exit_code: Option<u8>,
    pub(crate) oom_killed: bool,
    /// How often it has ended.
    pub(crate) exits: u64,
    /// How often its policy has started it again.
    pub(crate) restarts: u32,
    /// The policy will start it again.
    pub(crate) restarting: bool,
    /// What went wrong besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// One process for ever: its number and when it was started, in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    pub(crate) start: u64,
}

impl ProcessId {
    /// The process that has this number now, if it is alive.
    pub(crate) fn of(pid: i32) -> Result<Option<Self>> {
        Ok(state::live_since(pid)?.map(|start| ProcessId { pid, start }))
    }

    /// A handle, if it is alive.
    pub(crate) fn pidfd(self) -> Result<Option<OwnedFd>> {
        let pidfd = state::open_process(self.pid)?;
        // Asked after it was opened: so it is of this process and no later one of that number.
        Ok(pidfd.filter(|_| state::live_since(self.pid).is_ok_and(|now| now == Some(self.start))))
    }

    /// Whether it is alive.
    pub(crate) fn is_alive(self) -> bool {
        state::live_since(self.pid).is_ok_and(|now| now == Some(self.start))
    }
}

impl Supervised {
    /// The supervisor, if it is alive.
    pub(crate) fn supervisor(&self) -> Option<ProcessId> {
        self.life.supervisor.filter(|process| process.is_alive())
    }

    /// The image, where the bundle is one of imgtool's.
    pub(crate) fn image(&self) -> &str {
        self.annotations.get("org.imgtool.image").map_or("", String::as_str)
    }
}
