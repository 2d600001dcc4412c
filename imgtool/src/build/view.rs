//! What a stage's layers show together, without a mount and without unpacking what is packed: the
//! headers of a packed layer are read once.

use std::collections::{HashMap, HashSet};
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::paths::{self, Node};
use crate::layer::compress;
use crate::layer::extract::split;
use crate::layer::lower::open_directory;
use crate::layer::metadata::Place;
use crate::layer::record::read_entry;
use crate::layer::tar::{Entry, Kind, Reader};
use crate::layer::whiteout::{self, Meaning, is_whiteout, opaque_xattr};
use crate::manifest::Descriptor;
use crate::rooted::{self, Symlinks};
use crate::store::Store;

/// Users and groups are few.
const MAX_FILE: u64 = 1 << 20;

/// The layers of a stage, bottom first.
pub(crate) struct View {
    pub(crate) layers: Vec<Arc<Layer>>,
}

/// One layer.
pub(crate) enum Layer {
    /// Unpacked for overlayfs.
    Directory(OwnedFd),
    Packed(Index, Box<Descriptor>, Store),
}

/// The entries of a packed layer by path.
#[derive(Default)]
pub(crate) struct Index {
    entries: HashMap<Vec<u8>, Entry>,
    hidden: HashSet<Vec<u8>>,
    opaque: HashSet<Vec<u8>>,
}

enum Own {
    Nothing,
    Hidden,
    Entry(Box<Entry>),
}

impl View {
    /// What is at the path, from the root and with no link on the way. A directory has the metadata
    /// of its topmost part.
    pub(crate) fn get(&self, path: &[u8]) -> Result<Option<Entry>> {
        Ok(self.find(path)?.map(|(_, entry)| entry))
    }

