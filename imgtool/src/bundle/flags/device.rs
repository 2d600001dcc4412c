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
    /// Let it use devices of these numbers, nodes of which it may make: 'c 42:* rwm'
    #[arg(long, value_name = "TYPE MAJOR:MINOR ACCESS")]
    device_cgroup_rule: Vec<String>,
    /// Give it GPUs by CDI: all, a number, or device=NAME,...
    #[arg(long, value_name = "WHICH")]
    gpus: Option<String>,
    /// Where the CDI specifications lie [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "DIR")]
    cdi_spec_dir: Vec<PathBuf>,
}

impl Words {
    /// The nodes, and what is to be looked up in vendors' files.
    pub(super) fn resolve(self) -> Result<Wanted> {
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
        let rule = |word: &String| {
            Rule::parse(word).with_context(|| format!("invalid --device-cgroup-rule {word:?}"))
        };
        let rules = self.device_cgroup_rule.iter().map(rule).collect::<Result<_>>()?;
        Ok(Wanted { nodes, rules, cdi: wanted })
    }
}

/// All that is said of devices.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) nodes: Vec<Device>,
    pub(crate) rules: Vec<Rule>,
    /// What vendors describe.
    pub(crate) cdi: cdi::Wanted,
}

/// One `--device-cgroup-rule`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// a, b or c.
    pub(crate) kind: String,
    /// `None` for any.
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) access: String,
}

impl Rule {
    /// `TYPE MAJOR:MINOR ACCESS`, with blanks between.
    fn parse(word: &str) -> Result<Self> {
        let parts: Vec<&str> = word.split_whitespace().collect();
        let [kind, numbers, access] = parts[..] else {
            bail!("want TYPE MAJOR:MINOR ACCESS, as in 'c 42:* rwm'")
        };
        ensure!(matches!(kind, "a" | "b" | "c"), "the type is a, b or c, not {kind:?}");
        ensure!(is_access(access), "access {access:?} is made of r, w and m");
        let number = |text: &str| -> Result<Option<u32>> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text {
                "*" => Ok(None),
                _ if digits => Ok(Some(text.parse().context("the number is too large")?)),
                _ => bail!("{text:?} is neither a number nor *"),
            }
        };
        let (major, minor) = numbers.split_once(':').context("want MAJOR:MINOR")?;
        let (major, minor) = (number(major)?, number(minor)?);
        Ok(Self { kind: kind.to_owned(), major, minor, access: access.to_owned() })
    }
}

/// Of the letters r, w and m.
fn is_access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| b"rwm".contains(&byte))
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
    fn rules_have_a_type_numbers_and_an_access() {
        let rule = Rule::parse("c 42:* rw").unwrap();
        assert_eq!((rule.kind.as_str(), rule.major, rule.minor), ("c", Some(42), None));
        assert_eq!(rule.access, "rw");
        for bad in
            ["", "c 42:* ", "d 1:1 r", "c 1 r", "c x:1 r", "c 1:1 x", "c 1:+1 r", "c 1:1 r w"]
        {
            assert!(Rule::parse(bad).is_err(), "{bad:?}");
        }
    }

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
