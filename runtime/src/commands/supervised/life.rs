//! Starts and ends of containers that have a supervisor, or had one.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::records::standing::{self, Standing};
use crate::records::{Records, Supervised};
use crate::signals;
use crate::state::{self, StateStore, Status};
use crate::supervise::{self, Settings};
use crate::sys::pidfd::pidfd_send_signal;

/// How long a supervisor may take to put a container away that was killed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often what may have come in between is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The image's wish for the signal that ends it, as imgtool passes it on.
const STOP_SIGNAL_ANNOTATION: &str = "org.opencontainers.image.stopSignal";
/// The user's wish for the time it is given then, in seconds.
const STOP_TIMEOUT_ANNOTATION: &str = "org.imgtool.stop-timeout";
/// As docker has it.
const USUAL_PATIENCE: Duration = Duration::from_secs(10);

/// How long a container may take to end by itself.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) enum Patience {
    Forever,
    Time(Duration),
}

impl Patience {
    /// Seconds, or -1.
    pub(in crate::commands) fn parse(text: &str) -> Result<Self> {
        match text.parse::<i64>() {
            Ok(seconds @ 0..=0xffff_ffff) => {
                Ok(Patience::Time(Duration::from_secs(seconds.unsigned_abs())))
            }
            // What no clock reaches is for ever, too.
            Ok(-1 | 0x1_0000_0000..) => Ok(Patience::Forever),
            _ => bail!("want seconds, or -1 to wait for ever"),
        }
    }
}

/// Starts one again that has ended.
pub(in crate::commands) fn start(
    record: &Supervised,
    store: &StateStore,
    records: &Records,
) -> Result<()> {
    let _held = records.hold(&record.id)?;
    match standing::of(record, store)? {
        Standing::Exited => {}
        Standing::Restarting => bail!("cannot start {}: it is about to be restarted", record.id),
        _ => bail!("cannot start an already running container"),
    }
    records.unmark_stopped(&record.id)?;
    let settings = Settings::of(record, records.place()?)?;
    let mut socket = supervise::launch(&settings)?;
    supervise::await_start(&mut socket)
}

/// Those of `ids`, or of all, that have ended and that their policy wants to run after a boot:
/// `always` also what was stopped by hand, `unless-stopped` not, `on-failure` what has failed or
/// whose end nobody saw.
pub(in crate::commands) fn wanted_at_boot(
    ids: &[String],
    store: &StateStore,
    records: &Records,
) -> Result<Vec<String>> {
    let mut wanted = Vec::new();
    for (id, record) in records.all()? {
        let record = record.with_context(|| format!("record of {id}"))?;
        let by_hand = records.is_marked_stopped(&id);
        if (ids.is_empty() || ids.contains(&id))
            && record.restart.wants_at_boot(record.life.exit_code, by_hand)
            && standing::of(&record, store)? == Standing::Exited
        {
            wanted.push(id);
        }
    }
    Ok(wanted)
}

/// Deletes one that has ended, or with force any.
pub(in crate::commands) fn delete(
    record: &Supervised,
    force: bool,
    store: &StateStore,
    records: &Records,
) -> Result<()> {
    let id = &record.id;
    let _held = records.hold(id)?;
    let standing = standing::of(record, store)?;
    if !force && standing != Standing::Exited {
        let status = match standing {
            Standing::Alive(status) => status.to_string(),
            Standing::Restarting => "restarting".to_owned(),
            Standing::Changing | Standing::Exited => "about to change".to_owned(),
        };
        let shown = crate::records::short(id);
        bail!(
            "cannot delete container {id} that is not stopped: {status}; end it first by `runtime \
             stop {shown}`, or say --force"
        );
    }
    records.mark_stopped(id)?;
    end_by_force(record, store)?;
    crate::commands::destroy_by_id(id, store)?;
    records.remove(id)
}

/// Kills it, and waits until its supervisor has put it away.
fn end_by_force(record: &Supervised, store: &StateStore) -> Result<()> {
    let supervisor = match record.life.supervisor {
        Some(process) => process.pidfd()?,
        None => None,
    };
    let Some(supervisor) = supervisor else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    loop {
        // It may be about to make one.
        if let Some(live) = store.find(&record.id)? {
            crate::commands::delete::kill_init(&live, &live.cgroup())?;
        }
        tell(&supervisor, libc::SIGUSR1)?;
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout).unwrap_or(0) > 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the supervisor of {} does not end", record.id);
        }
    }
}

/// A signal to a supervisor; one that is gone is told nothing.
fn tell(supervisor: impl AsFd, signal: i32) -> Result<()> {
    match pidfd_send_signal(supervisor, signal) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
            Err(error).context("tell the supervisor")
        }
        _ => Ok(()),
    }
}

