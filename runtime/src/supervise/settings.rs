//! What a supervisor is told at its start: no more than it needs, and nothing of config.json.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Restart;
use crate::records::health::Check;
use crate::records::{LogPlan, Supervised};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) id: String,
    /// Where the records lie.
    pub(crate) records: PathBuf,
    /// Where the live state lies.
    pub(crate) root: PathBuf,
    pub(crate) log: LogPlan,
    pub(crate) restart: Restart,
    /// How its health is checked.
    pub(crate) check: Option<Check>,
    /// Standard input stays open when nobody is attached.
    pub(crate) interactive: bool,
    /// The caller wants what the container writes.
    pub(crate) attached: bool,
    /// Rows and columns that the terminal is to have from the first.
    pub(crate) size: Option<(u16, u16)>,
}

impl Settings {
    /// For a start of this container.
    pub(crate) fn of(record: &Supervised, records: PathBuf) -> Result<Self> {
        Ok(Settings {
            id: record.id.clone(),
            records,
            root: record.root.clone(),
            log: record.log.clone(),
            restart: record.restart,
            check: Check::wanted(&record.annotations)?,
            interactive: record.interactive,
            attached: false,
            size: None,
        })
    }
}
