//! `imgtool copy`: an image from any place to any place, every digest kept.

mod destination;
mod list;
pub(crate) mod origin;
mod referrers;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{access, form};
use crate::convert::{self, Form};
use crate::copy::{self, Wanted};
use crate::manifest::{Descriptor, Platform};
use crate::output;
use crate::progress::Progress;
use crate::store::Store;
use crate::transport::place::Place;
use crate::transport::policy::Policy;
use crate::transport::registry::Access;

use self::destination::Target;
use self::origin::Origin;

/// Copy an image: docker://NAME, docker-archive:FILE[:NAME], oci-archive:FILE[:NAME],
/// oci:DIR[:NAME], dir:DIR, "-", or a name in the store
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_name = "SOURCE", required_unless_present = "list")]
    source: Option<String>,
    #[arg(value_name = "DESTINATION", required_unless_present = "list")]
    destination: Option<String>,
    /// Copy all images of a list in YAML, as skopeo's sync has it
    #[arg(long, value_name = "FILE", conflicts_with = "destination")]
    list: Option<PathBuf>,
    /// With --list: name images by all of their names, not only by the last part
    #[arg(long, requires = "list")]
    scoped: bool,
    /// With --list: go on after a failure
    #[arg(long, requires = "list")]
    keep_going: bool,
    /// With --list: print what would be copied
    #[arg(long, requires = "list")]
    dry_run: bool,
    /// Copy all images of an index, and the index
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// Copy only these; several give an index of just them [default: this host's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = Platform::parse)]
    platform: Vec<Platform>,
    /// Copy what refers to the image, too: signatures, attestations, bills of materials
    #[arg(long)]
    referrers: bool,
    /// More names for the image in a docker-archive
    #[arg(long, value_name = "NAME:TAG")]
    additional_tag: Vec<String>,
    #[command(flatten)]
    form: form::Flags,
    /// Refuse whatever would change a digest
    #[arg(long)]
    preserve_digests: bool,
    /// Write the digest of what was copied to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Send layers in chunks of so many bytes, for proxies that take no large requests
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<u64>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Another file than policy.json
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
    /// Heed no policy.json
    #[arg(long)]
    insecure_policy: bool,
    #[command(flatten)]
    access: access::Flags,
    #[command(flatten)]
    sides: access::Sides,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    match (&args.source, &args.destination, &args.list) {
        // With a list, the only place is where it all goes.
        (Some(to), None, Some(list)) => run_list(store, args, list, to),
        (Some(from), Some(to), None) => {
            let request = request(args, Place::parse(from)?, Place::parse(to)?)?;
            run_one(store, args, &request).with_context(|| format!("copy {from} to {to}"))
        }
        _ => bail!("copy from where to where? Two places, or --list FILE and one"),
    }
}

fn run_list(store: &Store, args: &Args, list: &Path, to: &str) -> Result<()> {
    let context = || format!("copy the list {}", list.display());
    let sources = list::read(list, &args.sides.source(&args.access)?).with_context(context)?;
    let mut failed = super::Failures::default();
    for source in sources {
        let images = source.images().with_context(|| format!("copy {}", source.name()));
        let images = match images {
            Err(error) if args.keep_going => {
                failed.collect(Err(error));
                continue;
            }
            images => images?,
        };
        for image in images {
            let place = list::target(to, &image.name, args.scoped)?;
            let mut request = request(args, Place::Registry(image.name.clone()), place)?;
            request.from = image.access;
            if args.dry_run {
                writeln!(output::stdout(), "Would copy {}", image.name)?;
                continue;
            }
            let copied =
                run_one(store, args, &request).with_context(|| format!("copy {}", image.name));
            match copied {
                Err(error) if args.keep_going => failed.collect(Err(error)),
                copied => copied?,
            }
        }
    }
    failed.into_result()
}

