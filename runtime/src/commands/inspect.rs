//! `inspect`: all that is known of containers, as one JSON list.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{merge, state::Document};
use crate::args::Inspect;
use crate::error::Sentinel;
use crate::records::Records;
use crate::records::standing;
use crate::state::StateStore;

pub(super) fn run(args: &Inspect, store: &StateStore, records: &Records) -> Result<u8> {
    let mut all = Vec::new();
    let mut failures = Vec::new();
    for id in &args.ids {
        match one(id, store, records) {
            Ok(value) => all.push(value),
            Err(error) => failures.push(error.context(id.clone())),
        }
    }
    let text = serde_json::to_string_pretty(&all).context("write the list")?;
    writeln!(std::io::stdout(), "{text}").context("print the list")?;
    merge(failures).map(|()| 0)
}

/// The state that runc's users know, then what the record adds to it.
fn one(id: &str, store: &StateStore, records: &Records) -> Result<Value> {
    let live = store.find(id)?;
    let kept = records.find(id)?;
    let state = match (&live, &kept) {
        (Some(live), _) => serde_json::to_value(Document::new(store, live, String::new())?),
        (None, Some(kept)) => serde_json::to_value(Document::of_exited(kept, String::new())),
        (None, None) => return Err(Sentinel::NotExist.into()),
    };
    let mut value = json!({ "state": state.context("write the state")? });
    if let Some(live) = &live {
        value["cgroups"] = json!(live.cgroup_paths);
        value["namespaces"] = json!(live.namespace_paths);
    }
    if let Some(kept) = &kept {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let standing = standing::of(kept, store)?;
        value["status"] = standing::describe(kept, standing, now).into();
        value["record"] = serde_json::to_value(kept).context("write the record")?;
        if let Some(health) = records.health(id)? {
            value["health"] = serde_json::to_value(health).context("write the health")?;
        }
        value["stopped_by_hand"] = records.is_marked_stopped(id).into();
    }
    Ok(value)
}
