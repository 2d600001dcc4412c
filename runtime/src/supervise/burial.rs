//! Puts a container that has ended away, in a child of the supervisor's: its live state goes, its
//! record gets the end.

use std::time::SystemTime;

use anyhow::Result;

use super::Settings;
use crate::clock;
use crate::commands;
use crate::error;
use crate::records::Records;
use crate::spawn;
use crate::state::StateStore;

/// How it ended, and what comes then.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) code: u8,
    pub(super) at: SystemTime,
    pub(super) restarting: bool,
    pub(super) log_broken: bool,
}

/// The undertaker's whole life; what goes wrong is written into the record.
pub(super) fn undertaker(settings: &Settings, end: End, failure: Option<&str>) {
    // A record that can't be written is told by what it still says.
    let _ = bury(settings, end, failure);
}

fn bury(settings: &Settings, end: End, failure: Option<&str>) -> Result<()> {
    let records = Records::new(Some(settings.records.clone()), &settings.root);
    let store = StateStore::new(settings.root.clone());
    let mut record = records.load(&settings.id)?;
    let oom_killed = store
        .find(&settings.id)
        .is_ok_and(|live| live.is_some_and(|live| spawn::files::oom_killed(&live.cgroup())));
    let destroyed = commands::destroy_by_id(&settings.id, &store);
    let life = &mut record.life;
    life.finished = Some(clock::nanoseconds(end.at));
    life.exit_code = Some(end.code);
    life.oom_killed = oom_killed;
    life.exits += 1;
    if !end.restarting {
        // It only takes leave of those attached: another may begin.
        life.supervisor = None;
    }
    life.restarting = end.restarting;
    let log = end.log_broken.then(|| "some of the output could not be logged".to_owned());
    let failure = failure.map(str::to_owned);
    life.error = failure.or_else(|| destroyed.err().map(|error| error::render(&error))).or(log);
    if record.remove && !end.restarting {
        return records.remove(&settings.id);
    }
    records.save(&record)?;
    records.sync(&settings.id)
}