fn request(args: &Args, source: Place, destination: Place) -> Result<Request> {
    Ok(Request {
        source,
        destination,
        wanted: match (args.all, &args.platform[..]) {
            (true, _) => Selection::All,
            (false, []) => Selection::One(Platform::host()),
            (false, [one]) => Selection::One(one.clone()),
            (false, several) => Selection::Several(several.to_vec()),
        },
        referrers: args.referrers,
        additional_tags: args.additional_tag.clone(),
        form: args.form.form()?,
        preserve_digests: args.preserve_digests,
        chunk: args.chunk_size,
        from: args.sides.source(&args.access)?,
        to: args.sides.destination(&args.access)?,
    })
}

fn run_one(store: &Store, args: &Args, request: &Request) -> Result<()> {
    if !args.insecure_policy
        && let Some(policy) = Policy::read(args.signature_policy.as_deref())?
    {
        request.check_policy(&policy)?;
    }
    // What goes to standard output must be alone there.
    let to_stdout =
        matches!(request.destination, Place::DockerArchive(None, _) | Place::OciArchive(None, _));
    let progress = Progress::new(args.quiet || to_stdout);
    let copied = copy(store, request, &progress)?;
    if !args.quiet && !to_stdout {
        writeln!(output::stdout(), "Digest: {}", copied.digest)?;
    }
    if let Some(path) = &args.digestfile {
        std::fs::write(path, copied.digest.to_string())
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Which images of an index go along.
#[derive(Clone, Debug)]
pub(super) enum Selection {
    All,
    One(Platform),
    Several(Vec<Platform>),
}

/// One copy, settled.
pub(super) struct Request {
    pub(super) source: Place,
    pub(super) destination: Place,
    pub(super) wanted: Selection,
    pub(super) referrers: bool,
    pub(super) additional_tags: Vec<String>,
    pub(super) form: Form,
    pub(super) preserve_digests: bool,
    pub(super) chunk: Option<u64>,
    pub(super) from: Access,
    pub(super) to: Access,
}

impl Request {
    pub(super) fn check_policy(&self, policy: &Policy) -> Result<()> {
        match &self.source {
            Place::Registry(name) => policy.check_registry(&name.clone().with_default_tag()),
            Place::Dir(path) => policy.check_path("dir", path),
            Place::Layout(path, _) => policy.check_path("oci", path),
            Place::OciArchive(path, _) => policy.check_path("oci-archive", or_stdin(path)),
            Place::DockerArchive(path, _) => policy.check_path("docker-archive", or_stdin(path)),
            // It was asked when the image came there.
            Place::Store(_) => Ok(()),
        }
    }
}

fn or_stdin(path: &Option<PathBuf>) -> &Path {
    path.as_deref().unwrap_or(Path::new("-"))
}

/// Does it, and gives what is now at the destination.
pub(super) fn copy(store: &Store, request: &Request, progress: &Progress) -> Result<Descriptor> {
    store.in_passing(|| copy_locked(store, request, progress))
}

fn copy_locked(store: &Store, request: &Request, progress: &Progress) -> Result<Descriptor> {
    let mut origin = Origin::open(store, &request.source, &request.from, progress)?;
    let mut target = Target::open(store, request, progress, origin.name())?;
    let whole = origin.entry().clone();
    let entry = match &request.wanted {
        Selection::All => whole,
        Selection::One(platform) => convert::for_platform(&mut origin, &whole, platform)?,
        Selection::Several(platforms) => {
            ensure!(
                !request.preserve_digests,
                "an index of some platforms only has another digest: --preserve-digests forbids that"
            );
            let entry = convert::narrow(&mut origin, store, &whole, platforms)?;
            progress.say(&format!("Index: {} is now {}", whole.digest, entry.digest))?;
            entry
        }
    };
    let (form, preserve) = (request.form, request.preserve_digests);
    let entry = form::give(&mut origin, store, &entry, form, preserve)?;
    let mut destination = target.destination();
    copy::transfer(&mut origin, store, &mut *destination, &entry, &Wanted::All)?;
    drop(destination);
    if request.referrers {
        referrers::copy(store, &mut origin, &mut target, &entry, progress)?;
    }
    target.finish(&entry)?;
    Ok(entry)
}
