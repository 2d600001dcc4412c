//! Images of an index that are not in the store.

use anyhow::{Context, Result, ensure};

use crate::copy::{self, Wanted};
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::store::{Elsewhere, Store};
use crate::transport::registry::{Access, ByDigest, Push, Registry};

/// Brings them to where the index goes, from the registries where they are known to lie. False if
/// one is neither there already nor known. What comes by way of the store is nobody's.
pub(super) fn bring(
    store: &Store,
    push: &mut Push<'_>,
    absent: &[&Descriptor],
    elsewhere: &Elsewhere,
    access: &Access,
    progress: &Progress,
) -> Result<bool> {
    let mut complete = true;
    for image in absent {
        if push.has_there(image)? {
            continue;
        }
        let Some(name) = elsewhere.get(&image.digest) else {
            complete = false;
            continue;
        };
        let mut access = access.clone();
        if name.host() != push.repository().name.host() {
            // A password on the command line is for where the index goes.
            access.lookup = access.lookup.for_others();
        }
        let from = name.clone().with_digest(&image.digest);
        push.may_mount_from(name);
        let copied = Registry::open(store, &from, &access, progress).and_then(|mut registry| {
            copy::transfer(&mut registry, store, &mut ByDigest(push), image, &Wanted::All)
        });
        ensure!(copied.with_context(|| format!("copy {}", from.familiar()))?, "it is not whole");
    }
    Ok(complete)
}
