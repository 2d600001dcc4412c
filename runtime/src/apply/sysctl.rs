//! Kernel settings of the container's namespaces.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::OFlags;

use crate::procfs::Procfs;

/// Writes each value into its file beneath /proc/sys.
pub(crate) fn set(procfs: &Procfs, settings: &[(PathBuf, String)]) -> Result<()> {
    for (path, value) in settings {
        let file = procfs.open(&Path::new("sys").join(path), OFlags::WRONLY)?;
        std::fs::File::from(file)
            .write_all(value.as_bytes())
            .with_context(|| format!("write sysctl {} = {value:?}", path.display()))?;
    }
    Ok(())
}
