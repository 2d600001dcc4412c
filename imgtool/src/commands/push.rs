//! `imgtool push`: an image to a registry.

mod absent;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::{access, form};
use crate::convert::Form;
use crate::copy::{self, FromStore, Wanted};
use crate::error::printable;
use crate::manifest::{Descriptor, Document, Platform};
use crate::output;
use crate::progress::Progress;
use crate::reference::{DEFAULT_HOST, DEFAULT_TAG, Reference};
use crate::store::{ELSEWHERE, Store, entry_name};
use crate::transport::registry::{Access, Push, Upload};

/// Push an image to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the image, which is also where it goes
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
    /// Push under this name instead
    #[arg(value_name = "DESTINATION", conflicts_with = "all_tags")]
    destination: Option<String>,
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push only the image for this platform
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// Send layers in chunks of so many bytes, for proxies that take no large requests
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<u64>,
    #[command(flatten)]
    form: form::Flags,
    /// Write the digest of what was pushed to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Print the name only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    access: access::Flags,
}

impl Args {
    /// A push of all that a name stands for.
    pub(super) fn whole(
        name: &str,
        destination: Option<&str>,
        quiet: bool,
        access: &access::Flags,
    ) -> Self {
        Self {
            image: name.to_owned(),
            destination: destination.map(str::to_owned),
            all_tags: false,
            platform: None,
            chunk_size: None,
            form: form::Flags::default(),
            digestfile: None,
            quiet,
            access: access.clone(),
        }
    }
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let typed = args.destination.as_deref().unwrap_or(&args.image);
    // podman's users name the transport, of which there is one.
    let typed = Reference::parse(typed.strip_prefix("docker://").unwrap_or(typed))?;
    ensure!(typed.digest().is_none(), "can't push to a digest: give {} a tag", typed.familiar());
    refuse_official(&typed)?;
    let form = args.form.form()?;
    let is_elsewhere = |entry: &Descriptor| entry.annotations.contains_key(ELSEWHERE);
    if !form.changes() && !store.index()?.manifests.iter().any(is_elsewhere) {
        let _lock = store.lock_reading()?;
        return push(store, args, &typed, form);
    }
    // What is written in the other form, or comes from elsewhere, is nobody's.
    store.in_passing(|| push(store, args, &typed, form))
}

