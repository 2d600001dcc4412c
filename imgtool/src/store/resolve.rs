//! From what the user typed to an image: by name, by digest, by ID or an
//! unambiguous prefix of one; then through indexes to one platform.

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;

use super::{Store, entry_name};
use crate::digest::Digest;
use crate::error::{NoSuchImage, NoSuchPlatform};
use crate::manifest::{
    Descriptor, Document, ImageConfig, Index, MAX_CONFIG_SIZE, MAX_INDEX_DEPTH, MAX_MANIFEST_SIZE,
    Manifest, Platform,
};
use crate::reference::Reference;
use crate::registries_conf;

/// One image of one platform, with its documents read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// The name it was found by, or the first one it has.
    pub(crate) name: Option<Reference>,
    /// What the store's index points at: the manifest or an index around it.
    pub(crate) entry: Descriptor,
    /// The descriptor of the manifest itself.
    pub(crate) manifest: Descriptor,
    pub(crate) config_descriptor: Descriptor,
    pub(crate) config: ImageConfig,
    /// The config blob, byte for byte.
    pub(crate) config_bytes: Vec<u8>,
    /// Blobs of the layers, bottom first.
    pub(crate) layers: Vec<Descriptor>,
    /// Digests of the same layers uncompressed.
    pub(crate) diff_ids: Vec<Digest>,
}

impl Image {
    /// What the documents of one platform say. Fails on a config that is none, or that does not
    /// tell of the manifest's layers.
    pub(crate) fn new(
        entry: &Descriptor,
        descriptor: Descriptor,
        manifest: Manifest,
        config_bytes: Vec<u8>,
    ) -> Result<Self> {
        let config = ImageConfig::parse(&config_bytes)?;
        ensure!(
            config.rootfs.diff_ids.len() == manifest.layers.len(),
            "manifest has {} layers but the config has {} diff IDs",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        );
        Ok(Self {
            name: entry_name(entry),
            entry: entry.clone(),
            manifest: descriptor,
            config_descriptor: manifest.config,
            diff_ids: config.rootfs.diff_ids.clone(),
            config,
            config_bytes,
            layers: manifest.layers,
        })
    }

    /// The image ID: the digest of its config.
    pub(crate) fn id(&self) -> &Digest {
        &self.config_descriptor.digest
    }

    /// When it was made, if the config says so.
    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.config.created.as_ref()?.parse().ok()
    }

    /// Bytes of its layers as they are stored.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// What the user's word for an image selects in the index.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// The name, if it was selected by name.
    pub(crate) name: Option<Reference>,
    pub(crate) entry: Descriptor,
}

impl Store {
    /// The image that `name` means on this host's platform.
    pub(crate) fn resolve(&self, name: &str) -> Result<Image> {
        self.resolve_for(name, None)
    }

