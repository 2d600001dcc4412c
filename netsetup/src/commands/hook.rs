//! `netsetup hook`

use anyhow::Result;

use crate::args::{Directories, Hook};
use crate::hook;

/// Does what the state on standard input asks for.
pub(crate) fn run(hook: &Hook, directories: &Directories) -> Result<()> {
    let state = hook::read(std::io::stdin().lock())?;
    hook::run(&state, &hook.wishes, directories)
}
