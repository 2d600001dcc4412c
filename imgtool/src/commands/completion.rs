//! `imgtool completion`: a script by which a shell completes our command lines.

use std::io::Write;

use anyhow::Result;
use clap_complete::Shell;

use crate::output;

/// Print a script by which a shell completes the command line
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell, whose start file is to read the script
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut line: clap::Command) -> Result<()> {
    // Whole first: what generates it knows no failure to write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut line, "imgtool", &mut script);
    Ok(output::stdout().write_all(&script)?)
}