    /// The same for a platform that the user may have chosen.
    pub(crate) fn resolve_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let selection = self.select(name)?;
        let mut image = self
            .image_for(&selection.entry, platform)
            .with_context(|| format!("open image {name}"))?;
        image.name = selection.name.or(image.name);
        Ok(image)
    }

    /// Finds the index entry that `name` means.
    pub(crate) fn select(&self, name: &str) -> Result<Selection> {
        let index = self.index()?;
        if let Ok(reference) = Reference::parse(name) {
            let wanted = reference.clone().with_default_tag();
            if let Some(entry) = find_named(&index, &wanted) {
                return Ok(Selection { name: Some(wanted), entry: entry.clone() });
            }
        }
        if let Some(entry) = self.find_by_id(&index, name)? {
            return Ok(Selection { name: None, entry });
        }
        for candidate in registries_conf::candidates(name)? {
            let wanted = candidate.with_default_tag();
            if let Some(entry) = find_named(&index, &wanted) {
                return Ok(Selection { name: Some(wanted), entry: entry.clone() });
            }
        }
        Err(NoSuchImage { name: name.to_owned(), pullable: Reference::parse(name).is_ok() }.into())
    }

    /// Reads the image that an index entry points at.
    pub(crate) fn image(&self, entry: &Descriptor) -> Result<Image> {
        self.image_for(entry, None)
    }

    /// This host's image, or the first of an index that is here.
    pub(crate) fn any_image(&self, entry: &Descriptor) -> Result<Image> {
        let image = self.image(entry);
        if image.is_err()
            && let Document::Index(index) = self.document(entry)?
        {
            let here = |e: &&Descriptor| !e.is_attestation() && self.has_blob(&e.digest);
            if let Some(first) = index.manifests.iter().find(here) {
                return Ok(Image {
                    entry: entry.clone(),
                    name: entry_name(entry),
                    ..self.image(first)?
                });
            }
        }
        image
    }

    /// The same for a platform that the user may have chosen.
    pub(crate) fn image_for(
        &self,
        entry: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<Image> {
        let (descriptor, manifest) = self.find_manifest(entry, platform, 0)?;
        let config_bytes = self.read_blob(&manifest.config, MAX_CONFIG_SIZE)?;
        Image::new(entry, descriptor, manifest, config_bytes)
    }

    /// Reads the manifest or index at `descriptor`.
    pub(crate) fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.read_blob(descriptor, MAX_MANIFEST_SIZE)?;
        Document::parse(&bytes, &descriptor.media_type)
            .with_context(|| format!("read manifest {}", descriptor.digest))
    }

    fn find_manifest(
        &self,
        descriptor: &Descriptor,
        platform: Option<&Platform>,
        depth: usize,
    ) -> Result<(Descriptor, Manifest)> {
        ensure!(depth < MAX_INDEX_DEPTH, "indexes are nested too deeply");
        let index = match self.document(descriptor)? {
            Document::Manifest(manifest) => return Ok((descriptor.clone(), manifest)),
            Document::Index(index) => index,
        };
        // Only what was pulled is here: the entries of other platforms are names.
        let present: Vec<Descriptor> = index
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation() && self.has_blob(&entry.digest))
            .cloned()
            .collect();
        let host = Platform::host();
        let chosen = platform.unwrap_or(&host).choose(&present).or_else(|| match &present[..] {
            [only] if platform.is_none() => Some(only),
            _ => None,
        });
        match chosen {
            Some(entry) => self.find_manifest(entry, platform, depth + 1),
            None => Err(NoSuchPlatform {
                wanted: platform.unwrap_or(&host).to_string(),
                present: platforms(&present),
            }
            .into()),
        }
    }

    fn find_by_id(&self, index: &Index, text: &str) -> Result<Option<Descriptor>> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(hexadecimal) {
            return Ok(None);
        }
        let mut found: Option<(Digest, Descriptor)> = None;
        for entry in &index.manifests {
            let id = match self.any_image(entry) {
                Ok(image) => {
                    let digests = [&image.entry.digest, &image.manifest.digest, image.id()];
                    if !digests.iter().any(|d| d.hex().starts_with(prefix)) {
                        continue;
                    }
                    image.id().clone()
                }
                // What can't be read has no ID but can still be removed by its digest.
                Err(_) if entry.digest.hex().starts_with(prefix) => entry.digest.clone(),
                Err(_) => continue,
            };
            match &found {
                Some((other, _)) if *other != id => {
                    bail!("image ID {text} is ambiguous: give more digits")
                }
                Some(_) => {}
                None => found = Some((id, entry.clone())),
            }
        }
        Ok(found.map(|(_, entry)| entry))
    }
}

fn find_named<'a>(index: &'a Index, wanted: &Reference) -> Option<&'a Descriptor> {
    let exact = index.manifests.iter().find(|entry| entry_name(entry).as_ref() == Some(wanted));
    // A digest decides over the tag, which may have moved since.
    exact.or_else(|| {
        let digest = wanted.digest()?;
        index.manifests.iter().find(|entry| {
            entry.digest == *digest
                && entry_name(entry)
                    .is_some_and(|name| name.familiar_repository() == wanted.familiar_repository())
        })
    })
}

/// The platforms of index entries, for messages.
pub(crate) fn platforms(entries: &[Descriptor]) -> String {
    let mut names: Vec<String> = entries
        .iter()
        .filter(|entry| !entry.is_attestation())
        .filter_map(|entry| entry.platform.as_ref())
        .map(ToString::to_string)
        .collect();
    names.dedup();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}
