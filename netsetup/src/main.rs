//! netsetup: gives containers a network by netlink and nf_tables messages alone.
//! Words become a request, a request and the state become a plan, a plan is applied and recorded.

mod args;
mod port;
mod subnet;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    eprintln!("netsetup: {arguments:?}");
    ExitCode::FAILURE
}
