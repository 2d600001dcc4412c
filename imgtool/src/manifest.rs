//! The JSON documents that make up an image: descriptor, index, manifest and
//! config, in OCI's and in Docker's spelling. Fields that we don't know are
//! kept where we rewrite a document; `null` stands for "absent" as in Go.

mod config;
mod kind;
mod platform;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use config::{Config, History, ImageConfig};
pub(crate) use kind::{Dialect, LayerKind, Packing};
pub(crate) use platform::Platform;

use crate::digest::Digest;

/// The largest manifest or index we read: registries need not take more.
pub(crate) const MAX_MANIFEST_SIZE: u64 = 4 << 20;
/// The largest image config we read.
pub(crate) const MAX_CONFIG_SIZE: u64 = 8 << 20;
/// An index may hold indexes; deeper than this it is an attack.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;

/// Media types by the name that the specifications give them.
pub(crate) mod media_type {
    pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub(crate) const DOCKER_LIST: &str =
        "application/vnd.docker.distribution.manifest.list.v2+json";
    pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
}

/// The annotation that carries a name in an image layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's annotation for the full name.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

pub(crate) type Annotations = BTreeMap<String, String>;

/// Reads a field that Go programs write as `null` when it is empty.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Points at a blob and says what it must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) annotations: Annotations,
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    /// A descriptor with the three required fields.
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: Annotations::new(),
            other: BTreeMap::new(),
        }
    }

    /// Whether it is worth a line to the user: configs come with the layers but are small.
    pub(crate) fn is_layer(&self) -> bool {
        !matches!(self.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
    }

    /// Whether it is a layer of a kind that can be unpacked.
    pub(crate) fn is_archive(&self) -> bool {
        LayerKind::parse(&self.media_type).is_some()
    }

    /// BuildKit's provenance records stand in indexes beside the images.
    pub(crate) fn is_attestation(&self) -> bool {
        self.annotations
            .get("vnd.docker.reference.type")
            .is_some_and(|kind| kind == "attestation-manifest")
    }

    /// The digest of the image that this attests something of.
    pub(crate) fn attested(&self) -> Option<&str> {
        let subject = self.annotations.get("vnd.docker.reference.digest");
        subject.map(String::as_str).filter(|_| self.is_attestation())
    }
}

fn is_index_type(media_type: &str) -> bool {
    matches!(media_type, media_type::OCI_INDEX | media_type::DOCKER_LIST)
}

fn is_manifest_type(media_type: &str) -> bool {
    matches!(media_type, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST)
}

/// A list of manifests, one per platform, or of the images of a layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) annotations: Annotations,
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, serde_json::Value>,
}

impl Index {
    /// An index without entries.
    pub(crate) fn empty() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: Annotations::new(),
            other: BTreeMap::new(),
        }
    }
}

/// One image of one platform: its config and its layers, bottom first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) annotations: Annotations,
}

impl Manifest {
    /// An OCI manifest over blobs that are known already.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config,
            layers,
            annotations: Annotations::new(),
        }
    }
}

/// What a manifest blob turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

impl Document {
    /// Reads a manifest or an index and settles which one it is.
    ///
    /// `declared` is the media type of the descriptor or of the HTTP answer,
    /// empty where there was none. A document that could be read as both, or
    /// whose own type is another than the declared one, is refused: two
    /// programs would see two images under one digest (CVE-2021-41190).
    pub(crate) fn parse(bytes: &[u8], declared: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: Option<u32>,
            #[serde(default)]
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            layers: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            config: Option<serde::de::IgnoredAny>,
            #[serde(default, rename = "fsLayers")]
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = serde_json::from_slice(bytes).context("parse manifest")?;
        let own = probe.media_type.as_deref().unwrap_or_default();
        if probe.schema_version == Some(1) || probe.fs_layers.is_some() {
            bail!(
                "schema 1 manifests are not supported: the image has to be pushed again by a newer tool"
            );
        }
        ensure!(probe.schema_version == Some(2), "manifest has no schemaVersion 2");
        ensure!(
            probe.manifests.is_none() || (probe.layers.is_none() && probe.config.is_none()),
            "document is both an index and a manifest: it has \"manifests\" beside \"layers\" or \"config\""
        );
        if !own.is_empty() && !declared.is_empty() && own != declared {
            bail!("manifest says it is {own:?} but was announced as {declared:?}");
        }
        let kind = if own.is_empty() { declared } else { own };
        if is_index_type(kind) || (kind.is_empty() && probe.manifests.is_some()) {
            ensure!(probe.layers.is_none(), "index has layers");
            return Ok(Self::Index(serde_json::from_slice(bytes).context("parse index")?));
        }
        if is_manifest_type(kind) || (kind.is_empty() && probe.layers.is_some()) {
            ensure!(probe.manifests.is_none(), "manifest has \"manifests\"");
            return Ok(Self::Manifest(serde_json::from_slice(bytes).context("parse manifest")?));
        }
        bail!("not an image manifest: media type {kind:?}")
    }

