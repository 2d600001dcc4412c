//! The lock on a network that outlives its container. A dump leaves it in place, so that meanwhile the
//! kernel answers nobody in the container's stead; a restore takes it off. Told to leave the network
//! itself alone, CRIU first puts one on anew: that is right for another network, but where one stands
//! it would be the second, and one would stay.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use super::dump;
use crate::plan::criu::Lasting;
use crate::plan::namespaces::Kind;

/// Beside the images: which network is locked.
const LOCKED: &str = "network-locked";

/// Notes that the dump to come leaves the container's network locked, if it will be there afterwards.
pub(super) fn note(images: &Path, lasting: &[Lasting]) -> Result<()> {
    forget(images)?;
    match identity(lasting)? {
        Some(identity) => dump::write(&images.join(LOCKED), identity.as_bytes()),
        None => Ok(()),
    }
}

/// Whether the network that the container is to find again still has the lock of its dump.
pub(super) fn stands(images: &Path, lasting: &[Lasting]) -> Result<bool> {
    let path = images.join(LOCKED);
    match std::fs::read_to_string(&path) {
        Ok(noted) => Ok(identity(lasting)? == Some(noted)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// There is no lock any more.
pub(super) fn forget(images: &Path) -> Result<()> {
    let path = images.join(LOCKED);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Of the network namespace.
fn identity(lasting: &[Lasting]) -> Result<Option<String>> {
    let Some(network) = lasting.iter().find(|it| it.kind == Kind::Network) else { return Ok(None) };
    let path = &network.path;
    let stat = rustix::fs::stat(path).with_context(|| format!("stat {}", path.display()))?;
    Ok(Some(format!("{}:{}", stat.st_dev, stat.st_ino)))
}
