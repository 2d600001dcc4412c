//! The file that a container's id is written to, for scripts. It is there with the container, or not at all.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Removed again unless the container came about.
#[derive(Debug)]
pub(crate) struct CidFile {
    path: PathBuf,
    keep: Cell<bool>,
}

impl CidFile {
    /// Writes the id; refused where the file of another container is.
    pub(super) fn write(path: PathBuf, id: &str) -> Result<Self> {
        let mut file = match File::create_new(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
                "--cidfile {} is there already: delete it, if that container is not needed any more",
                path.display()
            ),
            Err(error) => {
                return Err(error).with_context(|| format!("--cidfile {}", path.display()));
            }
        };
        let written = CidFile { path, keep: Cell::new(false) };
        file.write_all(id.as_bytes())
            .with_context(|| format!("write {}", written.path.display()))?;
        Ok(written)
    }

    /// The container is there.
    pub(super) fn keep(&self) {
        self.keep.set(true);
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.keep.get() {
            // The failure for which it goes is what the user is told.
            let _ = fs::remove_file(&self.path);
        }
    }
}
