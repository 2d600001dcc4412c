//! imgtool: images from registries and archives into a store, and from the
//! store into OCI bundles.

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
mod layer;
mod manifest;
#[cfg(test)]
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
