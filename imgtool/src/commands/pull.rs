//! `imgtool pull`: an image from a registry.

mod unpack;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::access;
use crate::copy::{self, Wanted};
use crate::error::printable;
use crate::manifest::{Descriptor, Document, Platform};
use crate::output;
use crate::progress::Progress;
use crate::reference::{DEFAULT_TAG, Reference};
use crate::registries_conf::{RegistriesConf, ShortName};
use crate::store::{Store, entry_name};
use crate::transport::policy::Policy;
use crate::transport::registry::{Access, Registry};

/// Pull an image from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
    /// Pull all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// The images of an index to take, or "all" [default: this host's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    platform: Vec<String>,
    /// Take all images of an index
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Keep the layers packed until a bundle needs them
    #[arg(long)]
    no_unpack: bool,
    /// Print the full name only
    #[arg(short, long)]
    quiet: bool,
    /// Another file than policy.json
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
    /// Heed no policy.json
    #[arg(long, conflicts_with = "signature_policy")]
    insecure_policy: bool,
    #[command(flatten)]
    access: access::Flags,
}

/// What a pull is about, beside the name.
struct Pull<'a> {
    store: &'a Store,
    access: &'a Access,
    progress: &'a Progress,
    wanted: Wanted,
    /// Whether the platform was named, and not only this host's.
    chosen: bool,
    unpack: bool,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let access = args.access.access()?;
    let progress = Progress::new(args.quiet);
    let conf = RegistriesConf::read(access.registries.as_deref())?;
    // With the transport before it, as podman and skopeo take it, a name is a whole one.
    let whole = args.image.strip_prefix("docker://");
    let short = if whole.is_some() { None } else { conf.short_name(&args.image)? };
    let candidates = match short {
        None => vec![Reference::parse(whole.unwrap_or(&args.image))?],
        Some(ShortName { candidates, alias_of }) => {
            if let Some(file) = alias_of {
                let name = printable(&args.image);
                progress.say(&format!("Resolved \"{name}\" as an alias ({})", file.display()))?;
            }
            candidates
        }
    };
    ensure!(!candidates.is_empty(), "registries.conf names nothing to pull");
    let mut failed = super::Failures::default();
    for typed in candidates {
        match run_one(store, args, &access, &progress, &typed) {
            Ok(()) => return Ok(()),
            failure => failed.collect(failure),
        }
    }
    failed.into_result()
}

fn run_one(
    store: &Store,
    args: &Args,
    access: &Access,
    progress: &Progress,
    typed: &Reference,
) -> Result<()> {
    let defaulted = typed.tag().is_none() && typed.digest().is_none();
    ensure!(!args.all_tags || defaulted, "a tag or digest can't be used with --all-tags");
    if !args.insecure_policy
        && let Some(policy) = Policy::read(args.signature_policy.as_deref())?
    {
        policy.check_registry(&typed.clone().with_default_tag())?;
    }
    let (wanted, chosen) = args.wanted()?;
    // Without root a bundle is one plain tree, and layers are unpacked right into it.
    let unpack = !args.no_unpack && nix::unistd::geteuid().is_root();
    let pull = Pull { store, access, progress, wanted, chosen, unpack };
    let context = || format!("pull {}", typed.familiar());
    if args.all_tags {
        let all = Registry::open(store, typed, access, progress)
            .and_then(|registry| registry.repository().tags())
            .with_context(context)?;
        for tag in all {
            let name = format!("{typed}:{tag}");
            pull.pull(&Reference::parse(&name).with_context(context)?)?;
        }
        writeln!(output::stdout(), "{typed}")?;
        return Ok(());
    }
    if defaulted {
        progress.say(&format!("Using default tag: {DEFAULT_TAG}"))?;
    }
    let name = typed.clone().with_default_tag().digest_over_tag();
    pull.pull(&name)?;
    writeln!(output::stdout(), "{name}")?;
    Ok(())
}

/// Brings the image that a build or a bundle is based on, without a word on standard output.
pub(crate) fn bring(
    store: &Store,
    image: &str,
    platform: Option<&Platform>,
    access: &Access,
    progress: &Progress,
) -> Result<()> {
    let conf = RegistriesConf::read(access.registries.as_deref())?;
    let candidates = match conf.short_name(image)? {
        None => vec![Reference::parse(image)?],
        Some(ShortName { candidates, .. }) => candidates,
    };
    ensure!(!candidates.is_empty(), "{image}: registries.conf names nothing to pull");
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let mut failed = super::Failures::default();
    for name in candidates {
        let name = name.with_default_tag().digest_over_tag();
        if let Some(policy) = Policy::read(None)? {
            policy.check_registry(&name)?;
        }
        let pull = Pull {
            store,
            access,
            progress,
            wanted: Wanted::Platforms(vec![wanted.clone()]),
            chosen: platform.is_some(),
            unpack: false,
        };
        match pull.pull(&name) {
            Ok(()) => return Ok(()),
            failure => failed.collect(failure),
        }
    }
    failed.into_result()
}

