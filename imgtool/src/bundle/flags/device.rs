//! `--device` and `--gpus`: nodes of the host, and what vendors describe.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::clean_target;
use crate::bundle::cdi::{self, Gpus};

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "devices")]
pub(crate) struct Words {
    /// Give the container a device of the host, all of a directory, or by CDI VENDOR/CLASS=NAME
    #[arg(long, value_name = "HOST[:CONTAINER[:ACCESS]]")]
    device: Vec<String>,
    /// Give it GPUs by CDI: all, a number, or device=NAME,...
    #[arg(long, value_name = "WHICH")]
    gpus: Option<String>,
    /// Where the CDI specifications lie [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "DIR")]
    cdi_spec_dir: Vec<PathBuf>,
}

impl Words {
    /// The nodes, and what is to be looked up in vendors' files.
    pub(super) fn resolve(self) -> Result<(Vec<Device>, cdi::Wanted)> {
        let gpus =
            self.gpus.map(|word| Gpus::parse(&word).with_context(|| format!("--gpus {word:?}")));
        let mut wanted = cdi::Wanted {
            gpus: gpus.transpose()?,
            directories: self.cdi_spec_dir,
            devices: Vec::new(),
        };
        let mut nodes = Vec::new();
        for word in &self.device {
            let invalid = || format!("invalid device {word:?}");
            // A node's path begins with a slash, a vendor's name does not.
            if !word.starts_with('/') && word.contains('=') {
                wanted.devices.push(word.parse().with_context(invalid)?);
            } else {
                nodes.push(Device::parse(word).with_context(invalid)?);
            }
        }
        Ok((nodes, wanted))
    }
}

/// One `--device`: a node, or all beneath a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) host: String,
    pub(crate) container: String,
    /// Of the letters r, w and m.
    pub(crate) access: String,
}

impl Device {
    /// `HOST[:CONTAINER[:ACCESS]]`.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let parts: Vec<&str> = word.split(':').collect();
        let is_access = |text: &str| {
            !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| b"rwm".contains(&byte))
        };
        let (host, container, access) = match parts[..] {
            [host] => (host, host, "rwm"),
            // As docker has it: the access may stand in the place of the path.
            [host, access] if is_access(access) => (host, host, access),
            [host, container] => (host, container, "rwm"),
            [host, container, access] => (host, container, access),
            _ => bail!("want HOST[:CONTAINER[:ACCESS]]"),
        };
        ensure!(is_access(access), "access {access:?} is made of r, w and m");
        Ok(Self {
            host: clean_target(host).context("the node")?,
            container: clean_target(container)?,
            access: access.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_two_paths_and_an_access() {
        let node = |host: &str, container: &str, access: &str| Device {
            host: host.into(),
            container: container.into(),
            access: access.into(),
        };
        for (word, device) in [
            ("/dev/fuse", node("/dev/fuse", "/dev/fuse", "rwm")),
            ("/dev/fuse:r", node("/dev/fuse", "/dev/fuse", "r")),
            ("/dev/a:/dev/b", node("/dev/a", "/dev/b", "rwm")),
            ("/dev/a:/dev/b:rw", node("/dev/a", "/dev/b", "rw")),
        ] {
            assert_eq!(Device::parse(word).unwrap(), device, "{word}");
        }
        for bad in ["", "fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/b:r:w"] {
            assert!(Device::parse(bad).is_err(), "{bad}");
        }
    }
}
