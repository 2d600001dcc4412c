//! `state`: the state document of one container; and the form it shares with `list`.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::OneId;
use crate::error::Sentinel;
use crate::records::{Records, Supervised};
use crate::state::{self, Record, StateStore, Status};

pub(super) fn run(args: &OneId, store: &StateStore, records: &Records) -> Result<u8> {
    let live = store.find(&args.id)?;
    let kept = if live.is_none() { records.find(&args.id)? } else { None };
    let document = match (&live, &kept) {
        (Some(record), _) => Document::new(store, record, String::new())?,
        (None, Some(record)) => Document::of_exited(record, String::new()),
        (None, None) => return Err(Sentinel::NotExist.into()),
    };
    let text = serde_json::to_string_pretty(&document).context("write the state")?;
    // runc's ends without a newline.
    write!(std::io::stdout(), "{text}").context("print the state")?;
    Ok(0)
}

/// The keys in runc's order, which its tests compare.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    oci_version: &'a str,
    pub(super) id: &'a str,
    pub(super) pid: i32,
    pub(super) status: Status,
    pub(super) bundle: String,
    rootfs: String,
    pub(super) created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    pub(super) owner: String,
}

impl<'a> Document<'a> {
    /// Of one that has no live state any more.
    pub(super) fn of_exited(record: &'a Supervised, owner: String) -> Self {
        let annotations = record.annotations.iter();
        Document {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: 0,
            status: Status::Stopped,
            bundle: record.bundle.to_string_lossy().into_owned(),
            rootfs: record.rootfs.to_string_lossy().into_owned(),
            created: &record.created,
            annotations: annotations.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            owner,
        }
    }

    pub(super) fn new(store: &StateStore, record: &'a Record, owner: String) -> Result<Self> {
        let status = state::status(store, record)?;
        Ok(Document {
            oci_version: &record.config.version,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.init_process_pid },
            status,
            bundle: record.bundle().to_string_lossy().into_owned(),
            rootfs: record.config.rootfs.to_string_lossy().into_owned(),
            created: &record.created,
            annotations: record.annotations(),
            owner,
        })
    }
}
