//! One check of the container's health, in a child of the supervisor's: runs the program in the
//! container, and notes what came of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, WaitOptions};

use super::Settings;
use crate::clock;
use crate::error;
use crate::foreground::{self, Ours};
use crate::host::{Host, Program};
use crate::records::health::{Check, Outcome, Word};
use crate::records::{Records, Supervised};
use crate::spawn::{self, Console, ExecRequest, SpawnOptions, Spawned};
use crate::state::{self, Record, StateStore, Status};
use crate::sys::pidfd::pidfd_send_signal;

/// So much of what a check writes is kept, as docker does.
const MOST_OUTPUT: usize = 4096;
/// Reads before the clock is looked at again: a check may write for ever.
const TURNS: usize = 16;
/// The code of a check that did not end by itself.
const NOT_ENDED: i32 = -1;

/// The nurse's whole life; whether the container is still not known to have started.
pub(super) fn look(settings: &Settings) -> bool {
    // Nobody is there to be told; the next look comes anyway.
    check(settings).is_ok_and(|word| word == Some(Word::Starting))
}

fn check(settings: &Settings) -> Result<Option<Word>> {
    let Some(check) = &settings.check else { return Ok(None) };
    let records = Records::new(Some(settings.records.clone()), &settings.root);
    let store = StateStore::new(settings.root.clone());
    let record = records.load(&settings.id)?;
    let live = store.load(&settings.id)?;
    if state::status(&store, &live)? != Status::Running {
        return Ok(None);
    }
    let began = SystemTime::now();
    let (exit_code, output) = match run(check, &record, &live, &store) {
        Ok(result) => result,
        // It is still the container's own: no program of that name, say.
        Err(error) => (NOT_ENDED, error::render(&error)),
    };
    let outcome = Outcome {
        start: clock::nanoseconds(began),
        end: clock::nanoseconds(SystemTime::now()),
        exit_code,
        output,
    };
    let age = record.life.started.as_deref().and_then(clock::parse).and_then(|started| {
        began.duration_since(SystemTime::UNIX_EPOCH).ok()?.checked_sub(started)
    });
    records.note_health(&settings.id, check, outcome, age.unwrap_or_default()).map(Some)
}

/// Runs the check; its exit code and what it wrote.
fn run(
    check: &Check,
    record: &Supervised,
    live: &Record,
    store: &StateStore,
) -> Result<(i32, String)> {
    let setup = &record.setup;
    let host = Host::probe(Program::Runtime, setup.rootless, setup.systemd_cgroup)?;
    let spec = store.load_spec(&live.id)?;
    let mut process = spec.process.clone().context("the container has no process")?;
    process.args.clone_from(&check.args);
    process.terminal = false;
    let (ours, stdio) = foreground::stdio(false, &spec)?;
    let Ours::Pipes([stdin, stdout, stderr]) = ours else { bail!("a check has no terminal") };
    drop(stdin);
    let options = SpawnOptions {
        console: Console::Returned,
        stdio,
        pidfd_socket: None,
        pid_file: None,
        preserve_fds: 0,
        no_new_keyring: live.config.no_new_keyring,
    };
    let request = ExecRequest {
        host: &host,
        record: live,
        spec: &spec,
        process: &process,
        sub_cgroups: &[],
        options,
    };
    let spawned = spawn::exec(&request)?;
    // Its ends of the pipes are still among ours.
    drop(request);
    await_end(&spawned, [stdout, stderr], check.timeout())
}

/// Reads along until the process is gone, or is out of time.
fn await_end(
    spawned: &Spawned,
    outputs: [OwnedFd; 2],
    patience: Duration,
) -> Result<(i32, String)> {
    let mut open = Vec::new();
    for output in outputs {
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("set O_NONBLOCK")?;
        open.push(File::from(output));
    }
    let end = Instant::now() + patience;
    let mut text = Vec::new();
    let in_time = loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break false;
        }
        let mut fds = vec![PollFd::new(spawned.pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(open.iter().map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let gone = fds[0].any().unwrap_or(false);
        drop(fds);
        open.retain_mut(|output| read_some(output, &mut text));
        if gone {
            break true;
        }
    };
    if !in_time {
        // One that has just ended is told nothing.
        let _ = pidfd_send_signal(&spawned.pidfd, libc::SIGKILL);
    }
    let pid = Pid::from_raw(spawned.pid).context("the check has no pid")?;
    let ended =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
    let (_, status) = ended.context("wait for the check")?.context("the check has no end")?;
    if !in_time {
        let text = format!("the check took longer than {patience:?}");
        return Ok((NOT_ENDED, text));
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((i32::from(foreground::exit_code(status)), text))
}

/// Takes what is there; false at the end. What is too much is read, so that nobody waits for us.
fn read_some(output: &mut File, text: &mut Vec<u8>) -> bool {
    let mut buffer = [0; MOST_OUTPUT];
    for _ in 0..TURNS {
        match output.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                let room = MOST_OUTPUT.saturating_sub(text.len());
                text.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
    true
}
