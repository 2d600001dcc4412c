//! Where a copy comes from.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::commands::load::{self, Loaded};
use crate::copy::FromStore;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Index, Platform, media_type};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Store, entry_name, platforms};
use crate::transport::Source;
use crate::transport::dir::Dir;
use crate::transport::layout::Layout;
use crate::transport::place::{Choice, Place};
use crate::transport::registry::{Access, Registry, Repository};

const MAX_INDEX_DEPTH: usize = 4;

/// An image at its source.
pub(crate) struct Origin<'a> {
    kind: Kind<'a>,
    entry: Descriptor,
    name: Option<Reference>,
    /// An index that we made of the source's own.
    narrowed: Option<(Digest, Vec<u8>)>,
}

enum Kind<'a> {
    Registry(Box<Registry<'a>>),
    Layout(Layout<'a>),
    Dir(Dir),
    Store(FromStore<'a>),
}

impl<'a> Origin<'a> {
    pub(crate) fn open(
        store: &'a Store,
        place: &Place,
        access: &'a Access,
        progress: &'a Progress,
    ) -> Result<Self> {
        let (kind, entry, name) = match place {
            Place::Registry(name) => {
                let name = name.clone().with_default_tag();
                let mut registry = Registry::open(store, &name, access, progress)?;
                let entry = registry.resolve()?;
                (Kind::Registry(Box::new(registry)), entry, Some(name))
            }
            Place::Layout(path, choice) => {
                let layout = Layout::directory(store, path)?;
                let entries = layout.index()?.manifests;
                let entry = choose_entry(entries, choice.as_ref())?;
                let name = entry_name(&entry);
                (Kind::Layout(layout), entry, name)
            }
            Place::Dir(path) => {
                let dir = Dir::open(path)?;
                let entry = dir.entry()?;
                (Kind::Dir(dir), entry, None)
            }
            Place::Store(word) => {
                let selected = store.select(word)?;
                let name = selected.name.or_else(|| entry_name(&selected.entry));
                (Kind::Store(FromStore(store)), selected.entry, name)
            }
            Place::DockerArchive(path, choice) | Place::OciArchive(path, choice) => {
                let loaded = load::read(store, path.as_deref().map(Path::new))?;
                let loaded = choose_loaded(loaded, choice.as_ref())?;
                let name = loaded.names.into_iter().next();
                (Kind::Store(FromStore(store)), loaded.entry, name)
            }
        };
        Ok(Self { kind, entry, name, narrowed: None })
    }

    pub(crate) fn entry(&self) -> &Descriptor {
        &self.entry
    }

    /// What it is called at its source.
    pub(crate) fn name(&self) -> Option<&Reference> {
        self.name.as_ref()
    }

    /// The repository, if it is in a registry.
    pub(crate) fn repository(&self) -> Option<&Repository> {
        match &self.kind {
            Kind::Registry(registry) => Some(registry.repository()),
            Kind::Layout(_) | Kind::Dir(_) | Kind::Store(_) => None,
        }
    }

    /// The manifest for one platform; a manifest that is none of an index is taken as it is.
    pub(crate) fn for_platform(&mut self, platform: &Platform) -> Result<Descriptor> {
        let mut at = self.entry.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            let Document::Index(index) = self.read(&at)? else {
                return Ok(at);
            };
            let child = platform.choose(&index.manifests).with_context(|| {
                format!(
                    "no matching manifest for {platform} in the manifest list entries; there are: {}",
                    platforms(&index.manifests)
                )
            })?;
            at = child.clone();
        }
        bail!("indexes are nested too deeply")
    }

    /// An index of the images for these platforms, with what was attested of them.
    pub(super) fn narrow(&mut self, wanted: &[Platform]) -> Result<Descriptor> {
        let Document::Index(index) = self.read(&self.entry.clone())? else {
            bail!("it is one image and no index: there is nothing to choose from");
        };
        let mut kept: Vec<Digest> = Vec::new();
        for platform in wanted {
            let child = platform.choose(&index.manifests).with_context(|| {
                format!("no image for {platform}, only for: {}", platforms(&index.manifests))
            })?;
            kept.push(child.digest.clone());
        }
        let about = |entry: &Descriptor| {
            let subject = entry.annotations.get("vnd.docker.reference.digest");
            subject.is_some_and(|subject| kept.iter().any(|kept| kept.to_string() == *subject))
        };
        // The order of the index, not that of the command line: the same set is the same index.
        let manifests = index
            .manifests
            .iter()
            .filter(|entry| {
                kept.contains(&entry.digest) || (entry.is_attestation() && about(entry))
            })
            .cloned()
            .collect();
        let index = Index { manifests, ..index };
        let bytes = serde_json::to_vec(&index).context("write index")?;
        let kind = index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
        let entry = Descriptor::new(kind, Digest::of(&bytes), bytes.len() as u64);
        self.narrowed = Some((entry.digest.clone(), bytes));
        Ok(entry)
    }

    fn read(&mut self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self
            .document(descriptor)?
            .with_context(|| format!("manifest {} is missing", descriptor.digest))?;
        Document::parse(&bytes, &descriptor.media_type)
    }

    fn source(&self) -> &dyn Source {
        match &self.kind {
            Kind::Registry(registry) => &**registry,
            Kind::Layout(layout) => layout,
            Kind::Dir(dir) => dir,
            Kind::Store(store) => store,
        }
    }

    fn source_mut(&mut self) -> &mut dyn Source {
        match &mut self.kind {
            Kind::Registry(registry) => &mut **registry,
            Kind::Layout(layout) => layout,
            Kind::Dir(dir) => dir,
            Kind::Store(store) => store,
        }
    }
}

impl Source for Origin<'_> {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        if let Some((digest, bytes)) = &self.narrowed
            && *digest == descriptor.digest
        {
            return Ok(Some(bytes.clone()));
        }
        self.source_mut().document(descriptor)
    }

    fn has_blob(&self, descriptor: &Descriptor) -> bool {
        self.source().has_blob(descriptor)
    }

    fn fetch_blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        self.source_mut().fetch_blobs(store, blobs)
    }
}

