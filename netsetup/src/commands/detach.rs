//! `netsetup detach`

use anyhow::Result;

use crate::apply::Host;
use crate::args::{Detach, Directories};
use crate::request;
use crate::state::Store;

/// Detaches a container; one that is not attached is no error.
pub(crate) fn run(detach: &Detach, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let id = request::recorded_id(&store, &detach.target)?;
    let mut host = Host::open(&store)?;
    id.map_or(Ok(()), |id| host.detach(&id, detach.network.as_deref()))
}
