//! `--init`: the runtime's binary by another name, which starts the program, hands signals on to it
//! and reaps what it leaves. A copy in the bundle: nothing that a container may do to it reaches
//! the host's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::config::Mount;
use super::hooks;

/// Where it is in the container; the runtime goes by this file name.
pub(crate) const TARGET: &str = "/run/container-init";
const FILE: &str = "container-init";

/// The program to copy.
pub(crate) fn find() -> Result<PathBuf> {
    hooks::find("runtime")?
        .context("--init is done by the runtime, which is neither beside imgtool nor in PATH")
}

/// Copies it into the bundle.
pub(crate) fn copy(program: &Path, directory: &Path) -> Result<Mount> {
    let path = directory.join(FILE);
    fs::copy(program, &path)
        .and_then(|_| fs::set_permissions(&path, fs::Permissions::from_mode(0o555)))
        .with_context(|| format!("copy {} to {}", program.display(), path.display()))?;
    Ok(Mount {
        source: FILE.to_owned(),
        target: TARGET.to_owned(),
        read_only: true,
        propagation: "rprivate",
        ..Mount::default()
    })
}
