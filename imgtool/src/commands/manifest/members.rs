//! Images that an index is made of: of the store, or of registries, where they stay.

use anyhow::{Context, Result};

use crate::error::NoSuchImage;
use crate::manifest::{
    Descriptor, Document, ImageConfig, Index, MAX_CONFIG_SIZE, Manifest, Platform,
};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Elsewhere, Store};
use crate::transport::Source;
use crate::transport::place::Place;
use crate::transport::policy::Policy;
use crate::transport::registry::{Access, Registry};

/// An index that is being made.
pub(super) struct Draft<'a> {
    pub(super) store: &'a Store,
    pub(super) access: &'a Access,
    pub(super) index: Index,
    pub(super) elsewhere: Elsewhere,
}

impl Draft<'_> {
    /// Adds images, each with its platform; what is there already is replaced. The caller discards
    /// what of them came into the store.
    pub(super) fn add(&mut self, words: &[String]) -> Result<()> {
        for word in words {
            self.add_one(word).with_context(|| format!("add {word}"))?;
        }
        Ok(())
    }

    fn add_one(&mut self, word: &str) -> Result<()> {
        let name = match Place::parse(word)? {
            Place::Registry(name) => name,
            _ => match self.store.select(word) {
                Ok(selected) => return self.add_stored(&selected.entry),
                // What is not here is looked for where docker looks for it.
                Err(error) if error.is::<NoSuchImage>() => {
                    Reference::parse(word).map_err(|_| error)?
                }
                Err(error) => return Err(error),
            },
        };
        self.add_remote(&name.with_default_tag())
    }

    /// Of an index all that is here, and what is known of where the rest lies.
    fn add_stored(&mut self, selected: &Descriptor) -> Result<()> {
        match self.store.document(selected)? {
            Document::Index(inner) => {
                let known = self.store.elsewhere(selected)?;
                for entry in inner.manifests {
                    match known.get(&entry.digest) {
                        _ if self.store.has_blob(&entry.digest) => self.put(entry),
                        Some(name) => self.put_elsewhere(entry, name),
                        None => {}
                    }
                }
            }
            Document::Manifest(_) => {
                let image = self.store.image(selected)?;
                self.put(with_platform(&image.manifest, Some(&image.config)));
            }
        }
        Ok(())
    }

    fn add_remote(&mut self, name: &Reference) -> Result<()> {
        if let Some(policy) = Policy::read(None)? {
            policy.check_registry(name)?;
        }
        let mut registry = Registry::open(self.store, name, self.access, &Progress::Silent)?;
        let entry = registry.resolve()?;
        let bytes = registry.document(&entry)?.context("manifest is missing")?;
        let document = Document::parse(&bytes, &entry.media_type)?;
        let entry = Descriptor { media_type: document.media_type(), ..entry };
        let entries = match document {
            Document::Index(index) => index.manifests,
            Document::Manifest(manifest) => {
                let config = self.config(&mut registry, &manifest)?;
                vec![with_platform(&entry, config.as_ref())]
            }
        };
        for entry in entries {
            self.put_elsewhere(entry, name);
        }
        Ok(())
    }

    /// `None` for an artifact, which is for no platform.
    fn config(
        &self,
        registry: &mut Registry<'_>,
        manifest: &Manifest,
    ) -> Result<Option<ImageConfig>> {
        let config = &manifest.config;
        if config.is_layer() {
            return Ok(None);
        }
        if !self.store.has_blob(&config.digest) {
            registry.fetch_blobs(self.store, std::slice::from_ref(config))?;
        }
        ImageConfig::parse(&self.store.read_blob(config, MAX_CONFIG_SIZE)?).map(Some)
    }

    fn put_elsewhere(&mut self, entry: Descriptor, name: &Reference) {
        self.elsewhere.insert(entry.digest.clone(), name.repository());
        self.put(entry);
    }

    fn put(&mut self, entry: Descriptor) {
        self.index.manifests.retain(|other| other.digest != entry.digest);
        self.index.manifests.push(entry);
    }
}

/// A manifest as an index has it.
fn with_platform(manifest: &Descriptor, config: Option<&ImageConfig>) -> Descriptor {
    let platform = config.map(|config| {
        let mut platform: Platform = config.platform();
        if let Some(version) = &config.os_version {
            platform.other.insert("os.version".to_owned(), version.clone().into());
        }
        platform
    });
    let mut entry = Descriptor { platform, ..manifest.clone() };
    entry.annotations.clear();
    entry
}
