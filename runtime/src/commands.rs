//! One file per verb, named as the user types it.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use regex_lite::Regex;

use crate::args::Command;
use crate::error::{self, Sentinel};
use crate::host::Host;
use crate::records::Records;
use crate::state::StateStore;

mod attach;
mod checkpoint;
mod cidfile;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod inspect;
mod kill;
mod list;
mod logs;
mod mounts;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod stats;
mod stop;
mod supervised;
mod unit;
mod update;
mod wait;

pub(crate) use create::Prepared;
pub(crate) use delete::{clear_dead, destroy_by_id};
pub(crate) use run::start_or_destroy;

/// Runs the command; what it returns is the exit code.
pub(crate) fn run(
    command: Command,
    host: &Host,
    store: &StateStore,
    records: &Records,
) -> Result<u8> {
    match command {
        Command::Attach(args) => attach::run(&args, store, records),
        Command::Checkpoint(args) => checkpoint::checkpoint(&args, host, store),
        Command::Create(args) => create::run(args, host, store, records),
        Command::Delete(args) => delete::run(&args, store, records),
        Command::Events(args) => events::run(&args, store),
        Command::Exec(args) => exec::run(*args, host, store),
        Command::Features(_) => features::run(),
        Command::Inspect(args) => inspect::run(&args, store, records),
        Command::Completion(args) => crate::args::print(&args.shell.script()).map(|()| 0),
        Command::Kill(args) => kill::run(args, host, store, records),
        Command::List(args) => list::run(&args, host, store, records),
        Command::Logs(args) => logs::run(&args, store, records),
        Command::Mounts(args) => mounts::run(&args, host, store),
        Command::Pause(args) => pause::pause(&args, host, store),
        Command::Ps(args) => ps::run(&args, host, store),
        Command::Restart(args) => stop::restart(&args, store, records),
        Command::Restore(args) => checkpoint::restore(&args, host, store),
        Command::Resume(args) => pause::resume(&args, host, store),
        Command::Run(args) => run::run(*args, host, store, records),
        Command::Spec(args) => spec::run(&args, host),
        Command::Start(args) => start::run(&args, store, records),
        Command::State(args) => state::run(&args, store, records),
        Command::Stats(args) => stats::run(&args, store, records),
        Command::Stop(args) => stop::stop(&args, store, records),
        Command::Unit(args) => unit::run(&args, store, records),
        Command::Update(args) => update::run(&args, store),
        Command::Wait(args) => wait::run(&args, store, records),
    }
}

/// Does `one` for each id; goes on after a failure and reports them all.
fn for_each_id(ids: &[String], one: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    for_each(ids, ids.len() > 1, one)
}

/// The same for each container whose id one of the regular expressions matches, which may be none.
fn for_each_match(
    expressions: &[String],
    store: &StateStore,
    records: &Records,
    mut one: impl FnMut(&str) -> Result<()>,
) -> Result<u8> {
    let mut ids = store.ids()?.unwrap_or_default();
    ids.extend(records.all()?.into_iter().map(|(id, _)| id));
    ids.sort();
    ids.dedup();
    for_each(&matching(expressions, ids)?, true, |id| match one(id) {
        // Nobody asked for it by name, and it is gone meanwhile.
        Err(error) if error::is(&error, Sentinel::NotExist) => Ok(()),
        other => other,
    })
}

fn matching(expressions: &[String], mut ids: Vec<String>) -> Result<Vec<String>> {
    let parse = |text: &String| {
        Regex::new(text).map_err(|error| anyhow!("invalid regular expression {text:?}: {error}"))
    };
    let expressions = expressions.iter().map(parse).collect::<Result<Vec<_>>>()?;
    ids.retain(|id| expressions.iter().any(|expression| expression.is_match(id)));
    Ok(ids)
}

fn for_each(ids: &[String], named: bool, mut one: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    let mut failures = Vec::new();
    for id in ids {
        if let Err(error) = one(id) {
            failures.push(if named { error.context(id.clone()) } else { error });
        }
    }
    merge(failures).map(|()| 0)
}

/// All of a file that an argument names; `-` is stdin.
fn read_input(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).context("read stdin")?;
        return Ok(text);
    }
    std::fs::read(path).with_context(|| format!("open {}", path.display()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_anywhere_in_an_id() {
        let ids = || ["web-1", "web-2", "db"].map(str::to_owned).to_vec();
        let found = |expressions: &[&str]| {
            let expressions: Vec<String> = expressions.iter().map(|&e| e.to_owned()).collect();
            matching(&expressions, ids()).unwrap()
        };
        assert_eq!(found(&["eb-"]), ["web-1", "web-2"]);
        assert_eq!(found(&["^web-[2-9]$", "b$"]), ["web-2", "db"]);
        assert!(found(&["^b"]).is_empty());
        let error = matching(&["(".to_owned()], ids()).unwrap_err().to_string();
        assert!(error.starts_with("invalid regular expression \"(\": "), "{error}");
    }
}