    /// Its own media type; OCI's where the document names none.
    pub(crate) fn media_type(&self) -> String {
        let (own, default) = match self {
            Self::Index(index) => (&index.media_type, media_type::OCI_INDEX),
            Self::Manifest(manifest) => (&manifest.media_type, media_type::OCI_MANIFEST),
        };
        own.clone().unwrap_or_else(|| default.to_owned())
    }
}

/// Documents from anywhere: refused, or written as they were read; each tells which.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    use super::{Document, ImageConfig, Platform};

    fn written(document: &Document) -> Option<Vec<u8>> {
        match document {
            Document::Index(index) => serde_json::to_vec(index).ok(),
            Document::Manifest(manifest) => serde_json::to_vec(manifest).ok(),
        }
    }

    pub(crate) fn document(text: &[u8]) -> bool {
        let Ok(document) = Document::parse(text, "") else { return false };
        let first = written(&document).unwrap_or_default();
        let again = Document::parse(&first, &document.media_type());
        let again =
            again.unwrap_or_else(|error| panic!("{error:#}: {}", String::from_utf8_lossy(text)));
        assert_eq!(written(&again).unwrap_or_default(), first);
        if let Document::Index(index) = &document {
            // Chosen or not, none may panic.
            let _ = Platform::host().choose(&index.manifests);
        }
        true
    }

    pub(crate) fn config(text: &[u8]) -> bool {
        let Ok(config) = ImageConfig::parse(text) else { return false };
        let first = serde_json::to_vec(&config).unwrap_or_default();
        let again = ImageConfig::parse(&first)
            .unwrap_or_else(|error| panic!("{error:#}: {}", String::from_utf8_lossy(text)));
        assert_eq!(serde_json::to_vec(&again).unwrap_or_default(), first);
        let _ = config.platform();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x","digest":"{}","size":1}}"#, Digest::of(b""))
    }

    #[test]
    fn documents_of_two_kinds_are_refused() {
        let d = descriptor();
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[{d}],"layers":[{d}],"config":{d}}}"#);
        for declared in ["", media_type::OCI_INDEX, media_type::OCI_MANIFEST] {
            let error = Document::parse(both.as_bytes(), declared).unwrap_err();
            assert!(error.to_string().contains("both"), "{error}");
        }
    }

    #[test]
    fn the_announced_type_must_match() {
        let d = descriptor();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","layers":null,"config":{d}}}"#,
            media_type::OCI_MANIFEST
        );
        assert!(Document::parse(manifest.as_bytes(), media_type::OCI_MANIFEST).is_ok());
        assert!(Document::parse(manifest.as_bytes(), "").is_ok());
        assert!(Document::parse(manifest.as_bytes(), media_type::DOCKER_MANIFEST).is_err());
        assert!(Document::parse(manifest.as_bytes(), media_type::OCI_INDEX).is_err());
    }

    #[test]
    fn schema_one_and_garbage_are_refused() {
        for bad in ["", "[", "{}", "null", r#"{"schemaVersion":1}"#, r#"{"schemaVersion":2}"#] {
            assert!(Document::parse(bad.as_bytes(), "").is_err(), "{bad}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(Document::parse(deep.as_bytes(), "").is_err());
    }

    #[test]
    fn unknown_fields_of_descriptors_survive() {
        let text = format!(
            r#"{{"mediaType":"x","digest":"{}","size":1,"artifactType":"y"}}"#,
            Digest::of(b"")
        );
        let parsed: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
        assert!(serde_json::from_str::<Descriptor>(&text.replace(":1,", ":-1,")).is_err());
    }

    #[test]
    fn documents_changed_at_random_are_refused_or_read_as_one_thing() {
        let digest = Digest::of(b"x");
        let blob = |kind: &str| {
            let vendor = "application/vnd.oci.image";
            format!(r#"{{"mediaType":"{vendor}.{kind}","digest":"{digest}","size":7}}"#)
        };
        let (config, layer) = (blob("config.v1+json"), blob("layer.v1.tar+gzip"));
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[{layer}],
            "annotations":{{"a":"b"}},"subject":{}}}"#,
            media_type::OCI_MANIFEST,
            blob("manifest.v1+json")
        );
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}",
            "digest":"{digest}","size":9,"platform":{{"os":"linux","architecture":"arm",
            "variant":"v7","os.features":["x"]}}}}],"annotations":null}}"#,
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST
        );
        crate::mutated::each(&[&manifest, &index], super::fuzz::document);
    }

    #[test]
    fn configs_changed_at_random_are_refused_or_written_as_read() {
        let seed = format!(
            r#"{{"architecture":"arm64","os":"linux","variant":"v8","created":"2024-05-06T07:08:09Z",
            "config":{{"Env":["A=b"],"Cmd":["x"],"Entrypoint":null,"ExposedPorts":{{"80/tcp":{{}}}},
            "Labels":{{"a":"b"}},"User":"1:2","Healthcheck":{{"Test":["NONE"]}},"Volumes":null}},
            "history":[{{"created_by":"x","empty_layer":true}},{{"comment":"c"}}],
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(b"x")
        );
        crate::mutated::each(&[&seed], super::fuzz::config);
    }
}
