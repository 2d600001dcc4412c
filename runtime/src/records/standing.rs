//! Where a supervised container stands, from its record, its supervisor and its live state.

use anyhow::Result;

use super::Supervised;
use crate::state::{self, StateStore, Status};

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has a process: how that one stands.
    Alive(Status),
    /// Between an end and the start that its policy wants.
    Restarting,
    /// Its supervisor is about to start it, or to record its end.
    Changing,
    Exited,
}

/// Looks.
pub(crate) fn of(record: &Supervised, store: &StateStore) -> Result<Standing> {
    let live = store.find(&record.id)?;
    if let Some(live) = live {
        let status = state::status(store, &live)?;
        if status != Status::Stopped {
            return Ok(Standing::Alive(status));
        }
    }
    Ok(match record.supervisor() {
        Some(_) if record.life.restarting => Standing::Restarting,
        Some(_) => Standing::Changing,
        None => Standing::Exited,
    })
}

/// `Up 3 minutes`, `Exited (0) 3 minutes ago`, in docker's words.
pub(crate) fn describe(record: &Supervised, standing: Standing, now: u64) -> String {
    let since = |time: &Option<String>| {
        let then = time.as_deref().and_then(crate::clock::parse_seconds).unwrap_or(now);
        crate::clock::age(now.saturating_sub(then))
    };
    let life = &record.life;
    // Nobody saw the end: the supervisor was killed, or the host went down.
    let code = life.exit_code.unwrap_or(255);
    match standing {
        Standing::Alive(Status::Created) => "Created".to_owned(),
        Standing::Alive(Status::Paused) => format!("Up {} (Paused)", since(&life.started)),
        Standing::Alive(_) => format!("Up {}", since(&life.started)),
        Standing::Restarting => format!("Restarting ({code}) {} ago", since(&life.finished)),
        Standing::Changing if life.started.is_none() => "Created".to_owned(),
        Standing::Changing if life.finished.is_none() => format!("Up {}", since(&life.started)),
        Standing::Changing | Standing::Exited => {
            let end = if life.finished.is_some() { &life.finished } else { &life.started };
            format!("Exited ({code}) {} ago", since(end))
        }
    }
}
