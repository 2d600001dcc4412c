//! Where `COPY` takes files from: a directory of the host, or the tree of a stage or an image. All
//! paths are opened beneath its root, by descriptor; links lead nowhere else.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::ignore::Ignore;
use super::paths::{self, Node};
use super::pattern::{Pattern, is_pattern};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::compress::BUFFER;
use crate::layer::extract::{join, split};
use crate::layer::lower::open_directory;
use crate::layer::metadata::{self, Place};
use crate::layer::record::read_entry;
use crate::layer::tar::{Entry, Kind};
use crate::rooted::{self, Symlinks};

/// A tree that files are taken from.
pub(crate) struct Origin {
    root: OwnedFd,
    /// What of it is as good as not there.
    ignore: Ignore,
    /// What it is, for messages.
    label: String,
    /// Whether its files have the owners that they have in an image.
    has_owners: bool,
    /// Keeps what it lies in.
    _holder: Option<tempfile::TempDir>,
}

/// One file that is to be copied.
pub(crate) struct Item {
    /// Where it goes, beneath the target.
    pub(crate) to: Vec<u8>,
    /// Its metadata; the path in it says nothing.
    pub(crate) entry: Entry,
    pub(crate) content: Content,
    /// By which further names of one file are known.
    pub(crate) stat: Option<Stat>,
}

/// What is in a file.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Nothing: it is no regular file.
    None,
    /// What the origin has at this path.
    File(Vec<u8>),
    Bytes(Vec<u8>),
    /// What was fetched for this step.
    Fetched(Arc<tempfile::NamedTempFile>),
}

/// Something that a source names.
pub(crate) struct Found {
    /// Where it is, without links.
    pub(crate) path: Vec<u8>,
    /// Where it was named, which a link may have led away from.
    pub(crate) named: Vec<u8>,
    pub(crate) is_directory: bool,
}

impl Origin {
    pub(crate) fn new(root: OwnedFd, ignore: Ignore, label: &str) -> Self {
        Self { root, ignore, label: label.to_owned(), has_owners: false, _holder: None }
    }

    /// The same; the directory goes when this does.
    pub(crate) fn held(root: OwnedFd, holder: tempfile::TempDir, label: &str) -> Self {
        Self { _holder: Some(holder), ..Self::new(root, Ignore::default(), label) }
    }

    /// The same, which keeps the directory until it goes.
    pub(crate) fn holding(self, holder: tempfile::TempDir) -> Self {
        Self { _holder: Some(holder), ..self }
    }

    /// The tree of a stage or an image.
    pub(crate) fn of_image(root: OwnedFd, holder: tempfile::TempDir, label: &str) -> Self {
        Self { has_owners: true, ..Self::held(root, holder, label) }
    }

    pub(crate) fn has_owners(&self) -> bool {
        self.has_owners
    }

    /// Whether all of it may be seen.
    pub(crate) fn is_whole(&self) -> bool {
        self.ignore.is_empty()
    }