impl Args {
    /// Which images of an index are wanted, and whether the user named them.
    fn wanted(&self) -> Result<(Wanted, bool)> {
        if self.all_platforms || self.platform.iter().any(|platform| platform == "all") {
            return Ok((Wanted::All, true));
        }
        let mut platforms = Vec::with_capacity(self.platform.len());
        for text in &self.platform {
            platforms.push(Platform::parse(text)?);
        }
        if !platforms.is_empty() {
            return Ok((Wanted::Platforms(platforms), true));
        }
        let from_environment = std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default();
        if from_environment.is_empty() {
            return Ok((Wanted::Platforms(vec![Platform::host()]), false));
        }
        let platform =
            Platform::parse(&from_environment).context("read DOCKER_DEFAULT_PLATFORM")?;
        Ok((Wanted::Platforms(vec![platform]), true))
    }
}

impl Pull<'_> {
    /// Brings one image into the store under its name.
    fn pull(&self, name: &Reference) -> Result<()> {
        let context = || format!("pull {}", name.familiar());
        let lock = self.store.lock_shared()?;
        let mut registry =
            Registry::open(self.store, name, self.access, self.progress).with_context(context)?;
        let pulled = self.fetch(name, &mut registry);
        drop(lock);
        let (entry, newer) = match pulled {
            Ok(pulled) => pulled,
            Err(error) => {
                if !registry.is_interrupted() {
                    self.store.discard_orphans()?;
                }
                return Err(error).with_context(context);
            }
        };
        self.progress.say(&format!("Digest: {}", entry.digest))?;
        let familiar = printable(&name.familiar());
        self.progress.say(&if newer {
            format!("Status: Downloaded newer image for {familiar}")
        } else {
            format!("Status: Image is up to date for {familiar}")
        })
    }

    /// Also says whether anything was new.
    fn fetch(&self, name: &Reference, registry: &mut Registry<'_>) -> Result<(Descriptor, bool)> {
        let store = self.store;
        let entry = registry.resolve()?;
        registry.announce()?;
        let named =
            |e: &Descriptor| e.digest == entry.digest && entry_name(e).as_ref() == Some(name);
        let had = store.index()?.manifests.iter().any(named);
        let Wanted::Platforms(wanted) = &self.wanted else {
            let had = had && self.is_whole(&entry);
            copy::copy(registry, store, &entry, &self.wanted, self.progress)?;
            store.tag(name, &entry)?;
            return Ok((entry, !had));
        };
        let here = |platform: &Platform| store.image_for(&entry, Some(platform)).is_ok();
        let had = had && wanted.iter().all(here);
        let copy = |registry: &mut Registry<'_>| {
            copy::copy(registry, store, &entry, &self.wanted, self.progress).map(drop)
        };
        match &wanted[..] {
            [one] if self.unpack => unpack::while_it_comes(store, registry, &entry, one, copy)?,
            // Which of several is run, a bundle will tell.
            _ => copy(registry)?,
        }
        for platform in wanted {
            self.check_platform(&entry, platform)?;
        }
        store.tag(name, &entry)?;
        Ok((entry, !had))
    }

    /// An image that is none of an index has not been chosen by its platform.
    fn check_platform(&self, entry: &Descriptor, wanted: &Platform) -> Result<()> {
        let actual = self.store.image_for(entry, Some(wanted))?.config.platform();
        if self.chosen {
            ensure!(wanted.runs(&actual), "image is for {actual}, not for {wanted}");
        } else if !wanted.runs(&actual) {
            output::say(&format!("warning: image is for {actual}, this host is {wanted}"));
        }
        Ok(())
    }

    fn is_whole(&self, entry: &Descriptor) -> bool {
        match self.store.document(entry) {
            Ok(Document::Index(index)) => {
                index.manifests.iter().all(|child| self.store.has_blob(&child.digest))
            }
            Ok(Document::Manifest(_)) => true,
            Err(_) => false,
        }
    }
}
