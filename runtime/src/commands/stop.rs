//! `stop` and `restart`: a polite request, patience, and SIGKILL.

use anyhow::{Context, Result};

use super::supervised::Patience;
use super::{merge, supervised};
use crate::args::Stop;
use crate::records::Records;
use crate::signals;
use crate::state::StateStore;

pub(super) fn stop(args: &Stop, store: &StateStore, records: &Records) -> Result<u8> {
    let failures = stop_all(args, store, records)?;
    report(args, failures)
}

/// What can't be stopped is not started.
pub(super) fn restart(args: &Stop, store: &StateStore, records: &Records) -> Result<u8> {
    for id in &args.ids {
        supervised::load(id, records, store).with_context(|| format!("restart {id}"))?;
    }
    let mut failures = stop_all(args, store, records)?;
    for id in &args.ids {
        if failures.iter().any(|(failed, _)| failed == id) {
            continue;
        }
        let started = supervised::load(id, records, store)
            .and_then(|record| supervised::start(&record, store, records));
        failures.extend(started.err().map(|error| (id.clone(), error)));
    }
    report(args, failures)
}

fn stop_all(
    args: &Stop,
    store: &StateStore,
    records: &Records,
) -> Result<Vec<(String, anyhow::Error)>> {
    let patience = args.time.as_deref().map(|time| {
        let invalid = || format!("invalid value {time:?} for --time");
        Patience::parse(time).with_context(invalid)
    });
    let patience = patience.transpose()?;
    let signal = args.signal.as_deref().map(signals::parse).transpose()?;
    Ok(supervised::stop_all(&args.ids, patience, signal, store, records))
}

fn report(args: &Stop, failures: Vec<(String, anyhow::Error)>) -> Result<u8> {
    let several = args.ids.len() > 1;
    let told =
        |(id, error): (String, anyhow::Error)| if several { error.context(id) } else { error };
    merge(failures.into_iter().map(told).collect()).map(|()| 0)
}
