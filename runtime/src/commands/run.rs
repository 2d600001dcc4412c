//! `run`: create, start and, unless detached, stay until the program ends.

use std::io::Write;

use anyhow::{Context, Result};

use super::create::{self, Prepared};
use super::{delete, start, supervised};
use crate::args::Run;
use crate::foreground::{self, Foreground};
use crate::host::Host;
use crate::log;
use crate::records::Records;
use crate::spawn::{Spawned, Stdio};
use crate::state::StateStore;

pub(super) fn run(args: Run, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    let failed = || format!("{} run failed", host.program.name());
    if args.supervision.supervise {
        return supervised::run(args, host, store, records).with_context(failed);
    }
    supervised::refuse_without(&args.supervision).with_context(failed)?;
    if args.detach {
        detached(args, host, store, records)
    } else {
        attached(args, host, store, records)
    }
    .with_context(failed)
}

fn detached(args: Run, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    let prepared = Prepared::new(args.setup, host, store, records)?;
    prepared.must_have_process()?;
    supervised::tell_what_is_not_done(&prepared);
    let socket = prepared.console_socket.as_deref();
    let console = create::console(prepared.terminal(), true, socket)?;
    let spawned = prepared.spawn(console, Stdio::Inherit, host, store)?;
    start_or_destroy(&prepared, &spawned, store)?;
    prepared.keep_cidfile();
    if prepared.generated {
        writeln!(std::io::stdout(), "{}", prepared.id).context("print the id")?;
    }
    Ok(0)
}

fn attached(args: Run, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    let prepared = Prepared::new(args.setup, host, store, records)?;
    prepared.must_have_process()?;
    supervised::tell_what_is_not_done(&prepared);
    let terminal = prepared.terminal();
    let console = create::console(terminal, false, prepared.console_socket.as_deref())?;
    let (ours, theirs) = foreground::stdio(terminal, &prepared.bundle.spec)?;
    let mut foreground = Foreground::new(ours, !args.no_subreaper)?;
    let spawned = prepared.spawn(console, theirs, host, store)?;
    start_or_destroy(&prepared, &spawned, store)?;
    prepared.keep_cidfile();
    let outcome = foreground.wait(spawned);
    let destroyed = if args.keep { Ok(()) } else { delete::destroy_by_id(&prepared.id, store) };
    drop(foreground);
    let code = outcome?;
    destroyed?;
    Ok(code)
}

/// What was created is unmade when it can't be started.
pub(crate) fn start_or_destroy(
    prepared: &Prepared,
    spawned: &Spawned,
    store: &StateStore,
) -> Result<()> {
    let id = &prepared.id;
    log::debug(format_args!("created {id}, pid {}", spawned.pid));
    let hooks = prepared.bundle.spec.hooks.as_ref();
    let Err(error) = start::start_own(id, &spawned.pidfd, hooks, store) else { return Ok(()) };
    match delete::destroy_by_id(id, store) {
        Ok(()) => Err(error),
        Err(also) => Err(error.context(format!("undo the creation: {also:#}"))),
    }
}
