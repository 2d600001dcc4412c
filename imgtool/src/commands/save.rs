//! `imgtool save`: images into an archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::form;
use crate::convert::{self, Form};
use crate::copy::FromStore;
use crate::manifest::{Descriptor, Packing, Platform};
use crate::output;
use crate::reference::Reference;
use crate::store::{Selection, Store, entry_name};
use crate::transport::writer::{self, Kind};

/// Save images to an archive that docker, podman and skopeo read
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names or IDs; a name without a tag means all its tags
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Write to this file, not to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Kind of archive
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: Format,
    /// Of an index, save only these; several give an index of just them [default: all that is here]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = Platform::parse)]
    platform: Vec<Platform>,
    /// Save layers without compression; manifests get other digests, IDs stay
    #[arg(long)]
    uncompressed: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// An OCI layout with docker's manifest.json beside it
    DockerArchive,
    /// An OCI layout
    OciArchive,
}

const BUFFER: usize = 256 << 10;

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let output = args.output.as_deref().filter(|path| *path != Path::new("-"));
    ensure!(
        output.is_some() || !output::stdout().is_terminal(),
        "cowardly refusing to save to a terminal: use -o FILE or redirect"
    );
    if args.platform.is_empty() && !args.uncompressed {
        let _lock = store.lock_reading()?;
        return save(store, args, output);
    }
    // Indexes and layers that are made for the archive are nobody's.
    store.in_passing(|| save(store, args, output))
}

fn save(store: &Store, args: &Args, output: Option<&Path>) -> Result<()> {
    let mut selected = Vec::new();
    for word in &args.images {
        for selection in select(store, word)? {
            let entry =
                wanted(store, args, &selection.entry).with_context(|| format!("save {word}"))?;
            selected.push(Selection { entry, ..selection });
        }
    }
    let kind = match args.format {
        Format::DockerArchive => Kind::Docker,
        Format::OciArchive => Kind::Oci,
    };
    let archive = writer::Archive::plan(store, &selected, kind)?;
    match output {
        None => {
            let mut out = BufWriter::with_capacity(BUFFER, output::stdout());
            archive.write(store, &mut out)?;
            out.flush().context("write standard output")
        }
        Some(path) => write_file(path, |out| archive.write(store, out))
            .with_context(|| format!("save to {}", path.display())),
    }
}

/// What is saved of an image or an index, in the form that is wanted.
fn wanted(store: &Store, args: &Args, entry: &Descriptor) -> Result<Descriptor> {
    let chosen = match &args.platform[..] {
        [] => entry.clone(),
        [one] => {
            let image = store.image_for(entry, Some(one))?;
            let actual = image.config.platform();
            ensure!(one.runs(&actual), "image is for {actual}, not for {one}");
            // The name stays.
            Descriptor { annotations: entry.annotations.clone(), ..image.manifest }
        }
        several => convert::narrow(&mut FromStore(store), store, entry, several)?,
    };
    let packing = args.uncompressed.then_some(Packing::None);
    form::give(&mut FromStore(store), store, &chosen, Form { packing, ..Form::default() }, false)
}

/// All tags of a repository for its bare name, one image for anything else.
fn select(store: &Store, word: &str) -> Result<Vec<Selection>> {
    if let Ok(name) = Reference::parse(word)
        && name.tag().is_none()
        && name.digest().is_none()
    {
        let repository = name.familiar_repository();
        let all: Vec<Selection> = store
            .index()?
            .manifests
            .into_iter()
            .filter_map(|entry| entry_name(&entry).map(|name| (name, entry)))
            .filter(|(name, _)| name.familiar_repository() == repository)
            .map(|(name, entry)| Selection { name: Some(name), entry })
            .collect();
        if !all.is_empty() {
            return Ok(all);
        }
    }
    Ok(vec![store.select(word)?])
}

/// Beside the target first, then renamed: a failure leaves what was there.
pub(crate) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>,
) -> Result<()> {
    // A device or a pipe can't be renamed over.
    if path.exists() && !path.is_file() {
        let file = File::options().write(true).open(path).context("open")?;
        let mut out = BufWriter::with_capacity(BUFFER, &file);
        write(&mut out)?;
        return out.flush().context("write");
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".imgtool-save-")
        .tempfile_in(directory)
        .context("create file")?;
    let mut out = BufWriter::with_capacity(BUFFER, file.as_file());
    write(&mut out)?;
    out.flush().context("write")?;
    drop(out);
    // As with any program's output, when it reaches the disk is the system's business; a store that
    // is to last is what has its files waited for.
    file.persist(path).context("rename")?;
    Ok(())
}
