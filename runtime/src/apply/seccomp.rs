//! Puts the calling process under its filter. What it calls afterwards has to pass.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};

use crate::plan::seccomp::{FLAGS, Filter};
use crate::sys::seccomp;

/// Loads the filter; the descriptor is the kernel's end for an agent, if the filter notifies.
pub(crate) fn load(filter: &Filter) -> Result<Option<OwnedFd>> {
    seccomp::set_filter(&filter.program, filter.flags)
        .context("unable to init seccomp: error loading seccomp filter into kernel")
}

/// Names of the filter flags that profiles may have and the running kernel knows.
pub(crate) fn supported_flags() -> Vec<&'static str> {
    let supported = FLAGS.iter().filter(|(_, flag)| seccomp::knows_flags(*flag));
    supported.map(|(name, _)| *name).collect()
}
