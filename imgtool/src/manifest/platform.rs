//! Which of an index's images fits this machine.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Descriptor, null_as_default};

/// `os/architecture[/variant]` in Go's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

impl Platform {
    pub(crate) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "arm" => ("arm", Some("v7")),
            "powerpc64le" => ("ppc64le", None),
            other => (other, None),
        };
        let variant = variant.filter(|v| !v.is_empty()).or(implied);
        // v8 is the only arm64 there is, and v1 what every amd64 can run.
        let variant = match (architecture, variant) {
            ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => None,
            (_, variant) => variant,
        };
        Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            variant: variant.map(str::to_owned),
            other: BTreeMap::new(),
        }
    }

    /// The platform this binary runs on.
    pub(crate) fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// Reads `os[/architecture[/variant]]`; one word may be either.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            bail!("invalid platform {text:?}: want os/architecture[/variant]");
        }
        match parts[..] {
            ["linux"] => Ok(Self::host()),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => bail!("invalid platform {text:?}: want os/architecture[/variant]"),
        }
    }

    /// How well `offered` runs on this platform: smaller is better, `None` not at all.
    fn rank(&self, offered: &Self) -> Option<u32> {
        let offered = Self::new(&offered.os, &offered.architecture, offered.variant.as_deref());
        if offered.os != self.os {
            return None;
        }
        let level = |variant: &Option<String>, default| {
            variant
                .as_deref()
                .map_or(Some(default), |v| v.trim_start_matches('v').parse::<u32>().ok())
        };
        let mine = |default| level(&self.variant, default);
        match (self.architecture.as_str(), offered.architecture.as_str()) {
            ("amd64", "amd64") => mine(1)?.checked_sub(level(&offered.variant, 1)?),
            ("amd64", "386") => Some(100),
            ("arm", "arm") => mine(7)?.checked_sub(level(&offered.variant, 7)?),
            ("arm64", "arm64") => mine(8)?.checked_sub(level(&offered.variant, 8)?),
            ("arm64", "arm") => Some(100 + 8_u32.checked_sub(level(&offered.variant, 7)?)?),
            (a, b) if a == b => (self.variant == offered.variant || offered.variant.is_none())
                .then_some(u32::from(self.variant != offered.variant)),
            _ => None,
        }
    }

    /// Whether an image for `offered` runs on this platform.
    pub(crate) fn runs(&self, offered: &Self) -> bool {
        self.rank(offered).is_some()
    }

    /// The entry that fits best; the first one among equals. An entry without
    /// a platform is taken only if no other fits.
    pub(crate) fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        entries
            .iter()
            .filter(|entry| !entry.is_attestation())
            .filter_map(|entry| match &entry.platform {
                Some(offered) => self.rank(offered).map(|rank| (rank, entry)),
                None => Some((u32::MAX, entry)),
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::media_type;
    use super::*;
    use crate::digest::Digest;

    fn entry(platform: &str) -> Descriptor {
        let mut d = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(platform.as_bytes()), 1);
        d.platform = Some(Platform::parse(platform).unwrap());
        d
    }

    #[test]
    fn the_best_variant_wins() {
        let entries = [
            entry("linux/386"),
            entry("linux/arm/v6"),
            entry("linux/arm64/v8"),
            entry("linux/amd64"),
            entry("linux/arm/v7"),
            entry("windows/amd64"),
        ];
        let pick = |wanted: &str| {
            Platform::parse(wanted)
                .unwrap()
                .choose(&entries)
                .and_then(|d| d.platform.as_ref().map(ToString::to_string))
        };
        assert_eq!(pick("linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(pick("linux/x86_64").as_deref(), Some("linux/amd64"));
        assert_eq!(pick("linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(pick("linux/arm/v8").as_deref(), Some("linux/arm/v7"));
        assert_eq!(pick("linux/arm/v6").as_deref(), Some("linux/arm/v6"));
        assert_eq!(pick("linux/s390x"), None);
        assert_eq!(
            Platform::parse("linux/arm64").unwrap().choose(&entries[..2]).map(|d| &d.digest),
            Some(&entries[1].digest)
        );
    }

    #[test]
    fn attestations_are_no_images() {
        let mut attestation = entry("linux/amd64");
        attestation
            .annotations
            .insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        assert!(Platform::parse("linux/amd64").unwrap().choose(&[attestation]).is_none());
    }
}
