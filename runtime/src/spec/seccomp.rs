//! `linux.seccomp` of config.json.

use serde::{Deserialize, Serialize};

/// The system call filter, names unchecked.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Seccomp {}
