//! /dev/shm of a bundle whose shared memory other containers may join: a file system in memory that
//! lies in the bundle and is bound into each of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::MountFlags;

use super::overlay::{is_mounted, unmount_all};

/// Its place within the bundle.
const DIRECTORY: &str = "shm";

/// What of it containers have as /dev/shm: a directory within, so that one that is not mounted, as after a
/// reboot, is missed and not taken for a place on the disk.
pub(crate) const SHARED: &str = "shm/shared";

/// Mounts it, if it is not.
pub(crate) fn mount(bundle: &Path, size_bytes: i64) -> Result<()> {
    let place = bundle.join(DIRECTORY);
    if is_mounted(&place)? {
        return Ok(());
    }
    match fs::create_dir(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
    .with_context(|| format!("create {}", place.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let data = std::ffi::CString::new(format!("mode=755,size={size_bytes}"))
        .context("write the options of a tmpfs")?;
    rustix::mount::mount("shm", &place, "tmpfs", flags, data.as_c_str())
        .with_context(|| format!("mount a tmpfs on {}", place.display()))?;
    let shared = bundle.join(SHARED);
    fs::create_dir(&shared)
        .and_then(|()| fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)))
        .with_context(|| format!("create {}", shared.display()))
}

/// Takes it off, with what is in it.
pub(crate) fn unmount(bundle: &Path) -> Result<()> {
    unmount_all(&bundle.join(DIRECTORY))
}
