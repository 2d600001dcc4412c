//! `mounts`: adds mounts to a container that is there, or removes them. What is refused leaves the
//! container's mounts as they were.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::read_input;
use crate::args::{Mounts, MountsAction};
use crate::error::Sentinel;
use crate::host::Host;
use crate::spawn::mounts::{Request, change};
use crate::state::StateStore;
use crate::{log, plan, spec, validate};

pub(super) fn run(args: &Mounts, host: &Host, store: &StateStore) -> Result<u8> {
    store.load(&args.id)?;
    let list = spec::parse_mounts(&read_input(&args.file)?)
        .with_context(|| args.file.display().to_string())?;
    // Nobody is to make or unmake it meanwhile.
    let claim = store.claim(&args.id)?;
    let record = store.load(&args.id)?;
    let Some(init) = record.pidfd()? else { return Err(Sentinel::NotRunning.into()) };
    let spec = store.load_spec(&args.id)?;
    let rootfs = &record.config.rootfs;
    validate::changed_mounts(&list, &spec, rootfs)?;
    let mut warnings = Vec::new();
    let plans = plan::mounts::plan(&list, &record.bundle(), rootfs, &mut warnings)?;
    for warning in &warnings {
        log::warn(warning);
    }
    change(&Request {
        host,
        record: &record,
        spec: &spec,
        claim: &claim,
        init: init.as_fd(),
        mounts: &plans,
        remove: args.action == MountsAction::Remove,
    })?;
    Ok(0)
}