fn push(store: &Store, args: &Args, typed: &Reference, form: Form) -> Result<()> {
    let mut pushes = Vec::new();
    if args.all_tags {
        ensure!(typed.tag().is_none(), "a tag can't be used with --all-tags");
        let index = store.index()?;
        for entry in index.manifests {
            if let Some(name) = entry_name(&entry)
                && name.familiar_repository() == typed.familiar_repository()
            {
                pushes.push((name.without_digest(), entry));
            }
        }
        ensure!(
            !pushes.is_empty(),
            "an image does not exist locally with the name: {}",
            typed.familiar()
        );
    } else {
        let entry = store.select(&args.image)?.entry;
        if typed.tag().is_none() && !args.quiet {
            writeln!(output::stdout(), "Using default tag: {DEFAULT_TAG}")?;
        }
        pushes.push((typed.clone().with_default_tag(), entry));
    }
    let access = args.access.access()?;
    let progress = Progress::new(args.quiet);
    progress.say(&format!("The push refers to repository [{}/{}]", typed.host(), typed.path()))?;
    for (name, entry) in pushes {
        let how = Upload { chunk: args.chunk_size };
        let mut push = Push::open(&name, &access, &progress, how)
            .and_then(|push| tell_where_blobs_are(store, push))
            .with_context(|| format!("push {}", name.familiar()))?;
        let mut brought = |push: &mut Push<'_>, absent: &[&Descriptor]| {
            let elsewhere = store.elsewhere(&entry)?;
            absent::bring(store, push, absent, &elsewhere, &access, &progress)
        };
        let platform = args.platform.as_ref();
        let pushed = push_one(store, &mut push, &entry, platform, form, &mut brought)
            .with_context(|| format!("push {}", name.familiar()))?;
        progress.say(&format!(
            "{}: digest: {} size: {}",
            printable(name.tag().unwrap_or_default()),
            pushed.digest,
            pushed.size
        ))?;
        if args.quiet {
            writeln!(output::stdout(), "{name}")?;
        }
        if let Some(path) = &args.digestfile {
            std::fs::write(path, pushed.digest.to_string())
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Pushes what is in the store under its name, without a word.
pub(super) fn quietly(
    store: &Store,
    name: &Reference,
    entry: &Descriptor,
    access: &Access,
) -> Result<()> {
    refuse_official(name)?;
    let progress = Progress::Silent;
    let context = || format!("push {}", name.familiar());
    let mut push = Push::open(name, access, &progress, Upload { chunk: None })
        .and_then(|push| tell_where_blobs_are(store, push))
        .with_context(context)?;
    let mut brought = |push: &mut Push<'_>, absent: &[&Descriptor]| {
        let elsewhere = store.elsewhere(entry)?;
        absent::bring(store, push, absent, &elsewhere, access, &progress)
    };
    let form = form::Flags::default().form()?;
    push_one(store, &mut push, entry, None, form, &mut brought).with_context(context)?;
    Ok(())
}

/// Names without a user are those of Docker Hub's official images.
fn refuse_official(name: &Reference) -> Result<()> {
    if name.host() == DEFAULT_HOST && name.path().starts_with("library/") {
        let short = name.familiar_repository();
        bail!(
            "requested access to the resource is denied: {short} has no user in its name, so it is an official image of Docker Hub; give it a name of your own: imgtool tag {short} USER/{short}, or HOST/{short} for another registry"
        );
    }
    Ok(())
}

/// Blobs that other names of the store share may be in the registry under those names.
fn tell_where_blobs_are<'a>(store: &Store, mut push: Push<'a>) -> Result<Push<'a>> {
    for entry in &store.index()?.manifests {
        let Some(name) = entry_name(entry) else { continue };
        // What can't be read is not known to be anywhere.
        let Ok(image) = store.image(entry) else { continue };
        for blob in image.layers.iter().chain([&image.config_descriptor]) {
            push.known_at(&blob.digest, &name);
        }
    }
    Ok(push)
}

/// Pushes an image, and of an index what is here of it.
fn push_one(
    store: &Store,
    push: &mut Push<'_>,
    entry: &Descriptor,
    platform: Option<&Platform>,
    form: Form,
    bring: &mut dyn FnMut(&mut Push<'_>, &[&Descriptor]) -> Result<bool>,
) -> Result<Descriptor> {
    let mut source = FromStore(store);
    let chosen = match platform {
        Some(_) => store.image_for(entry, platform)?.manifest,
        None => entry.clone(),
    };
    let entry = &form::give(&mut source, store, &chosen, form, false)?;
    if platform.is_some() {
        copy::transfer(&mut source, store, push, entry, &Wanted::All)?;
        return Ok(entry.clone());
    }
    if let Document::Index(index) = store.document(entry)? {
        let here = |child: &&Descriptor| store.has_blob(&child.digest);
        let (present, absent): (Vec<&Descriptor>, Vec<&Descriptor>) =
            index.manifests.iter().partition(here);
        if !bring(push, &absent)? {
            let images: Vec<&&Descriptor> =
                present.iter().filter(|child| !child.is_attestation()).collect();
            let [only] = images[..] else {
                bail!("only some images of the index are here: choose one by --platform");
            };
            let platform = only.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            output::say(&format!(
                "note: not all of the index is here; only its image for {platform} is pushed"
            ));
            copy::transfer(&mut source, store, push, only, &Wanted::All)?;
            return Ok((**only).clone());
        }
    }
    copy::transfer(&mut source, store, push, entry, &Wanted::All)?;
    Ok(entry.clone())
}
