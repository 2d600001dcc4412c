//! `runtime`: runs OCI bundles as containers, with runc's command line.

#![cfg_attr(fuzzing, no_main, allow(dead_code))]
// `sys/entry.rs` has it there.
#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

use std::ffi::OsString;

use anyhow::{Context, Result, anyhow};

use args::Request;
use host::{Host, Program};
use records::Records;
use state::StateStore;

mod apply;
mod args;
mod bundle;
mod cgroup;
mod channel;
mod clock;
mod commands;
mod container_init;
mod criu;
mod dbus;
mod error;
mod foreground;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod hooks;
mod host;
mod init;
mod log;
#[cfg(test)]
#[path = "../../tests/fuzz/mutated.rs"]
mod mutated;
mod netlink;
mod plan;
mod procfs;
mod pseudo;
mod records;
mod resctrl;
mod rooted;
mod seal;
mod signals;
mod spawn;
mod spec;
mod state;
mod supervise;
#[allow(unsafe_code)]
mod sys;
mod validate;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::chosen()(data));

#[cfg(not(all(target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    begin().into()
}

/// Does what the words say; returns the exit code.
fn begin() -> u8 {
    let mut words = std::env::args_os();
    let argv0 = words.next().unwrap_or_default();
    let mut failure = 1;
    let code = if container_init::is_meant(&argv0) {
        container_init::main(words)
    } else {
        run(Program::from_argv0(&argv0), words, &mut failure)
    };
    code.unwrap_or_else(|error| {
        log::error(error::render(&error));
        failure
    })
}

/// Returns the exit code; `failure` is what it is to be after an error.
fn run(program: Program, words: std::env::ArgsOs, failure: &mut u8) -> Result<u8> {
    let words: Vec<String> = words
        .map(OsString::into_string)
        .collect::<Result<_, _>>()
        .map_err(|word| anyhow!("argument {} is not UTF-8", word.display()))?;
    if program == Program::Runtime && words.first().is_some_and(|word| word == supervise::VERB) {
        return supervise::main(&words[1..]);
    }
    let opening = args::open(program, &words).or_else(|misuse| misuse.explain(failure))?;
    let globals = opening.globals.clone();
    log::open(globals.log.as_deref(), globals.format()?, globals.debug)?;
    let mut command = match opening.request().or_else(|misuse| misuse.explain(failure))? {
        Request::Print(text) => return args::print(&text).map(|()| 0),
        Request::Run(command) => command,
    };
    *failure = command.failure_code();
    if command.enters_container() {
        seal::ensure()?;
        if globals.debug && seal::runs_from_copy().context("read the path of our binary")? {
            // runc's words, which its suite and people look for.
            log::debug(format_args!("{} exeseal: using /proc/self/exe clone", program.name()));
        }
    }
    let host = Host::probe(program, globals.rootless()?, globals.systemd_cgroup)?;
    let store = StateStore::new(host.root(globals.root.as_deref())?);
    let records = Records::new(host.records(globals.records.as_deref())?, store.root());
    if program == Program::Runtime {
        for word in command.ids() {
            *word = records.resolve(word, &store)?;
        }
    }
    commands::run(command, &host, &store, &records)
}
