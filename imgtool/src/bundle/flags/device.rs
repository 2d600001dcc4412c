//! `--device`: nodes of the host.

use anyhow::{Context, Result, bail, ensure};

use super::clean_target;

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
