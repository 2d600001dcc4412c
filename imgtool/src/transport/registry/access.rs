//! How the user wants registries to be talked to.

use std::path::PathBuf;
use std::time::Duration;

use super::super::credentials::Lookup;
use super::super::http::Patience;

/// What the command line says of one side of a transfer.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) lookup: Lookup,
    /// Whether servers must prove who they are; unsaid, the files decide.
    pub(crate) verify: Option<bool>,
    /// A directory with certificates, in the place of the registry's own.
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) registries: Option<PathBuf>,
    /// containerd's settings, a directory per registry.
    pub(crate) hosts: Option<PathBuf>,
    pub(crate) patience: Patience,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            lookup: Lookup::default(),
            verify: None,
            certificates: None,
            registries: None,
            hosts: None,
            patience: Patience {
                attempts: 5,
                delay: Duration::from_millis(200),
                silence: Duration::from_secs(60),
            },
        }
    }
}
