//! `imgtool mutate`: an image with other settings, more layers, or all in one layer.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::commit::change::{self, Change};
use crate::digest::{Algorithm, Digest, HashingWriter};
use crate::layer::gzip::GzipWriter;
use crate::layer::packed::store_archive;
use crate::layer::{self, lower, tar};
use crate::manifest::{Descriptor, History, Platform, media_type};
use crate::output;
use crate::reference::Reference;
use crate::rewrite::{self, Parts};
use crate::store::{Image, Store};

const BUFFER: usize = 256 << 10;

/// Make an image of another one: other settings, more layers, all in one layer
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ID
    image: String,
    /// Name of the new image [default: the name of the old one]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
    /// Apply a Dockerfile instruction, as commit does
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Set a variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Set an annotation of the manifest; without a value: take it away
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// The command, a word per flag or all as JSON
    #[arg(long, value_name = "WORD")]
    cmd: Vec<String>,
    /// The entry point, a word per flag or all as JSON
    #[arg(long, value_name = "WORD")]
    entrypoint: Vec<String>,
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Take away: cmd, entrypoint, env, exposedports, labels, user, volumes, workdir, history
    #[arg(long, value_name = "WHAT")]
    clear: Vec<String>,
    /// Say that it is for another platform
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse)]
    set_platform: Option<Platform>,
    /// Put a tar archive on top as a layer
    #[arg(long, value_name = "FILE")]
    append: Vec<PathBuf>,
    /// Put a file into the image, as a layer of its own
    #[arg(long, value_name = "FILE:PATH")]
    insert: Vec<String>,
    /// Make one layer of all
    #[arg(long)]
    flatten: bool,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let changes = changes(args)?;
    let lock = store.lock_shared()?;
    let mutated = mutate(store, args, &changes).with_context(|| format!("mutate {}", args.image));
    drop(lock);
    if mutated.is_err() {
        store.discard_orphans()?;
    }
    writeln!(output::stdout(), "{}", mutated?)?;
    Ok(())
}

fn mutate(store: &Store, args: &Args, changes: &[Change]) -> Result<Digest> {
    let image = store.resolve(&args.image)?;
    let name = match &args.tag {
        Some(name) => Some(Reference::parse(name)?.with_default_tag()),
        None => image.name.clone().filter(|name| name.tag().is_some()),
    };
    let created = rewrite::now()?;
    let step = |words: String| History {
        created: Some(created.to_string()),
        created_by: Some(words),
        ..History::default()
    };
    let mut parts = Parts::of(store, &image)?;
    for what in &args.clear {
        clear(&mut parts, what)?;
    }
    change::apply(changes, &mut parts.config.config);
    for pair in &args.annotation {
        match pair.split_once('=') {
            Some((key, value)) => drop(parts.annotations.insert(key.into(), value.into())),
            None => drop(parts.annotations.remove(pair)),
        }
    }
    if let Some(platform) = &args.set_platform {
        parts.config.os.clone_from(&platform.os);
        parts.config.architecture.clone_from(&platform.architecture);
        parts.config.variant.clone_from(&platform.variant);
    }
    if !changes.is_empty() || !args.clear.is_empty() {
        parts.add_step(step("imgtool mutate".to_owned()));
    }
    for path in &args.append {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let (layer, diff_id) =
            store_archive(store, file).with_context(|| format!("append {}", path.display()))?;
        parts.add_layer(
            layer,
            diff_id,
            step(format!("imgtool mutate --append {}", path.display())),
        );
    }
    for pair in &args.insert {
        let (layer, diff_id) = insert(store, pair)?;
        parts.add_layer(layer, diff_id, step(format!("imgtool mutate --insert {pair}")));
    }
    if args.flatten {
        let (_, whole) = parts.write(store, created)?;
        let whole = store.image(&whole)?;
        parts = flatten(store, &whole, step("imgtool mutate --flatten".to_owned()))?;
    }
    let (id, entry) = parts.write(store, created)?;
    match name {
        Some(name) => drop(store.tag(&name.without_digest(), &entry)?),
        None => store.add_unnamed(&entry)?,
    }
    Ok(id)
}

