//! imgtool: images from registries and archives into a store, and from the
//! store into OCI bundles.

#![cfg_attr(fuzzing, no_main, allow(dead_code))]

mod args;
mod build;
mod bundle;
mod commands;
mod commit;
mod convert;
mod copy;
mod digest;
mod error;
mod exchange;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod layer;
mod manifest;
#[cfg(test)]
#[path = "../../tests/fuzz/mutated.rs"]
mod mutated;
mod output;
mod progress;
mod reference;
mod registries_conf;
mod rewrite;
mod rooted;
mod store;
#[allow(unsafe_code)]
mod sys;
mod table;
mod template;
mod transport;
mod userns;
mod volumes;

use std::process::ExitCode;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::chosen()(data));

fn main() -> ExitCode {
    let cli = match args::Cli::read() {
        Ok(cli) => cli,
        Err(error) => return args::report(&error),
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::reader_is_gone(&error) => ExitCode::FAILURE,
        Err(error) => {
            output::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
