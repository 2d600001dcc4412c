//! Files between the host and a bundle. Both sides are a root, held by descriptor, and a path that
//! the kernel resolves beneath it; what is copied goes as an archive through a pipe.

mod place;

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags};

pub(crate) use self::place::{Destination, Place, Source};
use crate::bundle;
use crate::commit::tree::bundle_config;
use crate::layer::extract::{Target, extract};
use crate::layer::lower::open_directory;
use crate::layer::pack::{self, Owner};
use crate::layer::tar::Writer;
use crate::store::Store;

const BUFFER: usize = 256 << 10;

/// One end of a copy, as the user wrote it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A path on the host.
    Host(String),
    /// The directory of a bundle and a path in it.
    Bundle(PathBuf, String),
    /// Standard input or output.
    Stream,
}

/// A root directory and a path from there.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    /// As the user wrote it, for messages.
    named: String,
    path: String,
}

impl Side {
    /// Reads `BUNDLE:PATH`, a path or `-`. A path with a colon is told from a bundle as docker does
    /// it: it begins with a slash or a dot, unless what stands before the colon is a bundle.
    pub(crate) fn parse(store: &Store, word: &str) -> Result<Self> {
        if word == "-" {
            return Ok(Self::Stream);
        }
        for (colon, _) in word.match_indices(':') {
            let (before, after) = (&word[..colon], &word[colon + 1..]);
            if bundle::is_bundle(Path::new(before)) {
                return Ok(Self::Bundle(bundle::locate(store, before)?, after.to_owned()));
            }
        }
        match word.split_once(':') {
            Some((bundle, path)) if !word.starts_with(['/', '.']) => {
                Ok(Self::Bundle(bundle::locate(store, bundle)?, path.to_owned()))
            }
            _ => Ok(Self::Host(word.to_owned())),
        }
    }

    /// Opens the root; `None` for a stream. An overlay is mounted for it; of a bundle that runs it
    /// is the root that the container sees, with what is mounted there.
    pub(crate) fn root(&self, store: &Store) -> Result<Option<Root>> {
        match self {
            Self::Stream => Ok(None),
            Self::Host(path) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = rustix::fs::open("/", flags, Mode::empty()).context("open /")?;
                let cwd = std::env::current_dir().context("find the current directory")?;
                let cwd = cwd.to_str().context("the current directory's name is not UTF-8")?;
                let full =
                    if path.starts_with('/') { path.clone() } else { format!("{cwd}/{path}") };
                Ok(Some(Root { fd, named: path.clone(), path: full }))
            }
            Self::Bundle(directory, path) => {
                let root = |fd| {
                    let named = format!("{path} in {}", directory.display());
                    Some(Root { fd, named, path: path.clone() })
                };
                // Without privileges another user namespace's root can't be opened.
                if rustix::process::geteuid().is_root()
                    && let Some(container) = bundle::running(directory).first()
                    && let Some(fd) = container.root_directory()?
                {
                    return Ok(root(fd));
                }
                refuse_mounts(directory, path)?;
                Ok(root(open_directory(&bundle::mount(store, directory)?)?))
            }
        }
    }
}

/// What a container has mounted is no part of the root file system of a bundle that does not run.
fn refuse_mounts(directory: &Path, path: &str) -> Result<()> {
    let document = bundle_config(directory)?;
    let path = place::clean(path).0;
    for mount in document["mounts"].as_array().into_iter().flatten() {
        let target = place::clean(mount["destination"].as_str().unwrap_or_default()).0;
        let inside = path
            .strip_prefix(&target[..])
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        if inside && !target.is_empty() {
            bail!(
                "/{} is a mount of {}, there only while the container runs",
                String::from_utf8_lossy(&target),
                mount["source"].as_str().unwrap_or("nothing")
            );
        }
    }
    Ok(())
}

/// Copies through a pipe; gives what could not be done and is no error.
pub(crate) fn copy(
    source: &Source,
    destination: &Destination,
    owner: Owner,
) -> Result<Vec<String>> {
    let (reader, writer) = io::pipe().context("make a pipe")?;
    thread::scope(|scope| {
        let packing = thread::Builder::new().stack_size(8 << 20).spawn_scoped(scope, move || {
            let mut writer = BufWriter::with_capacity(BUFFER, writer);
            pack(source, &destination.name, owner, &mut writer)?;
            writer.flush().context("write to the pipe")
        });
        let packing = packing.context("start a thread")?;
        let mut reader = BufReader::with_capacity(BUFFER, reader);
        let unpacked = unpack(&mut reader, &destination.directory);
        drop(reader);
        let packed = packing.join().map_err(|_| anyhow!("packing stopped"))?;
        match packed {
            // Only because the other end failed, which says why.
            Err(error) if unpacked.is_err() && is_broken_pipe(&error) => unpacked,
            Err(error) => Err(error),
            Ok(()) => unpacked,
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes the source as an archive in which it is called `name`.
pub(crate) fn pack(
    source: &Source,
    name: &[u8],
    owner: Owner,
    output: &mut impl Write,
) -> Result<()> {
    let mut archive = Writer::new(output);
    pack::pack(source.place(), name, owner, &mut archive)
        .with_context(|| format!("copy {}", source.named))?;
    archive.finish().map(drop)
}

/// Unpacks an archive in a directory.
pub(crate) fn unpack(input: &mut dyn BufRead, directory: &OwnedFd) -> Result<Vec<String>> {
    Ok(extract(input, directory.as_fd(), Target::Copy)?.warnings)
}