fn changes(args: &Args) -> Result<Vec<Change>> {
    let pair = |text: &String| -> Result<(String, String)> {
        let (key, value) = text.split_once('=').with_context(|| format!("{text:?} has no ="))?;
        ensure!(!key.is_empty(), "{text:?} has no name before the =");
        Ok((key.to_owned(), value.to_owned()))
    };
    let words = |words: &[String]| match words {
        [one] if one.starts_with('[') => {
            serde_json::from_str::<Vec<String>>(one).with_context(|| format!("parse {one}"))
        }
        words => Ok(words.to_vec()),
    };
    let mut changes: Vec<Change> =
        args.changes.iter().map(|text| Change::parse(text)).collect::<Result<_>>()?;
    if !args.env.is_empty() {
        changes.push(Change::Env(args.env.iter().map(pair).collect::<Result<_>>()?));
    }
    if !args.label.is_empty() {
        changes.push(Change::Label(args.label.iter().map(pair).collect::<Result<_>>()?));
    }
    if !args.entrypoint.is_empty() {
        changes.push(Change::Entrypoint(words(&args.entrypoint)?));
    }
    if !args.cmd.is_empty() {
        changes.push(Change::Cmd(words(&args.cmd)?));
    }
    changes.extend(args.user.clone().map(Change::User));
    changes.extend(args.workdir.clone().map(Change::Workdir));
    Ok(changes)
}

fn clear(parts: &mut Parts, what: &str) -> Result<()> {
    let config = &mut parts.config.config;
    match what {
        "cmd" => config.cmd = None,
        "entrypoint" => config.entrypoint = None,
        "env" => config.env.clear(),
        "exposedports" => config.exposed_ports.clear(),
        "labels" => config.labels.clear(),
        "user" => config.user.clear(),
        "volumes" => config.volumes.clear(),
        "workdir" => config.working_dir.clear(),
        "history" => parts.config.history.clear(),
        _ => bail!(
            "can't clear {what:?}: there are cmd, entrypoint, env, exposedports, labels, user, volumes, workdir and history"
        ),
    }
    Ok(())
}

/// A layer with one file, owned by root.
fn insert(store: &Store, pair: &str) -> Result<(Descriptor, Digest)> {
    let (source, path) =
        pair.split_once(':').with_context(|| format!("{pair:?} is not FILE:PATH"))?;
    let path = path.trim_start_matches('/');
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    ensure!(path.split('/').all(plain), "{pair:?}: bad path in the image");
    let file = File::open(Path::new(source)).with_context(|| format!("open {source}"))?;
    let metadata = file.metadata().with_context(|| format!("stat {source}"))?;
    ensure!(metadata.is_file(), "{source} is no regular file");
    pack(store, |out| {
        let mut archive = tar::Writer::new(out);
        let mode = metadata.mode() & 0o777;
        let mut entry = tar::Entry::new(path.as_bytes().to_vec(), tar::Kind::File, mode);
        entry.size = metadata.len();
        archive.entry(&entry)?;
        let mut buffer = vec![0; BUFFER];
        let mut content = file.take(entry.size);
        loop {
            let n = content.read(&mut buffer).with_context(|| format!("read {source}"))?;
            if n == 0 {
                break;
            }
            archive.contents(&buffer[..n])?;
        }
        archive.finish().map(drop)
    })
}

/// The same image in one layer.
fn flatten(store: &Store, image: &Image, step: History) -> Result<Parts> {
    let home = store.staging_subdirectory()?;
    let root = lower::make_root(&home.path().join("rootfs"))?;
    layer::unpack_flat(store, image, root.as_fd())?;
    let (layer, diff_id) = pack(store, |out| super::export::whole_tree(root.as_fd(), out))?;
    home.close().context("remove the unpacked image")?;
    let mut parts = Parts::of(store, image)?;
    parts.layers.clear();
    parts.config.rootfs.diff_ids.clear();
    parts.config.history.clear();
    parts.add_layer(layer, diff_id, step);
    Ok(parts)
}

/// A compressed layer of what is written.
fn pack(
    store: &Store,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<(Descriptor, Digest)> {
    let gzip = GzipWriter::new(store.blob_writer()?).context("compress layer")?;
    let mut out = BufWriter::with_capacity(BUFFER, HashingWriter::new(gzip, Algorithm::Sha256));
    write(&mut out)?;
    let hashed =
        out.into_inner().map_err(std::io::IntoInnerError::into_error).context("write layer")?;
    let (gzip, diff_id, _) = hashed.finish();
    let (digest, size) = gzip.finish().context("compress layer")?.commit()?;
    Ok((Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size), diff_id))
}
