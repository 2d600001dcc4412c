//! What the media type of a layer says, in OCI's words and in Docker's.

use super::media_type;

const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Whose media types documents have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Oci,
    Docker,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// A layer that is a tar archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerKind {
    /// Whether it lies elsewhere than in the registry, by its maker's wish.
    pub(crate) foreign: bool,
    pub(crate) packing: Packing,
}

impl LayerKind {
    /// `None` for what is no layer of an image, or is encrypted.
    pub(crate) fn parse(kind: &str) -> Option<Self> {
        let beginnings = [
            (media_type::OCI_LAYER, false),
            (OCI_FOREIGN, true),
            (DOCKER_LAYER, false),
            (DOCKER_FOREIGN, true),
        ];
        beginnings.into_iter().find_map(|(beginning, foreign)| {
            let packing = match kind.strip_prefix(beginning)? {
                "" => Packing::None,
                "+gzip" | ".gzip" => Packing::Gzip,
                "+zstd" | ".zstd" => Packing::Zstd,
                _ => return None,
            };
            Some(Self { foreign, packing })
        })
    }

    /// Its media type; `None` where there is none: Docker's manifests know no zstd.
    pub(crate) fn media_type(self, dialect: Dialect) -> Option<String> {
        let (plain, separator) = match (dialect, self.foreign) {
            (Dialect::Oci, false) => (media_type::OCI_LAYER, '+'),
            (Dialect::Oci, true) => (OCI_FOREIGN, '+'),
            (Dialect::Docker, false) => (DOCKER_LAYER, '.'),
            (Dialect::Docker, true) => (DOCKER_FOREIGN, '.'),
        };
        match (self.packing, dialect) {
            (Packing::None, _) => Some(plain.to_owned()),
            (Packing::Gzip, _) => Some(format!("{plain}{separator}gzip")),
            (Packing::Zstd, Dialect::Oci) => Some(format!("{plain}{separator}zstd")),
            (Packing::Zstd, Dialect::Docker) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_a_name_in_both_dialects() {
        for (oci, docker) in [
            ("oci.image.layer.v1.tar+gzip", "docker.image.rootfs.diff.tar.gzip"),
            ("oci.image.layer.v1.tar", "docker.image.rootfs.diff.tar"),
            (
                "oci.image.layer.nondistributable.v1.tar+gzip",
                "docker.image.rootfs.foreign.diff.tar.gzip",
            ),
        ] {
            let [oci, docker] = [oci, docker].map(|name| format!("application/vnd.{name}"));
            let kind = LayerKind::parse(&oci).unwrap();
            assert_eq!(LayerKind::parse(&docker), Some(kind));
            assert_eq!(kind.media_type(Dialect::Oci), Some(oci));
            assert_eq!(kind.media_type(Dialect::Docker), Some(docker));
        }
        let zstd = LayerKind::parse(media_type::OCI_LAYER_ZSTD).unwrap();
        assert_eq!(zstd.media_type(Dialect::Docker), None);
        for other in [
            "application/vnd.in-toto+json",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            media_type::OCI_CONFIG,
            "",
        ] {
            assert_eq!(LayerKind::parse(other), None, "{other}");
        }
    }
}
