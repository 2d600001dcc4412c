//! `wait`: until supervised containers have ended; their exit codes, one a line.

use std::io::Write;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{for_each_id, supervised};
use crate::args::Wait;
use crate::records::Records;
use crate::records::standing::{self, Standing};
use crate::state::StateStore;
use crate::supervise;

/// What docker says of an end that nobody saw.
const UNSEEN: u8 = 255;

pub(super) fn run(args: &Wait, store: &StateStore, records: &Records) -> Result<u8> {
    for_each_id(&args.ids, |id| {
        let code = wait(id, store, records)?;
        writeln!(std::io::stdout(), "{code}").context("print the exit code")
    })
}

/// Through the socket, since a record may go with its container.
fn wait(id: &str, store: &StateStore, records: &Records) -> Result<u8> {
    loop {
        let record = supervised::load(id, records, store)?;
        let standing = standing::of(&record, store)?;
        if standing == Standing::Exited {
            return Ok(record.life.exit_code.unwrap_or(UNSEEN));
        }
        if record.supervisor().is_none() {
            // It lives on without one.
            if let Some(init) = store.find(id)?.and_then(|live| live.pidfd().transpose()) {
                await_exit(init?)?;
            }
            continue;
        }
        match supervise::connect(&records.directory(id)?) {
            Ok((socket, ..)) => {
                if let Some(code) = supervise::await_end(socket)? {
                    return Ok(code);
                }
            }
            // About to end: its record will say how, as soon as its supervisor has gone.
            Err(_) => {
                let process = record.life.supervisor.map(crate::records::ProcessId::pidfd);
                if let Some(supervisor) = process.transpose()?.flatten() {
                    await_exit(supervisor)?;
                }
            }
        }
    }
}

fn await_exit(process: impl AsFd) -> Result<()> {
    loop {
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).context("wait for a process"),
        }
    }
}
