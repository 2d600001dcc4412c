//! The directories that entries are made in: opened once and kept for the entries that follow,
//! and given their modes and times at the end, when nothing is made in them any more.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::super::metadata::{self, DEFAULT_ACL, Place, Setter, set_mode};
use super::super::tar::{Entry, Time};
use super::{NeedsLower, Target};
use crate::rooted::{self, Symlinks};

/// Descriptors kept open. Archives list a directory's entries together, so few are enough.
const MAX_OPEN: usize = 64;
/// Mode of a directory that no layer describes.
const IMPLICIT_MODE: u32 = 0o755;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    inode: u64,
    has_default_acl: bool,
}

impl Directory {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether new entries inherit an ACL, which then is to be removed.
    pub(super) fn has_default_acl(&self) -> bool {
        self.has_default_acl
    }
}

pub(super) struct Directories<'a> {
    root: BorrowedFd<'a>,
    target: Target,
    open: HashMap<Vec<u8>, Rc<Directory>>,
    /// What each directory is to look like at the end, by inode: two paths may lead to one.
    finals: HashMap<u64, Final>,
}

struct Final {
    path: Vec<u8>,
    mode: Option<u32>,
    mtime: Time,
    default_acl: Option<Vec<u8>>,
}

impl<'a> Directories<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, target: Target) -> Result<Self> {
        Ok(Self { root, target, open: HashMap::new(), finals: HashMap::new() })
    }

    pub(super) fn root(&mut self) -> Result<Rc<Directory>> {
        self.existing(b"")?.context("the root is missing")
    }

    /// The directory at `path`, or `None` if something on the way is missing or is no directory.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Option<Rc<Directory>>> {
        if let Some(directory) = self.open.get(path) {
            return Ok(Some(Rc::clone(directory)));
        }
        // A link of one layer leads into the tree of all of them, which an overlay's single layer
        // does not show.
        let symlinks = match self.target {
            Target::Overlay | Target::Below => Symlinks::Refuse,
            Target::Flat | Target::Copy => Symlinks::InRoot,
        };
        let mut opened = rooted::open_directory(self.root, path, symlinks);
        if matches!(opened, Err(Errno::ACCESS)) && !path.is_empty() {
            // Opening the directory above makes it passable for its owner.
            self.existing(super::split(path).0)?;
            opened = rooted::open_directory(self.root, path, symlinks);
        }
        match opened {
            Ok(fd) => self.keep(path, fd).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::LOOP) if self.target == Target::Overlay => {
                Err(NeedsLower(String::from_utf8_lossy(path).into_owned()).into())
            }
            Err(errno) => Err(errno)
                .with_context(|| format!("open directory {:?}", String::from_utf8_lossy(path))),
        }
    }

    /// Opens the directory `path`, which is in `parent` itself and no link.
    pub(super) fn child(&mut self, parent: &Directory, path: &[u8]) -> Result<Rc<Directory>> {
        let (_, name) = super::split(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(parent.fd(), name, flags, Mode::empty()).context("open directory")?;
        self.keep(path, fd)
    }

    fn keep(&mut self, path: &[u8], fd: OwnedFd) -> Result<Rc<Directory>> {
        let stat = fs::fstat(&fd)?;
        let place = Place::itself(fd.as_fd());
        let default_acl = place.xattr(DEFAULT_ACL)?;
        let mut mode = None;
        if stat.st_mode & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
            // Without privileges a lower layer's mode keeps its owner, us, out too.
            set_mode(place, stat.st_mode & 0o7777 | 0o700)?;
            mode = Some(stat.st_mode & 0o7777);
        }
        // What this layer does not describe keeps the time that it has before the first change.
        self.finals.entry(stat.st_ino).or_insert_with(|| Final {
            path: path.to_vec(),
            mode,
            mtime: metadata::mtime(&stat),
            default_acl: default_acl.clone(),
        });
        let directory =
            Rc::new(Directory { fd, inode: stat.st_ino, has_default_acl: default_acl.is_some() });
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(&directory));
        Ok(directory)
    }

    /// Records what a directory is to look like; one that nothing describes belongs to root, has
    /// the usual mode, and the time 0 so that equal layers give equal trees.
    pub(super) fn describe(&mut self, directory: &Directory, path: &[u8], entry: Option<&Entry>) {
        let acl = |entry: &Entry| {
            entry.xattrs.iter().find(|(name, _)| name == DEFAULT_ACL).map(|(_, acl)| acl.clone())
        };
        self.finals.insert(
            directory.inode,
            Final {
                path: path.to_vec(),
                mode: Some(entry.map_or(IMPLICIT_MODE, |entry| entry.mode)),
                mtime: entry.map_or_else(Time::default, |entry| entry.mtime),
                default_acl: entry.and_then(acl),
            },
        );
    }

    /// To be called when a path may lead elsewhere than before.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// Gives every directory its last metadata, deepest first, since a change in one changes the
    /// time of the one above.
    pub(super) fn finish(&mut self, setter: &mut Setter) -> Result<()> {
        self.open.clear();
        let mut finals: Vec<_> = self.finals.drain().collect();
        // Counted once for each: paths may be thousands of directories deep.
        finals.sort_by_cached_key(|(_, last)| {
            let names = last.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
            std::cmp::Reverse(names.count())
        });
        for (inode, last) in finals {
            let directory = match rooted::open_directory(self.root, &last.path, Symlinks::InRoot) {
                // Removed or replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                directory => directory?,
            };
            if fs::fstat(&directory)?.st_ino == inode {
                last.apply(Place::itself(directory.as_fd()), setter).with_context(|| {
                    format!("describe directory {:?}", String::from_utf8_lossy(&last.path))
                })?;
            }
        }
        Ok(())
    }
}

impl Final {
    fn apply(&self, place: Place<'_>, setter: &mut Setter) -> Result<()> {
        match &self.default_acl {
            Some(acl) => setter.xattr(place, DEFAULT_ACL, acl)?,
            None => place.remove_xattr(DEFAULT_ACL)?,
        }
        metadata::set_mtime(place, self.mtime)?;
        // Last, since it may shut the directory for its owner too.
        self.mode.map_or(Ok(()), |mode| set_mode(place, mode))
    }
}