fn choose_entry(entries: Vec<Descriptor>, choice: Option<&Choice>) -> Result<Descriptor> {
    let names = |entry: &Descriptor, wanted: &str| {
        let plain = entry.annotations.get(crate::manifest::REF_NAME);
        plain.is_some_and(|name| name == wanted)
            || entry_name(entry).is_some_and(|name| {
                Reference::parse(wanted).is_ok_and(|wanted| wanted.with_default_tag() == name)
            })
    };
    pick(entries, choice, names, |entry| &entry.digest)
}

fn choose_loaded(loaded: Vec<Loaded>, choice: Option<&Choice>) -> Result<Loaded> {
    let names = |loaded: &Loaded, wanted: &str| {
        Reference::parse(wanted)
            .is_ok_and(|wanted| loaded.names.contains(&wanted.with_default_tag()))
    };
    pick(loaded, choice, names, |loaded| &loaded.entry.digest)
}

fn pick<T>(
    images: Vec<T>,
    choice: Option<&Choice>,
    is_named: impl Fn(&T, &str) -> bool,
    digest: impl Fn(&T) -> &Digest,
) -> Result<T> {
    let count = images.len();
    let mut found = images.into_iter().enumerate().filter(|(number, image)| match choice {
        None => true,
        Some(Choice::Number(wanted)) => number == wanted,
        Some(Choice::Digest(wanted)) => digest(image) == wanted,
        Some(Choice::Name(wanted)) => is_named(image, wanted),
    });
    match (found.next(), found.next(), choice) {
        (Some((_, image)), None, _) => Ok(image),
        (Some((_, image)), Some(_), Some(_)) => Ok(image),
        (Some(_), Some(_), None) => {
            bail!("there are {count} images: choose one by :NAME or :@NUMBER behind the path")
        }
        (None, _, Some(choice)) => bail!("there is no image {choice} among the {count} there"),
        (None, _, None) => bail!("there is no image"),
    }
}
