//! `netsetup attach`

use anyhow::Result;

use crate::apply::Host;
use crate::args::{Attach, Directories, Format};
use crate::output;
use crate::request::{AttachRequest, Target};
use crate::state::Store;

/// Attaches a container and prints its addresses.
pub(crate) fn run(attach: &Attach, directories: &Directories) -> Result<()> {
    let mut target = Target::resolve(&attach.target, directories.runtime_root.as_deref())?;
    if let Some(id) = &attach.id {
        target.id.clone_from(id);
    }
    let request = AttachRequest::new(target, &attach.wishes)?;
    if request.wants_nothing() {
        return Ok(());
    }
    let store = Store::open(directories)?;
    if attach.dry_run {
        return output::lines(Host::open(&store)?.foresee_attach(&request)?);
    }
    let attachment = Host::open_at_once(&store)?.attach(&request)?;
    match attach.output.format {
        Format::Table => {
            output::lines(attachment.addresses.iter().map(|it| it.address.to_string()))
        }
        Format::Json => output::json(&attachment),
    }
}
