//! Where a copy comes from.

use std::path::Path;

use anyhow::{Result, bail};

use crate::commands::load::{self, Loaded};
use crate::copy::{FromStore, Wanted};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Store, entry_name};
use crate::transport::Source;
use crate::transport::dir::Dir;
use crate::transport::layout::Layout;
use crate::transport::place::{Choice, Place};
use crate::transport::registry::{Access, Registry, Repository};

/// An image at its source.
pub(crate) struct Origin<'a> {
    kind: Kind<'a>,
    entry: Descriptor,
    name: Option<Reference>,
    /// Has what was made of the source's own images.
    store: &'a Store,
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
                let path = path.as_deref().map(Path::new);
                let loaded = load::read(store, path, &Wanted::Present, &|_| Ok(()), progress)?;
                let loaded = choose_loaded(loaded, choice.as_ref())?;
                let name = loaded.names.into_iter().next();
                (Kind::Store(FromStore(store)), loaded.entry, name)
            }
        };
        Ok(Self { kind, entry, name, store })
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
        match self.source_mut().document(descriptor)? {
            Some(bytes) => Ok(Some(bytes)),
            None => FromStore(self.store).document(descriptor),
        }
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
