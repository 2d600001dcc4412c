//! `netsetup publish` and `netsetup unpublish`

use anyhow::Result;

use super::attached_id;
use super::ports::line;
use crate::apply::Host;
use crate::args::{Directories, Publish, Unpublish};
use crate::output;
use crate::state::Store;

/// Publishes ports and prints where they are reached.
pub(crate) fn publish(publish: &Publish, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let mut host = Host::open_at_once(&store)?;
    let id = attached_id(&store, &publish.target, directories)?;
    if publish.dry_run {
        return output::lines(host.foresee_publish(&id, &publish.ports)?);
    }
    let bindings = host.publish(&id, &publish.ports)?;
    output::lines(bindings.iter().map(line))
}

/// Withdraws published ports; those that are not published are no error.
pub(crate) fn unpublish(unpublish: &Unpublish, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let mut host = Host::open(&store)?;
    let id = attached_id(&store, &unpublish.target, directories)?;
    host.unpublish(&id, &unpublish.ports)
}
