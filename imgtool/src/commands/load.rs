//! `imgtool load`: images from an archive or a layout directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::copy::{self, Wanted};
use crate::error::printable;
use crate::manifest::{CONTAINERD_NAME, Descriptor, Document, MAX_MANIFEST_SIZE, Platform};
use crate::output;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Store, entry_name};
use crate::transport::archive::Members;
use crate::transport::dir::Dir;
use crate::transport::docker_archive::{self, Item};
use crate::transport::layout::Layout;
use crate::transport::policy::Policy;

/// Load images from an archive (docker, OCI) or an OCI layout directory
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Archive or layout directory; "-" or nothing: standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same as FILE, as docker has it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    input: Option<PathBuf>,
    /// Name for the only image of the archive
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
    /// Of an index, load only these [default: all that the archive has]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = Platform::parse)]
    platform: Vec<Platform>,
    /// Another file than policy.json
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
    /// Heed no policy.json
    #[arg(long, conflicts_with = "signature_policy")]
    insecure_policy: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// An image that is in the store but not in its index yet.
pub(super) struct Loaded {
    pub(super) entry: Descriptor,
    pub(super) names: Vec<Reference>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let name = args
        .tag
        .as_deref()
        .map(|name| Reference::parse(name).map(Reference::with_default_tag))
        .transpose()?;
    let path =
        args.input.as_deref().or(args.file.as_deref()).filter(|path| *path != Path::new("-"));
    let policy = match args.insecure_policy {
        true => None,
        false => Policy::read(args.signature_policy.as_deref())?,
    };
    let allowed = |transport: &str| match &policy {
        Some(policy) => policy.check_path(transport, path.unwrap_or(Path::new("-"))),
        None => Ok(()),
    };
    let lock = store.lock_shared()?;
    let wanted = match &args.platform[..] {
        [] => Wanted::Present,
        some => Wanted::Platforms(some.to_vec()),
    };
    let progress = Progress::new(args.quiet);
    let result = read(store, path, &wanted, &allowed, &progress).and_then(|loaded| {
        check_platforms(store, &loaded, &args.platform)?;
        publish(store, loaded, name)
    });
    drop(lock);
    let lines = match result {
        Ok(lines) => lines,
        Err(error) => {
            // Layers of an image whose last part was bad are nobody's.
            store.discard_orphans()?;
            return Err(error.context(match path {
                Some(path) => format!("load {}", path.display()),
                None => "load standard input".to_owned(),
            }));
        }
    };
    if !args.quiet {
        let mut out = output::stdout();
        for line in lines {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Brings what an archive or a layout has into the store, but not into its index. The caller
/// holds the store's lock. `allowed` is asked whether images of this kind of place are taken.
pub(super) fn read(
    store: &Store,
    path: Option<&Path>,
    wanted: &Wanted,
    allowed: &dyn Fn(&str) -> Result<()>,
    progress: &Progress,
) -> Result<Vec<Loaded>> {
    let input: Box<dyn Read + Send> = match path {
        Some(path)
            if path.is_dir()
                && !path.join("index.json").exists()
                && path.join("manifest.json").exists() =>
        {
            allowed("dir")?;
            let mut dir = Dir::open(path)?;
            let entry = dir.entry()?;
            ensure!(
                copy::copy(&mut dir, store, &entry, wanted, &Progress::Silent)?,
                "blobs of {} are missing",
                entry.digest
            );
            return Ok(vec![Loaded { entry, names: Vec::new() }]);
        }
        Some(path) if path.is_dir() => {
            allowed("oci")?;
            return load_layout(&mut Layout::directory(store, path)?, store, wanted, &[], &[]);
        }
        Some(path) => Box::new(File::open(path).context("open")?),
        None => {
            let stdin = std::io::stdin();
            ensure!(!stdin.is_terminal(), "it is a terminal: name a file, or pipe an archive in");
            Box::new(stdin)
        }
    };
    let mut members = Members::read(store, input, progress)?;
    let items = docker_archive::items(store, &members)?;
    allowed(if items.is_empty() { "oci-archive" } else { "docker-archive" })?;
    if members.contains("index.json") {
        let configs: Vec<_> =
            items.iter().map(|item| members.digest(&item.config)).collect::<Result<_>>()?;
        let configs: Vec<String> = configs
            .into_iter()
            .map(|found| found.map(|(digest, _)| digest.to_string()).unwrap_or_default())
            .collect();
        let mut layout = Layout::archive(store, &mut members);
        let loaded = load_layout(&mut layout, store, wanted, &items, &configs);
        match loaded {
            // Docker's layouts may name what the archive lacks; its own list does not.
            Ok(loaded) if loaded.is_empty() && !items.is_empty() => {}
            loaded => return loaded,
        }
    }
    if items.is_empty() {
        ensure!(
            !members.contains("repositories"),
            "archive is of docker before 1.10, which is not supported: load it into a newer engine and save it again"
        );
        bail!("not an image archive: it has neither manifest.json nor index.json");
    }
    let mut loaded = Vec::with_capacity(items.len());
    for item in &items {
        loaded.push(Loaded {
            names: item_names(item)?,
            entry: docker_archive::load(store, &mut members, item)?,
        });
    }
    Ok(loaded)
}

/// Loads what a layout has. `items` and `configs` are what a `manifest.json`
/// beside it says, which knows names better than the layouts of some engines.
fn load_layout(
    layout: &mut Layout<'_>,
    store: &Store,
    wanted: &Wanted,
    items: &[Item],
    configs: &[String],
) -> Result<Vec<Loaded>> {
    let index = layout.index()?;
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut absent = None;
    for entry in &index.manifests {
        if entry.is_attestation() {
            continue;
        }
        if !copy::copy(layout, store, entry, wanted, &Progress::Silent)? {
            absent = Some(entry);
            continue;
        }
        let mut names: Vec<Reference> = entry_name(entry).into_iter().collect();
        if !entry.annotations.contains_key(CONTAINERD_NAME) {
            let config = config_of(store, entry)?;
            let listed = items.iter().zip(configs).find(|(_, c)| Some(*c) == config.as_ref());
            if let Some((item, _)) = listed {
                names = item_names(item)?;
            }
        }
        match loaded.iter_mut().find(|l| l.entry.digest == entry.digest) {
            Some(earlier) => earlier.names.extend(names),
            None => loaded.push(Loaded { entry: entry.clone(), names }),
        }
    }
    match absent {
        Some(entry) if loaded.is_empty() && items.is_empty() => {
            bail!("manifest or blobs of {} are missing", entry.digest)
        }
        None if loaded.is_empty() => bail!("layout has no image"),
        _ => Ok(loaded),
    }
}

fn config_of(store: &Store, entry: &Descriptor) -> Result<Option<String>> {
    let bytes = store.read_blob(entry, MAX_MANIFEST_SIZE)?;
    Ok(match Document::parse(&bytes, &entry.media_type)? {
        Document::Manifest(manifest) => Some(manifest.config.digest.to_string()),
        Document::Index(_) => None,
    })
}

fn item_names(item: &Item) -> Result<Vec<Reference>> {
    item.repo_tags.iter().map(|name| Ok(Reference::parse(name)?.with_default_tag())).collect()
}

/// Images that are none of an index have not been chosen by their platform.
fn check_platforms(store: &Store, loaded: &[Loaded], wanted: &[Platform]) -> Result<()> {
    for image in loaded {
        for platform in wanted {
            let actual = store.image_for(&image.entry, Some(platform))?.config.platform();
            let name = image
                .names
                .first()
                .map_or_else(|| image.entry.digest.to_string(), |name| printable(&name.familiar()));
            ensure!(platform.runs(&actual), "{name} is for {actual}, not for {platform}");
        }
    }
    Ok(())
}

/// Puts the loaded images into the index: the moment they become visible.
fn publish(store: &Store, loaded: Vec<Loaded>, name: Option<Reference>) -> Result<Vec<String>> {
    // An archive that is an image only by its envelope is refused before any name moves.
    for image in &loaded {
        store.any_image(&image.entry)?;
    }
    let mut loaded = loaded;
    if let Some(name) = name {
        match &mut loaded[..] {
            [only] => only.names = vec![name],
            many => bail!("archive has {} images: --tag can name only one", many.len()),
        }
    }
    let mut lines = Vec::new();
    for image in loaded {
        let names: BTreeSet<Reference> = image.names.into_iter().collect();
        for name in &names {
            let familiar = printable(&name.familiar());
            if let Some(old) = store.tag(name, &image.entry)? {
                let id = store
                    .any_image(&old)
                    .map_or_else(|_| old.digest.to_string(), |image| image.id().to_string());
                lines.push(format!(
                    "The image {familiar} already exists, renaming the old one with ID {id} to empty string"
                ));
            }
            lines.push(format!("Loaded image: {familiar}"));
        }
        if names.is_empty() {
            store.add_unnamed(&image.entry)?;
            let id = store.any_image(&image.entry)?.id().clone();
            lines.push(format!("Loaded image ID: {id}"));
        }
    }
    Ok(lines)
}
