//! `--cache-from` and `--cache-to`: caches in registries and in layouts.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::build::Built;
use crate::build::engine::lock;
use crate::build::shared::{Caches, Shared};
use crate::commands::copy::origin::Origin;
use crate::copy::{self, FromStore, Wanted};
use crate::manifest::{Descriptor, Platform};
use crate::output;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::Destination;
use crate::transport::layout::LayoutWriter;
use crate::transport::place::{Choice, Place};
use crate::transport::registry::{Access, Push, Upload};

/// What a cache is called in a layout.
const NAME: &str = "latest";

/// Where a cache goes.
#[derive(Clone, Debug)]
pub(super) struct To {
    place: Place,
    /// Whether with the steps of all stages.
    all: bool,
}

/// The fields of `type=TYPE,KEY=VALUE…`.
struct Fields<'w> {
    word: &'w str,
    fields: Vec<(&'w str, &'w str)>,
}

impl<'w> Fields<'w> {
    fn parse(word: &'w str, known: &[&str]) -> Result<Self> {
        let mut fields = Vec::new();
        for field in word.split(',') {
            let (key, value) =
                field.split_once('=').with_context(|| format!("{field:?}: want KEY=VALUE"))?;
            ensure!(known.contains(&key), "{key}= is none of {}=", known.join("=, "));
            fields.push((key, value));
        }
        Ok(Self { word, fields })
    }

    fn get(&self, wanted: &str) -> Option<&'w str> {
        self.fields.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value)
    }

    /// The place; a directory is that of the field `directory`.
    fn place(&self, directory: &str) -> Result<Place> {
        let want =
            |key: &str| self.get(key).with_context(|| format!("{:?} needs {key}=", self.word));
        match self.get("type") {
            Some("registry") => Ok(Place::Registry(Reference::parse(want("ref")?)?)),
            Some("local") => {
                let name = self.get("tag").unwrap_or(NAME).to_owned();
                Ok(Place::Layout(PathBuf::from(want(directory)?), Some(Choice::Name(name))))
            }
            _ => bail!("type is one of registry and local"),
        }
    }
}

pub(super) fn from(word: &str) -> Result<Place> {
    // As docker takes it: the name of an image, here of a cache.
    if !word.contains('=') {
        return Ok(Place::Registry(Reference::parse(word)?));
    }
    Fields::parse(word, &["type", "ref", "src", "tag"])?.place("src")
}

pub(super) fn to(word: &str) -> Result<To> {
    let fields = Fields::parse(word, &["type", "ref", "dest", "tag", "mode"])?;
    let all = match fields.get("mode") {
        None | Some("min") => false,
        Some("max") => true,
        Some(other) => bail!("mode {other:?} is neither min nor max"),
    };
    Ok(To { place: fields.place("dest")?, all })
}

/// The caches that can be read; of the others it is told, since a first build has none.
pub(super) fn open<'a>(store: &'a Store, from: &[Place], access: &'a Access) -> Caches<'a> {
    let caches = Caches::default();
    for place in from {
        let read = || {
            let _lock = store.lock_shared()?;
            let origin = Origin::open(store, place, access, &Progress::Silent)?;
            let entry = origin.entry().clone();
            Shared::read(store, Box::new(origin), &entry)
        };
        match read() {
            Ok(shared) => lock(&caches.from).push(shared),
            Err(error) => output::say(&format!("warning: --cache-from: {error:#}")),
        }
    }
    caches
}

impl To {
    pub(super) fn deliver(
        &self,
        store: &Store,
        caches: &Caches<'_>,
        built: &Built,
        access: &Access,
    ) -> Result<()> {
        let only = if self.all { None } else { Some(&built.diff_ids[..]) };
        let entry = caches.write(store, only)?;
        let give = |to: &mut dyn Destination| {
            copy::transfer(&mut FromStore(store), store, to, &entry, &Wanted::All).map(drop)
        };
        match &self.place {
            Place::Layout(path, choice) => {
                let Some(Choice::Name(name)) = choice else { bail!("a cache needs a name") };
                give(&mut LayoutWriter::create(path, Some(name))?)
            }
            Place::Registry(name) => {
                let name = name.clone().with_default_tag();
                let how = Upload { chunk: None };
                give(&mut Push::open(&name, access, &Progress::Silent, how)?)
            }
            _ => bail!("a cache goes to a registry or a directory"),
        }
        .context("export the cache")
    }
}

/// Brings an image of a layout, `DIR[:TAG|@DIGEST]`, into the store.
pub(super) fn bring_layout(
    store: &Store,
    place: &str,
    platform: Option<&Platform>,
    access: &Access,
) -> Result<Descriptor> {
    let place = Place::parse(&format!("oci:{place}"))?;
    let mut origin = Origin::open(store, &place, access, &Progress::Silent)?;
    let entry = origin.entry().clone();
    let wanted = Wanted::Platforms(vec![platform.cloned().unwrap_or_else(Platform::host)]);
    copy::copy(&mut origin, store, &entry, &wanted, &Progress::Silent)?;
    Ok(entry)
}
