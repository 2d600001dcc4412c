//! Opens a bundle: its directory, its config.json, its root file system's place.

pub(crate) mod joined;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::error::Sentinel;
use crate::spec::{self, Spec};

/// imgtool writes its bundle's origin under this annotation; only its presence matters here.
const ORIGIN_ANNOTATION: &str = "org.imgtool.bundle";

/// The name of the document within a bundle.
pub(crate) const CONFIG: &str = "config.json";

/// A bundle as its author wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// Absolute, symlinks resolved.
    pub(crate) dir: PathBuf,
    /// Absolute; whether it is a directory is found out when it is opened.
    pub(crate) rootfs: PathBuf,
    pub(crate) spec: Spec,
    /// config.json, byte by byte.
    pub(crate) raw: Vec<u8>,
    /// It is the bundle's own, and not another document in its place.
    pub(crate) own_config: bool,
}

impl Bundle {
    /// Changes into the bundle, since relative paths of its config.json start there, and reads it,
    /// or in its place the document `config`.
    pub(crate) fn enter(dir: &Path, config: Option<&Path>) -> Result<Self> {
        std::env::set_current_dir(dir).with_context(|| format!("chdir {}", dir.display()))?;
        let dir = std::env::current_dir().context("getwd")?;
        let raw = match config {
            None => read_config(Path::new(CONFIG))?,
            Some(path) => {
                std::fs::read(path).with_context(|| format!("read {}", path.display()))?
            }
        };
        let spec = parse_config(&raw)?;
        let rootfs = dir.join(spec.root.as_ref().map_or("", |root| root.path.as_str()));
        let bundle = Bundle { dir, rootfs, spec, raw, own_config: config.is_none() };
        bundle.check_mounted()?;
        Ok(bundle)
    }

    /// An overlay bundle of imgtool's is empty after a reboot: say what mounts it again.
    fn check_mounted(&self) -> Result<()> {
        if !self.spec.annotations.contains_key(ORIGIN_ANNOTATION) {
            return Ok(());
        }
        let empty = match std::fs::read_dir(&self.rootfs) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if empty {
            let dir = self.dir.display();
            bail!("root file system of {dir} is not mounted: run `imgtool mount {dir}` first");
        }
        Ok(())
    }
}

/// Reads a config.json whole.
pub(crate) fn read_config(path: &Path) -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Sentinel::NoConfig.into());
        }
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    file.read_to_end(&mut raw).with_context(|| format!("read {}", path.display()))?;
    Ok(raw)
}

/// Parses a config.json; the error names the field, line and column.
pub(crate) fn parse_config(raw: &[u8]) -> Result<Spec> {
    if raw.trim_ascii() == b"null" {
        return Err(Sentinel::NullConfig.into());
    }
    in_config(spec::parse(raw))
}

/// Says that the error is of a config.json.
pub(crate) fn in_config<T>(parsed: Result<T>) -> Result<T> {
    parsed.map_err(|error| anyhow!("{CONFIG}: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_field_and_the_place() {
        let error = parse_config(b"{\"process\": {\"args\": \"sh\"}}").unwrap_err().to_string();
        assert!(error.starts_with("config.json: process.args: "), "{error}");
        assert!(error.contains("line 1 column"), "{error}");
    }

    #[test]
    fn null_is_refused_as_runc_does() {
        assert_eq!(parse_config(b" null\n").unwrap_err().to_string(), "config cannot be null");
    }
}
