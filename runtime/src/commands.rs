//! One file per verb, named as the user types it.

use anyhow::Result;

use crate::args::Command;
use crate::host::Host;
use crate::state::StateStore;

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

/// Runs the command; what it returns is the exit code.
pub(crate) fn run(command: Command, host: &Host, store: &StateStore) -> Result<u8> {
    match command {
        Command::Checkpoint(args) => checkpoint::checkpoint(&args, store),
        Command::Create(args) => create::run(args, host, store),
        Command::Delete(args) => delete::run(&args, store),
        Command::Events(args) => events::run(&args, store),
        Command::Exec(args) => exec::run(*args, host, store),
        Command::Features(_) => features::run(),
        Command::Kill(args) => kill::run(args, host, store),
        Command::List(args) => list::run(&args, host, store),
        Command::Pause(args) => pause::pause(&args, host, store),
        Command::Ps(args) => ps::run(&args, host, store),
        Command::Restore(args) => checkpoint::restore(&args, store),
        Command::Resume(args) => pause::resume(&args, host, store),
        Command::Run(args) => run::run(args, host, store),
        Command::Spec(args) => spec::run(&args, host),
        Command::Start(args) => start::run(&args, store),
        Command::State(args) => state::run(&args, store),
        Command::Update(args) => update::run(&args, store),
    }
}

/// Does `one` for each id; goes on after a failure and reports them all.
fn for_each_id(ids: &[String], mut one: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    let several = ids.len() > 1;
    let mut failures = Vec::new();
    for id in ids {
        if let Err(error) = one(id) {
            failures.push(if several { error.context(id.clone()) } else { error });
        }
    }
    merge(failures).map(|()| 0)
}

/// Several errors as one, a single one as it is.
fn merge(mut failures: Vec<anyhow::Error>) -> Result<()> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => {
            let texts: Vec<String> = failures.iter().map(crate::error::render).collect();
            Err(anyhow::anyhow!(texts.join("; ")))
        }
    }
}
