//! netsetup: gives containers a network by netlink and nf_tables messages alone.
//! Words become a request, a request and the state become a plan, a plan is recorded and applied.

#![cfg_attr(fuzzing, no_main, allow(dead_code))]

mod apply;
mod args;
mod cni;
mod commands;
mod conntrack;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod hook;
mod ipam;
mod netavark;
mod netlink;
mod netns;
mod nft;
mod output;
mod plan;
mod port;
mod request;
mod state;
mod subnet;
mod sys;
mod sysctl;
mod user_mode;

use std::process::ExitCode;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::chosen()(data));

fn main() -> ExitCode {
    if cni::is_called() {
        return cni::run();
    }
    if netavark::is_called() {
        return netavark::run();
    }
    let arguments = match args::Arguments::read() {
        Ok(arguments) => arguments,
        Err(misuse) => return args::report(&misuse),
    };
    match commands::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
