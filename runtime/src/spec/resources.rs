//! `linux.resources` of config.json.

use serde::{Deserialize, Serialize};

/// Limits of the container's cgroup.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Resources {}