    pub(crate) fn ignore(&self) -> &Ignore {
        &self.ignore
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What the source means: one path, or all that a pattern matches, which may be none.
    pub(crate) fn find(&self, source: &str) -> Result<Vec<Found>> {
        let clean = rooted::as_text(source);
        if !is_pattern(&clean) {
            return match self.look(clean.as_bytes())? {
                Some(found) => Ok(vec![found]),
                None => bail!("{:?}: not found in {}", format!("/{clean}"), self.label),
            };
        }
        let mut found = vec![Vec::new()];
        for component in clean.split('/') {
            let mut next = Vec::new();
            if !is_pattern(component) {
                next.extend(found.iter().map(|path| join(path, component.as_bytes())));
                found = next;
                continue;
            }
            let pattern = Pattern::parse(component, false)?;
            for directory in &found {
                for name in self.names(directory)? {
                    if pattern.matches(name.as_bytes()) {
                        next.push(join(directory, name.as_bytes()));
                    }
                }
            }
            found = next;
        }
        Ok(found
            .iter()
            .map(|path| self.look(path))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    fn look(&self, path: &[u8]) -> Result<Option<Found>> {
        let real = paths::resolve(path, true, &|path| self.node(path))?;
        let Some(stat) = self.stat(&real)? else { return Ok(None) };
        let is_directory = rooted::file_type(&stat) == FileType::Directory;
        let hidden = |path: &[u8]| self.ignore.leaves_out(path);
        // A directory that is left out may have something in it that is not.
        let deep = is_directory && !self.ignore.is_final();
        if !real.is_empty() && !deep && (hidden(path) || hidden(&real)) {
            return Ok(None);
        }
        Ok(Some(Found { path: real, named: path.to_vec(), is_directory }))
    }

    fn node(&self, path: &[u8]) -> Result<Node> {
        let Some(stat) = self.stat(path)? else { return Ok(Node::Nothing) };
        Ok(match rooted::file_type(&stat) {
            FileType::Directory => Node::Directory,
            FileType::Symlink => {
                let (parent, name) = split(path);
                let parent = rooted::open_directory(self.root(), parent, Symlinks::Refuse)?;
                Node::Link(rooted::read_link(parent.as_fd(), &CString::new(name)?)?)
            }
            _ => Node::Other,
        })
    }

    fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        let (parent, name) = split(path);
        let name = if name.is_empty() { b"." } else { name };
        match rooted::open_directory(self.root(), parent, Symlinks::Refuse) {
            Ok(parent) => Ok(rooted::try_stat(parent.as_fd(), name)?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno).context("open directory"),
        }
    }

    /// The names in what a path leads to, sorted; none where that is no directory.
    fn names(&self, path: &[u8]) -> Result<Vec<CString>> {
        let path = paths::resolve(path, true, &|path| self.node(path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match rooted::open(self.root(), &path, flags, Symlinks::Refuse) {
            Ok(directory) => Ok(rooted::names(directory)?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
            Err(errno) => Err(errno).context("read directory"),
        }
    }

    /// The file at `path` and, if it is a directory, all in it, to be copied to `to`. What `exclude`
    /// leaves out, by the path beneath `path`, is not taken.
    pub(crate) fn take(
        &self,
        path: &[u8],
        to: &[u8],
        exclude: &Ignore,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        let (parent, name) = split(path);
        let parent = rooted::open_directory(self.root(), parent, Symlinks::Refuse)
            .with_context(|| format!("open {}", self.shown(path)))?;
        let name = if name.is_empty() { b"." } else { name };
        self.walk(Place { parent: parent.as_fd(), name }, path, to, b"", exclude, items)
    }

    fn walk(
        &self,
        place: Place<'_>,
        path: &[u8],
        to: &[u8],
        beneath: &[u8],
        exclude: &Ignore,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        let read = || format!("read {}", self.shown(path));
        let stat = place.stat().with_context(read)?;
        let Some(entry) = read_entry(place, &stat, b"").with_context(read)? else {
            return Ok(());
        };
        let is_directory = entry.kind == Kind::Directory;
        let left_out = !path.is_empty() && self.ignore.leaves_out(path)
            || !beneath.is_empty() && exclude.leaves_out(beneath);
        if left_out && (!is_directory || (self.ignore.is_final() && exclude.is_final())) {
            return Ok(());
        }
        let content = match entry.kind {
            Kind::File => Content::File(path.to_vec()),
            _ => Content::None,
        };
        let at = items.len();
        items.push(Item { to: to.to_vec(), entry, content, stat: Some(stat) });
        if is_directory {
            ensure!(path.len() <= 4000, "directories are nested too deeply in {}", self.label);
            let directory = match place.name {
                b"." => rooted::reopen(place.parent),
                name => rooted::open_child(place.parent, name),
            };
            let directory = directory.with_context(read)?;
            for name in rooted::names(&directory).with_context(read)? {
                let name = name.to_bytes();
                self.walk(
                    Place { parent: directory.as_fd(), name },
                    &join(path, name),
                    &join(to, name),
                    &join(beneath, name),
                    exclude,
                    items,
                )?;
            }
            // It stands for what was taken in again, and there was nothing.
            if left_out && items.len() == at + 1 {
                items.truncate(at);
            }
        }
        Ok(())
    }

    /// Opens a regular file that was found.
    pub(crate) fn open(&self, path: &[u8]) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let open = || format!("open {}", self.shown(path));
        let file = rooted::open(self.root(), path, flags, Symlinks::Refuse).with_context(open)?;
        let file = File::from(file);
        ensure!(file.metadata()?.is_file(), "{}: it is no regular file any more", open());
        Ok(file)
    }

    /// Opens what a file is to hold.
    pub(crate) fn contents(&self, content: &Content) -> Result<File> {
        match content {
            Content::File(path) => self.open(path),
            Content::Fetched(file) => file.reopen().context("open what was fetched"),
            Content::None | Content::Bytes(_) => bail!("it is no file"),
        }
    }

    /// Writes files into an empty directory, with their modes and times, as ours.
    pub(crate) fn write(&self, items: &[Item], into: &Path) -> Result<()> {
        let root = open_directory(into)?;
        let mut directories = Vec::new();
        for item in items {
            let (parent, name) = split(&item.to);
            let parent = rooted::open_directory(root.as_fd(), parent, Symlinks::Refuse)?;
            let (entry, mode) = (&item.entry, Mode::from_raw_mode(0o700));
            let place = Place { parent: parent.as_fd(), name };
            match entry.kind {
                Kind::Directory => {
                    if !item.to.is_empty() {
                        fs::mkdirat(&parent, name, mode)?;
                    }
                    directories.push((item.to.clone(), entry));
                    continue;
                }
                Kind::Symlink => fs::symlinkat(&entry.link[..], &parent, name)?,
                Kind::File => {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    let mut file = File::from(fs::openat(&parent, name, flags, mode)?);
                    match &item.content {
                        content @ (Content::File(_) | Content::Fetched(_)) => {
                            std::io::copy(&mut self.contents(content)?, &mut file)?;
                        }
                        Content::Bytes(bytes) => file.write_all(bytes)?,
                        Content::None => {}
                    }
                    metadata::set_mode(place, entry.mode)?;
                }
                _ => continue,
            }
            metadata::set_mtime(place, entry.mtime)?;
        }
        for (path, entry) in directories.iter().rev() {
            let directory = rooted::open_directory(root.as_fd(), path, Symlinks::Refuse)?;
            let place = Place::itself(directory.as_fd());
            metadata::set_mode(place, entry.mode)?;
            metadata::set_mtime(place, entry.mtime)?;
        }
        Ok(())
    }

    /// A directory's metadata, for a parent that is copied along.
    pub(crate) fn directory(&self, path: &[u8]) -> Result<Option<Entry>> {
        let (parent, name) = split(path);
        let parent = match rooted::open_directory(self.root(), parent, Symlinks::Refuse) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno).context("open directory"),
        };
        let place = Place { parent: parent.as_fd(), name };
        match rooted::try_stat(parent.as_fd(), name)? {
            Some(stat) if rooted::file_type(&stat) == FileType::Directory => {
                read_entry(place, &stat, b"")
            }
            _ => Ok(None),
        }
    }

    /// What identifies the files: all of them but their times.
    pub(crate) fn digest(&self, items: &[Item]) -> Result<Digest> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut put = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for item in items {
            let entry = &item.entry;
            put(&item.to);
            put(format!(
                "{:?} {:o} {} {} {} {:?}",
                entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.device
            )
            .as_bytes());
            put(&entry.link);
            for (name, value) in &entry.xattrs {
                put(name);
                put(value);
            }
            match &item.content {
                Content::None => {}
                Content::Bytes(bytes) => put(bytes),
                Content::File(_) | Content::Fetched(_) => {
                    put(hash(self.contents(&item.content)?)?.hex().as_bytes());
                }
            }
        }
        Ok(hasher.finish())
    }

    fn shown(&self, path: &[u8]) -> String {
        format!("{:?} in {}", String::from_utf8_lossy(path), self.label)
    }
}

/// The digest of a file.
pub(crate) fn hash(mut file: File) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer).context("read file")? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
