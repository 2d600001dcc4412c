//! `imgtool manifest`: indexes of images for several platforms.

mod members;

use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;

use super::{access, push};
use crate::bundle;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Index, Platform, media_type};
use crate::output;
use crate::reference::Reference;
use crate::store::{Elsewhere, Store, entry_name};
use crate::transport::registry::Access;

use self::members::Draft;

/// Make and change indexes of images for several platforms
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an index of images of the store or of registries
    Create {
        /// Name of the index
        name: String,
        /// Names or IDs of images; those that are not here, and docker://NAME, are found in their
        /// registries, where they stay
        images: Vec<String>,
        /// Replace an index that has the name
        #[arg(short, long)]
        amend: bool,
        #[command(flatten)]
        access: Box<access::Flags>,
    },
    /// Add images to an index
    Add {
        /// Name of the index
        name: String,
        /// As in create
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        access: Box<access::Flags>,
    },
    /// Say more of an image of an index
    Annotate(Box<Annotate>),
    /// Take an image out of an index
    Remove {
        /// Name of the index
        name: String,
        /// The image: its digest, or its platform
        image: String,
    },
    /// Print an index
    Inspect {
        /// Name of the index
        name: String,
    },
    /// Push an index with all its images
    Push {
        /// Name of the index
        name: String,
        /// Push under this name instead
        destination: Option<String>,
        /// Remove the index from the store afterwards
        #[arg(short, long)]
        purge: bool,
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        access: Box<access::Flags>,
    },
}

#[derive(Debug, clap::Args)]
struct Annotate {
    /// Name of the index
    name: String,
    /// The image: its name, its digest, or its platform
    image: String,
    #[arg(long)]
    os: Option<String>,
    #[arg(long)]
    arch: Option<String>,
    #[arg(long)]
    variant: Option<String>,
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Set an annotation of the entry
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    match &args.command {
        Command::Create { name, images, amend, access } => {
            let name = parse(name)?;
            let taken = store.select(&name.to_string()).is_ok();
            ensure!(*amend || !taken, "{} exists already: --amend replaces it", name.familiar());
            add(store, &name, (Index::empty(), Elsewhere::new()), images, &access.access()?)
        }
        Command::Add { name, images, access } => {
            let name = parse(name)?;
            add(store, &name, read(store, &name)?, images, &access.access()?)
        }
        Command::Annotate(annotate) => annotate.run(store),
        Command::Remove { name, image } => {
            let name = parse(name)?;
            let (mut index, elsewhere) = read(store, &name)?;
            let position = find(store, &index, image)?;
            index.manifests.remove(position);
            save(store, &name, &index, &elsewhere)
        }
        Command::Inspect { name } => {
            let (index, _) = read(store, &parse(name)?)?;
            let mut text = serde_json::to_string_pretty(&index).context("write the index")?;
            text.push('\n');
            Ok(output::stdout().write_all(text.as_bytes())?)
        }
        Command::Push { name, destination, purge, quiet, access } => {
            let index = parse(name)?;
            read(store, &index)?;
            push::run(store, &push::Args::whole(name, destination.as_deref(), *quiet, access))?;
            if *purge {
                let _lock = store.lock_shared()?;
                store.untag(&index)?;
            }
            Ok(())
        }
    }
}

impl Annotate {
    fn run(&self, store: &Store) -> Result<()> {
        let name = parse(&self.name)?;
        let (mut index, elsewhere) = read(store, &name)?;
        let position = find(store, &index, &self.image)?;
        let entry = &mut index.manifests[position];
        let old = entry.platform.clone().unwrap_or_else(Platform::host);
        let mut platform = Platform::new(
            self.os.as_deref().unwrap_or(&old.os),
            self.arch.as_deref().unwrap_or(&old.architecture),
            self.variant.as_deref().or(old.variant.as_deref()),
        );
        platform.other = old.other;
        if let Some(version) = &self.os_version {
            platform.other.insert("os.version".to_owned(), version.clone().into());
        }
        entry.platform = Some(platform);
        for pair in &self.annotation {
            let (key, value) =
                pair.split_once('=').with_context(|| format!("{pair:?} has no ="))?;
            entry.annotations.insert(key.to_owned(), value.to_owned());
        }
        save(store, &name, &index, &elsewhere)
    }
}

fn parse(name: &str) -> Result<Reference> {
    let name = Reference::parse(name)?.with_default_tag();
    ensure!(name.digest().is_none(), "{name}: a digest can't be given");
    Ok(name)
}

fn read(store: &Store, name: &Reference) -> Result<(Index, Elsewhere)> {
    let entry = store.select(&name.to_string())?.entry;
    match store.document(&entry)? {
        Document::Index(index) => Ok((index, store.elsewhere(&entry)?)),
        Document::Manifest(_) => bail!("{} is one image and no index", name.familiar()),
    }
}

fn save(store: &Store, name: &Reference, index: &Index, elsewhere: &Elsewhere) -> Result<()> {
    let _lock = store.lock_shared()?;
    let mut elsewhere = elsewhere.clone();
    elsewhere.retain(|digest, _| index.manifests.iter().any(|entry| entry.digest == *digest));
    let bytes = serde_json::to_vec(index).context("write index")?;
    let entry = store.write_blob(media_type::OCI_INDEX, &bytes)?;
    let before = store.select(&name.to_string()).ok();
    store.tag_index(name, &entry, &elsewhere)?;
    if let Some(before) = before {
        forget_unnamed(store, &before.entry)?;
    }
    writeln!(output::stdout(), "{}", entry.digest)?;
    Ok(())
}

/// What an index was before a change is nobody's, unless it has another name or a bundle is of it.
fn forget_unnamed(store: &Store, entry: &Descriptor) -> Result<()> {
    let named = |other: &Descriptor| other.digest == entry.digest && entry_name(other).is_some();
    if store.index()?.manifests.iter().any(named)
        || !matches!(store.document(entry), Ok(Document::Index(_)))
    {
        return Ok(());
    }
    let used = match store.image(entry) {
        Ok(image) => !bundle::users_of(store, image.id())?.is_empty(),
        Err(_) => false,
    };
    if !used {
        store.forget(entry)?;
    }
    Ok(())
}

fn add(
    store: &Store,
    name: &Reference,
    (index, elsewhere): (Index, Elsewhere),
    images: &[String],
    access: &Access,
) -> Result<()> {
    let mut draft = Draft { store, access, index, elsewhere };
    // What came along to tell the platform stays where it is from.
    store.in_passing(|| draft.add(images))?;
    save(store, name, &draft.index, &draft.elsewhere)
}

/// The entry that a word means: by digest, by platform, or by the name of an image.
fn find(store: &Store, index: &Index, word: &str) -> Result<usize> {
    let by = |wanted: &dyn Fn(&Descriptor) -> bool| index.manifests.iter().position(wanted);
    let found = match word.parse::<Digest>() {
        Ok(digest) => by(&|entry| entry.digest == digest),
        Err(_) => by(&|entry| {
            entry.platform.as_ref().is_some_and(|platform| platform.to_string() == word)
        })
        .or_else(|| {
            let image = store.resolve(word).ok()?;
            by(&|entry| entry.digest == image.manifest.digest)
        }),
    };
    found.with_context(|| {
        format!("the index has no {word}; it has {}", crate::store::platforms(&index.manifests))
    })
}
