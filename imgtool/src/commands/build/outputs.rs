//! `--output`: what becomes of the image beside, or in place of, standing in the store.

use std::io::{BufReader, BufWriter, IsTerminal, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Mode, OFlags};
use serde_json::json;

use crate::build::Built;
use crate::commands::{export, save};
use crate::layer::extract::{Target, extract_by};
use crate::layer::metadata::Setter;
use crate::layer::{self, lower};
use crate::manifest::{Descriptor, Document};
use crate::output;
use crate::reference::Reference;
use crate::store::{Selection, Store};
use crate::transport::writer::{Archive, Kind};
use crate::userns;

const BUFFER: usize = 256 << 10;

/// One output; a path that is absent is standard output.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Store,
    Directory(PathBuf),
    Tar(Option<PathBuf>),
    Archive(Form, Option<PathBuf>),
    /// Pushed, beside under its other names under this one.
    Registry(Option<String>),
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Oci,
    Docker,
}

/// `DIR`, `-`, or `type=TYPE,dest=FILE`.
pub(super) fn parse(word: &str) -> Result<Output> {
    if word == "-" {
        return Ok(Output::Tar(None));
    }
    if !word.contains('=') {
        return Ok(Output::Directory(word.into()));
    }
    let (mut kind, mut dest, mut name, mut push) = (None, None, None, false);
    for field in word.split(',') {
        match field.split_once('=') {
            Some(("type", value)) => kind = Some(value),
            Some(("dest", value)) => dest = Some(value),
            Some(("name", value)) => name = Some(value.to_owned()),
            Some(("push", value)) => push = value.parse().context("push is true or false")?,
            _ => bail!("{field:?} is none of type=, dest=, name= and push="),
        }
    }
    let file = dest.filter(|dest| *dest != "-").map(PathBuf::from);
    Ok(match (kind, dest) {
        (Some("local"), Some(_)) => Output::Directory(file.context("dest is no directory")?),
        (Some("local"), None) => bail!("type=local needs a dest"),
        (Some("tar"), _) => Output::Tar(file),
        (Some("oci"), _) => Output::Archive(Form::Oci, file),
        (Some("docker"), _) => Output::Archive(Form::Docker, file),
        (Some("registry"), None) => Output::Registry(name),
        (Some("image"), None) if push => Output::Registry(name),
        _ if name.is_some() || push => bail!("name= and push= are for type=registry and image"),
        (Some("image"), None) => Output::Store,
        (Some("cacheonly"), None) => Output::Nothing,
        _ => bail!("type is one of local, tar, oci, docker, image, registry and cacheonly"),
    })
}

impl Output {
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Tar(None) | Self::Archive(_, None))
    }

    pub(super) fn is_store(&self) -> bool {
        matches!(self, Self::Store)
    }

    pub(super) fn deliver(
        &self,
        store: &Store,
        built: &Built,
        name: Option<&Reference>,
    ) -> Result<()> {
        match self {
            Self::Store | Self::Registry(_) | Self::Nothing => Ok(()),
            Self::Directory(path) => {
                let write = || format!("write {}", path.display());
                let Document::Index(index) = store.document(&built.entry)? else {
                    return directory(store, &built.entry, path).with_context(write);
                };
                for entry in &index.manifests {
                    let platform = entry.platform.as_ref().context("an image has no platform")?;
                    let name = platform.to_string().replace('/', "_");
                    directory(store, entry, &path.join(name)).with_context(write)?;
                }
                Ok(())
            }
            Self::Tar(path) => {
                let is_index = matches!(store.document(&built.entry)?, Document::Index(_));
                ensure!(!is_index, "type=tar is for one platform: use type=local or oci");
                to(path.as_deref(), &|out| tree(store, &built.entry, out))
            }
            Self::Archive(form, path) => {
                let kind = match form {
                    Form::Oci => Kind::Oci,
                    Form::Docker => Kind::Docker,
                };
                let selection = Selection { name: name.cloned(), entry: built.entry.clone() };
                let archive = Archive::plan(store, &[selection], kind)?;
                to(path.as_deref(), &|mut out| archive.write(store, &mut out))
            }
        }
    }
}

fn to(path: Option<&Path>, write: &dyn Fn(&mut dyn Write) -> Result<()>) -> Result<()> {
    match path {
        Some(path) => save::write_file(path, |out| write(out))
            .with_context(|| format!("write {}", path.display())),
        None => {
            ensure!(
                !std::io::stdout().is_terminal(),
                "cowardly refusing to write an archive to a terminal: give a dest or redirect"
            );
            let mut out = BufWriter::with_capacity(BUFFER, output::stdout());
            write(&mut out)?;
            out.flush().context("write standard output")
        }
    }
}

/// The whole file system.
fn tree(store: &Store, entry: &Descriptor, out: &mut dyn Write) -> Result<()> {
    let home = store.staging_subdirectory()?;
    let root = lower::make_root(&home.path().join("rootfs"))?;
    layer::unpack_flat(store, &store.any_image(entry)?, root.as_fd())?;
    export::whole_tree(root.as_fd(), out)?;
    home.close().context("remove the unpacked image")
}

/// Into a directory that may have files already; what the image has replaces them.
fn directory(store: &Store, entry: &Descriptor, path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).context("create it")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).context("open it")?;
    let mut archive = tempfile::tempfile_in(store.staging_dir()).context("create a file")?;
    let mut out = BufWriter::with_capacity(BUFFER, &archive);
    tree(store, entry, &mut out)?;
    out.flush()?;
    drop(out);
    archive.rewind()?;
    let mut input = BufReader::with_capacity(BUFFER, archive);
    // The user's own files, though a namespace may hold ids to own them.
    let gives = userns::gives_files_away() && !userns::is_inner();
    let setter = if gives { Setter::new() } else { Setter::ours() };
    extract_by(setter, &mut input, root.as_fd(), Target::Copy).map(drop)
}

/// What buildx writes of a build.
pub(super) fn metadata(built: &Built, names: &[Reference]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut all = json!({
        "containerimage.config.digest": built.id.to_string(),
        "containerimage.digest": built.entry.digest.to_string(),
        "containerimage.descriptor": {
            "mediaType": built.entry.media_type,
            "digest": built.entry.digest.to_string(),
            "size": built.entry.size,
        },
    });
    if !names.is_empty() {
        all["image.name"] = json!(names.join(","));
    }
    format!("{all:#}\n")
}
