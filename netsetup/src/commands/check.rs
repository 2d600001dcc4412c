//! `netsetup check`, `netsetup restore` and `netsetup gc`

use anyhow::{Result, bail};

use crate::apply::Host;
use crate::args::Directories;
use crate::output;
use crate::state::Store;

/// Says what is missing, and fails if anything is.
pub(crate) fn check(directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let problems = Host::open_at_once(&store)?.problems()?;
    let count = problems.len();
    output::lines(problems)?;
    if count > 0 {
        bail!("{count} problems found: 'netsetup restore' brings back what is ours");
    }
    Ok(())
}

/// Brings back what is missing.
pub(crate) fn restore(directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    Host::open(&store)?.restore()
}

/// Collects what the dead left; opening the host is all it takes.
pub(crate) fn gc(directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    Host::open(&store).map(drop)
}