    fn find(&self, path: &[u8]) -> Result<Option<(&Layer, Entry)>> {
        for layer in self.layers.iter().rev() {
            for above in paths::above(path) {
                match layer.own(above)? {
                    Own::Entry(entry) if entry.kind != Kind::Directory => return Ok(None),
                    Own::Hidden => return Ok(None),
                    Own::Entry(_) | Own::Nothing => {}
                }
            }
            match layer.own(path)? {
                Own::Entry(entry) => return Ok(Some((layer, *entry))),
                Own::Hidden => return Ok(None),
                Own::Nothing => {}
            }
            for above in paths::above(path).chain([&b""[..]]) {
                if layer.is_opaque(above)? {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// The path with its links resolved.
    pub(crate) fn resolve(&self, path: &[u8], follow: bool) -> Result<Vec<u8>> {
        paths::resolve(path, follow, &|path| {
            Ok(match self.get(path)? {
                None => Node::Nothing,
                Some(entry) if entry.kind == Kind::Directory => Node::Directory,
                Some(entry) if entry.kind == Kind::Symlink => Node::Link(entry.link),
                Some(_) => Node::Other,
            })
        })
    }

    /// A small regular file, as text; an absent one is empty.
    pub(crate) fn read(&self, path: &[u8]) -> Result<String> {
        let path = self.resolve(path, true)?;
        let Some((layer, entry)) = self.find(&path)? else { return Ok(String::new()) };
        let name = || format!("read {} of the image", String::from_utf8_lossy(&path));
        ensure!(entry.kind == Kind::File, "{}: it is not a regular file", name());
        ensure!(entry.size <= MAX_FILE, "{}: it is larger than {MAX_FILE} bytes", name());
        let bytes = layer.read(&path).with_context(name)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Layer {
    /// The layer as it lies in the store.
    pub(crate) fn open(
        store: &Store,
        layer: &Descriptor,
        unpacked: Option<&std::path::Path>,
    ) -> Result<Self> {
        if let Some(unpacked) = unpacked.filter(|path| path.is_dir()) {
            return Ok(Self::Directory(open_directory(unpacked)?));
        }
        let index = Index::read(store, layer)
            .with_context(|| format!("read the names in layer {}", layer.digest))?;
        Ok(Self::Packed(index, Box::new(layer.clone()), store.clone()))
    }

    fn own(&self, path: &[u8]) -> Result<Own> {
        match self {
            Self::Packed(index, ..) => Ok(match index.entries.get(path) {
                Some(entry) => Own::Entry(Box::new(entry.clone())),
                None if index.hidden.contains(path) => Own::Hidden,
                None => Own::Nothing,
            }),
            Self::Directory(root) => {
                let (parent, name) = split(path);
                let name = if name.is_empty() { b"." } else { name };
                let parent = match rooted::open_directory(root.as_fd(), parent, Symlinks::Refuse) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Own::Nothing),
                    parent => parent.context("open directory of a layer")?,
                };
                let Some(stat) = rooted::try_stat(parent.as_fd(), name)? else {
                    return Ok(Own::Nothing);
                };
                if is_whiteout(&stat) {
                    return Ok(Own::Hidden);
                }
                let entry = read_entry(Place { parent: parent.as_fd(), name }, &stat, path)?;
                Ok(entry.map_or(Own::Nothing, |entry| Own::Entry(Box::new(entry))))
            }
        }
    }

    fn is_opaque(&self, path: &[u8]) -> Result<bool> {
        match self {
            // One that was hidden and made anew shows nothing from below either.
            Self::Packed(index, ..) => {
                Ok(index.opaque.contains(path) || index.hidden.contains(path))
            }
            Self::Directory(root) => {
                match rooted::open_directory(root.as_fd(), path, Symlinks::Refuse) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
                    directory => {
                        let directory = directory.context("open directory of a layer")?;
                        let mark = Place::itself(directory.as_fd()).xattr(opaque_xattr())?;
                        Ok(mark.as_deref() == Some(b"y"))
                    }
                }
            }
        }
    }

    fn read(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Self::Directory(root) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = rooted::open(root.as_fd(), path, flags, Symlinks::Refuse)?;
                std::fs::File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
            }
            Self::Packed(_, layer, store) => {
                let plain = compress::reader(BufReader::new(store.open_blob(&layer.digest)?))?;
                let mut plain = BufReader::with_capacity(compress::BUFFER, plain);
                let mut reader = Reader::new(&mut plain);
                // The last entry of a name counts.
                while let Some(entry) = reader.next_entry()? {
                    if clean(&entry.path) == path && entry.kind == Kind::File {
                        bytes.clear();
                        reader.contents(|piece| {
                            bytes.extend_from_slice(piece);
                            Ok(())
                        })?;
                    }
                }
            }
        }
        Ok(bytes)
    }
}

impl Index {
    fn read(store: &Store, layer: &Descriptor) -> Result<Self> {
        let plain = compress::reader(BufReader::new(store.open_blob(&layer.digest)?))?;
        let mut plain = BufReader::with_capacity(compress::BUFFER, plain);
        let mut reader = Reader::new(&mut plain);
        let mut index = Self::default();
        while let Some(mut entry) = reader.next_entry()? {
            let path = clean(&entry.path);
            let (parent, name) = split(&path);
            match whiteout::meaning(parent, name)? {
                Meaning::Ignore => {}
                Meaning::Opaque => drop(index.opaque.insert(parent.to_vec())),
                Meaning::Hide(name) => {
                    index.hidden.insert(crate::layer::extract::join(parent, name));
                }
                Meaning::Entry => {
                    if entry.kind == Kind::HardLink {
                        // It is what its first name is.
                        let first = index.entries.get(&clean(&entry.link));
                        entry =
                            first.map_or(Entry { kind: Kind::File, ..entry.clone() }, |first| {
                                Entry { path: entry.path.clone(), ..first.clone() }
                            });
                    }
                    entry.path.clone_from(&path);
                    index.entries.insert(path, entry);
                }
            }
        }
        Ok(index)
    }
}

fn clean(path: &[u8]) -> Vec<u8> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.collect::<Vec<_>>().join(&b'/')
}
