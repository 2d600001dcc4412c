//! `netsetup completion`: a script by which a shell completes our command lines.

use anyhow::{Context, Result};

use crate::args::{Arguments, Completion};
use crate::output;

pub(super) fn run(completion: &Completion) -> Result<()> {
    // Whole first: what generates it knows no failure to write.
    let mut script = Vec::new();
    clap_complete::generate(completion.shell, &mut Arguments::line(), "netsetup", &mut script);
    output::text(std::str::from_utf8(&script).context("a script that is no text")?)
}
