//! `checkpoint` and `restore`: a wrong use is refused as runc refuses it; a right one as well, before
//! anything is changed, since we do not drive CRIU.

use anyhow::{Result, bail};

use crate::args::{Checkpoint, Restore};
use crate::error::Sentinel;
use crate::state::{self, StateStore, Status};

pub(super) fn checkpoint(args: &Checkpoint, store: &StateStore) -> Result<u8> {
    let record = store.load(&args.id)?;
    let status = state::status(store, &record)?;
    if matches!(status, Status::Created | Status::Stopped) {
        bail!("Container cannot be checkpointed in {status} state");
    }
    args.check()?;
    if let Some(parent) = &args.parent_path {
        let images = args.images.image_path.as_deref();
        let parent = images.unwrap_or("checkpoint".as_ref()).join(parent);
        if !parent.is_dir() {
            bail!("invalid --parent-path: {} is no directory", parent.display());
        }
    }
    bail!("checkpointing is not supported: this runtime does not drive CRIU")
}

pub(super) fn restore(args: &Restore, store: &StateStore) -> Result<u8> {
    args.images.check()?;
    if store.load(&args.id).is_ok() {
        return Err(Sentinel::AlreadyExists.into());
    }
    bail!("restoring is not supported: this runtime does not drive CRIU")
}
