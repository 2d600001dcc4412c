//! `attach`: the standard streams of a supervised container, until it ends or we leave.

use anyhow::{Result, bail};

use super::supervised;
use crate::args::Attach;
use crate::records::standing::{self, Standing};
use crate::records::{Records, short};
use crate::state::{StateStore, Status};
use crate::supervise::{self, Ending, Keys, Visit};

pub(super) fn run(args: &Attach, store: &StateStore, records: &Records) -> Result<u8> {
    let detach = Keys::parse(&args.detach_keys)?;
    let forward_signals = match args.sig_proxy.as_str() {
        "true" => true,
        "false" => false,
        other => bail!("invalid value {other:?} for --sig-proxy: true or false"),
    };
    let record = supervised::load(&args.id, records, store)?;
    let shown = short(&record.id);
    match standing::of(&record, store)? {
        Standing::Alive(Status::Paused) => {
            bail!("container {shown} is paused: run `runtime resume {shown}` first")
        }
        Standing::Exited => {
            bail!("container {shown} has ended: its output is in `runtime logs {shown}`")
        }
        _ => {}
    }
    let (socket, terminal, takes_input) = supervise::connect(&records.directory(&record.id)?)?;
    let input = takes_input && !args.no_stdin;
    let visit = Visit { input, forward_signals, detach, repaint: true };
    match supervise::converse(socket, visit, terminal)? {
        Ending::Exit(code) => Ok(code),
        Ending::Detached => Ok(0),
    }
}
