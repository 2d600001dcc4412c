//! New images of old ones: other settings, more layers, another base. What is
//! not changed keeps its bytes.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use crate::digest::Digest;
use crate::manifest::{Annotations, Descriptor, History, ImageConfig, Manifest, media_type};
use crate::store::{Image, Store};

/// What a new image is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<Descriptor>,
    /// Of the manifest.
    pub(crate) annotations: Annotations,
    /// Whether its documents are Docker's and not OCI's.
    docker: bool,
}

impl Parts {
    /// Those of an image as it is.
    pub(crate) fn of(store: &Store, image: &Image) -> Result<Self> {
        let annotations = match store.document(&image.manifest)? {
            crate::manifest::Document::Manifest(manifest) => manifest.annotations,
            crate::manifest::Document::Index(_) => Annotations::new(),
        };
        Ok(Self {
            config: image.config.clone(),
            layers: image.layers.clone(),
            annotations,
            docker: image.manifest.media_type == media_type::DOCKER_MANIFEST,
        })
    }

    /// Those of an image without layers.
    pub(crate) fn empty(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let mut config = ImageConfig {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            ..ImageConfig::default()
        };
        config.rootfs.kind = "layers".to_owned();
        Self { config, layers: Vec::new(), annotations: Annotations::new(), docker: false }
    }

    /// Puts a layer on top, with the step that made it.
    pub(crate) fn add_layer(&mut self, layer: Descriptor, diff_id: Digest, step: History) {
        let layer = match (self.docker, layer.media_type.as_str()) {
            (true, media_type::OCI_LAYER_GZIP) => {
                Descriptor { media_type: media_type::DOCKER_LAYER_GZIP.to_owned(), ..layer }
            }
            _ => layer,
        };
        self.layers.push(layer);
        self.config.rootfs.kind = "layers".to_owned();
        self.config.rootfs.diff_ids.push(diff_id);
        self.config.history.push(step);
    }

    /// Notes a step that made no layer.
    pub(crate) fn add_step(&mut self, step: History) {
        self.config.history.push(History { empty_layer: true, ..step });
    }

    /// Stores the image; gives its ID and the descriptor of its manifest.
    pub(crate) fn write(
        mut self,
        store: &Store,
        created: Timestamp,
    ) -> Result<(Digest, Descriptor)> {
        // Docker's kinds of layers know no zstd.
        let zstd = |layer: &Descriptor| layer.media_type == media_type::OCI_LAYER_ZSTD;
        let docker = self.docker && !self.layers.iter().any(zstd);
        self.config.created = Some(created.to_string());
        // What Docker notes of the container that made the parent.
        for key in ["container", "container_config"] {
            self.config.other.remove(key);
        }
        ensure!(
            self.config.rootfs.diff_ids.len() == self.layers.len(),
            "image has {} layers and {} diff IDs",
            self.layers.len(),
            self.config.rootfs.diff_ids.len()
        );
        let bytes = serde_json::to_vec(&self.config).context("write image config")?;
        let (config_type, manifest_type) = match docker {
            true => (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST),
            false => (media_type::OCI_CONFIG, media_type::OCI_MANIFEST),
        };
        let config = store.write_blob(config_type, &bytes)?;
        let id = config.digest.clone();
        let mut manifest = Manifest::new(config, self.layers);
        manifest.media_type = Some(manifest_type.to_owned());
        manifest.annotations = self.annotations;
        let bytes = serde_json::to_vec(&manifest).context("write manifest")?;
        Ok((id, store.write_blob(manifest_type, &bytes)?))
    }
}

/// The time of `SOURCE_DATE_EPOCH`, for images that come out the same each time, or now.
pub(crate) fn now() -> Result<Timestamp> {
    Ok(epoch()?.unwrap_or_else(Timestamp::now))
}

/// The time of `SOURCE_DATE_EPOCH`, if it is set.
pub(crate) fn epoch() -> Result<Option<Timestamp>> {
    parse_epoch(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())
}

pub(crate) fn parse_epoch(epoch: Option<&str>) -> Result<Option<Timestamp>> {
    let Some(epoch) = epoch.filter(|epoch| !epoch.is_empty()) else { return Ok(None) };
    let invalid = || format!("SOURCE_DATE_EPOCH {epoch:?} is not a time in seconds");
    Timestamp::from_second(epoch.parse().with_context(invalid)?).map(Some).with_context(invalid)
}

/// The last layers of an image on another base than they were made for.
pub(crate) fn rebase(parts: &mut Parts, old: &Image, new: &Image) -> Result<()> {
    let diff_ids = &parts.config.rootfs.diff_ids;
    let count = old.diff_ids.len();
    ensure!(
        diff_ids.len() >= count && diff_ids[..count] == old.diff_ids[..],
        "it is not made from that base: its first {count} layers are others"
    );
    let platform = new.config.platform();
    ensure!(
        platform == parts.config.platform(),
        "the new base is for {platform}, the image for {}",
        parts.config.platform()
    );
    parts.layers.splice(..count, new.layers.iter().cloned());
    parts.config.rootfs.diff_ids.splice(..count, new.diff_ids.iter().cloned());
    let steps = old.config.history.len().min(parts.config.history.len());
    parts.config.history.splice(..steps, new.config.history.iter().cloned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_sets_the_time() {
        let time = parse_epoch(Some("1700000000")).unwrap().unwrap();
        assert_eq!(time.to_string(), "2023-11-14T22:13:20Z");
        assert!(parse_epoch(Some("yesterday")).is_err());
        assert!(parse_epoch(Some("")).unwrap().is_none());
    }
}