/// Somebody ends it by hand: no policy is to start it again then.
pub(in crate::commands) fn note_kill(id: &str, signal: i32, records: &Records) -> Result<()> {
    let deadly = [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
    if deadly.contains(&signal) && records.find(id)?.is_some() {
        records.mark_stopped(id)?;
    }
    Ok(())
}

/// One that was asked to end, and when patience with it ends.
struct Leaving {
    id: String,
    /// `None` once it is gone.
    init: Option<OwnedFd>,
    supervisor: Option<OwnedFd>,
    /// When it is killed; `None` for never.
    deadline: Option<Instant>,
}

/// `stop`: asks each to end, then waits for all, and kills what is left after so long (`None`: as its
/// bundle says, else docker's ten seconds). What can't be done comes with the id that it is of.
pub(in crate::commands) fn stop_all(
    ids: &[String],
    patience: Option<Patience>,
    signal: Option<i32>,
    store: &StateStore,
    records: &Records,
) -> Vec<(String, anyhow::Error)> {
    let mut failures = Vec::new();
    let mut leaving = Vec::new();
    for id in ids {
        match ask_to_end(id, patience, signal, store, records) {
            Ok(one) => leaving.push(one),
            Err(error) => failures.push((id.clone(), error)),
        }
    }
    for one in leaving {
        if let Err(error) = see_end(&one, store) {
            failures.push((one.id, error));
        }
    }
    failures
}

fn ask_to_end(
    id: &str,
    patience: Option<Patience>,
    signal: Option<i32>,
    store: &StateStore,
    records: &Records,
) -> Result<Leaving> {
    let live = store.find(id)?;
    let kept = records.find(id)?;
    if live.is_none() && kept.is_none() {
        return Err(crate::error::Sentinel::NotExist.into());
    }
    let mut supervisor = None;
    if let Some(kept) = &kept {
        supervisor = want_end(kept, records)?;
    }
    let wish = || match &live {
        Some(live) => live.annotations().get(STOP_SIGNAL_ANNOTATION).map(|it| signals::parse(it)),
        None => None,
    };
    let signal = match signal {
        Some(signal) => signal,
        // An image's nonsense must not keep us from ending it.
        None => wish().and_then(Result::ok).unwrap_or(libc::SIGTERM),
    };
    let said = match (&live, &kept) {
        (Some(live), _) => {
            live.annotations().get(STOP_TIMEOUT_ANNOTATION).map(|it| (*it).to_owned())
        }
        (None, Some(kept)) => kept.annotations.get(STOP_TIMEOUT_ANNOTATION).cloned(),
        (None, None) => None,
    };
    let wished = || said.and_then(|text| Patience::parse(&text).ok());
    let patience = patience.or_else(wished).unwrap_or(Patience::Time(USUAL_PATIENCE));
    let mut init = None;
    if let Some(live) = &live {
        init = live.pidfd()?;
        if let Some(init) = &init {
            tell(init, signal)?;
            if state::status(store, live)? == Status::Paused {
                live.cgroup().thaw()?;
            }
        }
    }
    let deadline = match patience {
        Patience::Forever => None,
        Patience::Time(time) => Some(Instant::now() + time),
    };
    Ok(Leaving { id: id.to_owned(), init, supervisor, deadline })
}

/// No policy is to start it again; its supervisor, if it has one.
fn want_end(kept: &Supervised, records: &Records) -> Result<Option<OwnedFd>> {
    records.mark_stopped(&kept.id)?;
    let Some(process) = kept.life.supervisor else { return Ok(None) };
    let Some(supervisor) = process.pidfd()? else { return Ok(None) };
    tell(&supervisor, libc::SIGUSR1)?;
    Ok(Some(supervisor))
}

fn see_end(one: &Leaving, store: &StateStore) -> Result<()> {
    if let Some(init) = &one.init
        && !await_exit(init, one.deadline)?
    {
        let live = store.find(&one.id)?;
        if let Some(live) = live {
            crate::commands::kill::kill_all_or_init(&live)?;
        }
        if !await_exit(init, Some(Instant::now() + PATIENCE))? {
            bail!("container init still running");
        }
    }
    match &one.supervisor {
        Some(supervisor) if !await_exit(supervisor, Some(Instant::now() + PATIENCE))? => {
            bail!("the supervisor of {} does not end", one.id)
        }
        _ => Ok(()),
    }
}

/// False if the time came first.
fn await_exit(process: &OwnedFd, deadline: Option<Instant>) -> Result<bool> {
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Ok(false);
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error).context("wait for a process"),
        }
    }
}
