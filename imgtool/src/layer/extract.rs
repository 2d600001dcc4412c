//! Unpacks a layer's archive beneath a directory. Parents are opened by the kernel with that
//! directory as the root, entries are made relative to their parent's descriptor, and what stands
//! in the way of an entry is removed, never written through.

mod above;
mod contents;
mod directories;
mod markers;

use std::collections::{BTreeSet, HashSet};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

pub(crate) use self::above::OutOfOrder;
use self::above::{Above, Verdict};
use self::contents::write_contents;
use self::directories::{Directories, Directory};
use super::metadata::{Place, Setter};
use super::tar::{Entry, Kind, Reader};
use super::whiteout::{self, Meaning};
use crate::rooted;

/// What the directory shows, and so what a whiteout does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This layer alone, as a lower directory of overlayfs: whiteouts become what overlayfs
    /// takes for one.
    Overlay,
    /// All lower layers too: whiteouts remove what those gave.
    Flat,
    /// All higher layers, of which this one shows what they leave of it.
    Below,
    /// Something that is no image: the archive is no layer, so no name is a marker, and nothing
    /// that is there changes between a directory and something else.
    Copy,
}

/// What is to be known after a layer was unpacked.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// What could not be done and is no error.
    pub(crate) warnings: Vec<String>,
    /// Directories that entries lie in and that the archive did not describe, parents first; the
    /// root is the empty path. In an overlay a lower layer's one must lend them its metadata.
    pub(crate) implicit: BTreeSet<Vec<u8>>,
    /// Where whiteouts were left for overlayfs.
    pub(crate) whiteouts: Vec<Vec<u8>>,
}

/// The archive can't be unpacked by itself: it names something through a lower layer, such as the
/// target of a hard link or a directory behind a symbolic link.
#[derive(Debug, thiserror::Error)]
#[error("layer depends on lower layers at {0:?}")]
pub(crate) struct NeedsLower(pub(crate) String);

const NO_DEVICES: &str = "without root devices are left out";

/// Longest path of an entry; the kernel resolves no longer one.
pub(super) const MAX_PATH: usize = 4000;

/// Unpacks an archive, without compression, beneath `root`. The input is read to its end. If this
/// fails, what was unpacked so far is left behind for the caller to remove.
pub(crate) fn extract(
    input: &mut dyn BufRead,
    root: BorrowedFd<'_>,
    target: Target,
) -> Result<Summary> {
    extract_by(Setter::new(), input, root, target)
}

/// The same; `setter` says who may own the files.
pub(crate) fn extract_by(
    setter: Setter,
    input: &mut dyn BufRead,
    root: BorrowedFd<'_>,
    target: Target,
) -> Result<Summary> {
    let mut extractor = Extractor { setter, ..Extractor::new(root, target)? };
    extractor.summary.implicit.insert(Vec::new());
    extractor.archive(input)?;
    extractor.finish()
}

pub(super) struct Extractor<'a> {
    target: Target,
    /// What the layers above this one have, if there are any in the tree.
    above: Above,
    directories: Directories<'a>,
    setter: Setter,
    /// What this layer gave, by inode of the directory and name: whiteouts spare it. An inode is
    /// used again only by a directory that this layer makes, where all is this layer's anyway.
    made: HashSet<(u64, Vec<u8>)>,
    summary: Summary,
}

type Input<'i> = Reader<&'i mut dyn BufRead>;

impl<'a> Extractor<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, target: Target) -> Result<Self> {
        Ok(Self {
            target,
            above: Above::default(),
            directories: Directories::new(root, target)?,
            setter: Setter::new(),
            made: HashSet::new(),
            summary: Summary::default(),
        })
    }

    /// Unpacks an archive to its end.
    pub(super) fn archive(&mut self, input: &mut dyn BufRead) -> Result<()> {
        let mut reader = Reader::new(input);
        while let Some(entry) = reader.next_entry()? {
            self.entry(&entry, &mut |file| write_contents(file, &entry, &mut reader))
                .with_context(|| format!("unpack {:?}", String::from_utf8_lossy(&entry.path)))?;
        }
        self.above.next_layer()
    }

    /// Makes what an entry tells of; `write` fills a regular file.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        write: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let path = clean(&entry.path)?;
        if path.is_empty() {
            ensure!(entry.kind == Kind::Directory, "the root can't be anything but a directory");
            if self.target == Target::Below && !self.above.describes_root() {
                return Ok(());
            }
            let root = self.directories.root()?;
            return self.describe_directory(&root, b"", entry);
        }
        let (parent, name) = split(&path);
        let meaning = match self.target {
            Target::Copy => Meaning::Entry,
            _ => whiteout::meaning(parent, name)?,
        };
        if self.target == Target::Below {
            let link = (entry.kind == Kind::HardLink).then(|| clean(&entry.link)).transpose();
            let link = link.context("target of the link")?;
            match self.above.admit(meaning, &path, entry, link.as_deref())? {
                Verdict::Take => {}
                Verdict::Leave(shown) => return self.parent(&path[..shown]).map(drop),
                Verdict::Marker => return Ok(()),
            }
        }
        match meaning {
            Meaning::Ignore => return Ok(()),
            Meaning::Opaque => return self.opaque(parent),
            Meaning::Hide(name) => return self.hide(parent, name),
            Meaning::Entry => {}
        }
        match entry.kind {
            Kind::CharDevice if entry.device == (0, 0) => {
                ensure!(self.target != Target::Copy, "it would hide a file of the image");
                self.hide(parent, name)
            }
            Kind::Directory => self.directory(&path, entry),
            Kind::File => self.file(parent, name, entry, write),
            Kind::HardLink => self.hard_link(parent, name, entry),
            Kind::Symlink => self
                .node(parent, name, entry, &|parent| fs::symlinkat(&entry.link[..], parent, name)),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.special(parent, name, entry),
            Kind::Unknown(byte) => {
                self.setter.warn(format!("entries of type {byte:?} are left out"));
                Ok(())
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<Summary> {
        self.directories.finish(&mut self.setter)?;
        self.summary.warnings = self.setter.into_warnings();
        Ok(self.summary)
    }

    /// The directory at `path`, made if it is missing.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<Directory>> {
        let mut missing = Vec::new();
        let mut at = path;
        let mut directory = loop {
            if let Some(directory) = self.directories.existing(at)? {
                break directory;
            }
            ensure!(!at.is_empty(), "the root is missing");
            missing.push(at);
            at = split(at).0;
        };
        for path in missing.into_iter().rev() {
            directory = self.implied(&directory, path)?;
        }
        Ok(directory)
    }

    /// Makes the directory `path`, which the archive has not described.
    fn implied(&mut self, parent: &Directory, path: &[u8]) -> Result<Rc<Directory>> {
        let replaced = match rooted::try_stat(parent.fd(), split(path).1)? {
            None => false,
            Some(stat) => match rooted::file_type(&stat) {
                FileType::Symlink => bail!(
                    "its directory {:?} is a symbolic link that leads to none",
                    String::from_utf8_lossy(path)
                ),
                FileType::Directory => bail!("a directory appeared while unpacking"),
                _ => true,
            },
        };
        let directory = self.make_directory(parent, path, replaced)?;
        self.directories.describe(&directory, path, None);
        self.summary.implicit.insert(path.to_vec());
        Ok(directory)
    }

    fn directory(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let (parent, name) = split(path);
        let parent = self.parent(parent)?;
        let directory = match rooted::try_stat(parent.fd(), name)? {
            Some(stat) if rooted::file_type(&stat) == FileType::Directory => {
                self.made(&parent, name);
                self.directories.child(&parent, path)?
            }
            existing => self.make_directory(&parent, path, existing.is_some())?,
        };
        self.describe_directory(&directory, path, entry)
    }

    /// Makes the directory `path`. Where something else of this layer stood, it shows nothing of
    /// what lower layers have there.
    fn make_directory(
        &mut self,
        parent: &Directory,
        path: &[u8],
        replaces: bool,
    ) -> Result<Rc<Directory>> {
        let (_, name) = split(path);
        if replaces {
            ensure!(self.target != Target::Copy, "a directory can't replace what is none");
            self.remove(parent, name)?;
        }
        fs::mkdirat(parent.fd(), name, Mode::RWXU).context("make directory")?;
        self.made(parent, name);
        let directory = self.directories.child(parent, path)?;
        check_depth(directory.fd())?;
        if parent.has_default_acl() {
            Place::itself(directory.fd()).remove_inherited_acl()?;
        }
        if replaces && self.target == Target::Overlay {
            set_opaque(directory.fd())?;
        }
        Ok(directory)
    }

    fn describe_directory(
        &mut self,
        directory: &Directory,
        path: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        self.setter.replace_xattrs(Place::itself(directory.fd()), entry)?;
        self.directories.describe(directory, path, Some(entry));
        self.summary.implicit.remove(path);
        Ok(())
    }

    fn file(
        &mut self,
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        write: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let parent = self.parent(parent)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        // With the mode that it is to have, as far as the umask lets it: most need no other call
        // then. Attributes may be set by who may write.
        let mode = match entry.xattrs.is_empty() {
            true => Mode::from_raw_mode(entry.mode & 0o777),
            false => Mode::RUSR | Mode::WUSR,
        };
        let create = || fs::openat(parent.fd(), name, flags, mode);
        let file = match create() {
            Err(Errno::EXIST) => {
                self.remove(&parent, name)?;
                create()
            }
            file => file,
        };
        let file = file.context("create file")?;
        self.made(&parent, name);
        write(file.as_fd())?;
        let place = Place { parent: parent.fd(), name };
        if parent.has_default_acl() {
            place.remove_inherited_acl()?;
        }
        self.setter.all_of_open(file.as_fd(), place, entry)
    }

    /// Makes an entry without contents, in the place of whatever has its name.
    fn node(
        &mut self,
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        make: &dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<()> {
        let parent = self.parent(parent)?;
        let result = match make(parent.fd()) {
            Err(Errno::EXIST) => {
                self.remove(&parent, name)?;
                make(parent.fd())
            }
            result => result,
        };
        result.context("create")?;
        self.made(&parent, name);
        self.describe(&parent, name, entry)
    }

    fn special(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
        let kind = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && !self.setter.privileged() {
            self.setter.warn(NO_DEVICES.to_owned());
            return Ok(());
        }
        let device = fs::makedev(entry.device.0, entry.device.1);
        let made = self.node(parent, name, entry, &|parent| {
            fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        });
        match made {
            // The root of a user namespace may not make them either.
            Err(error) if error.downcast_ref() == Some(&Errno::PERM) && kind != FileType::Fifo => {
                self.setter.warn(NO_DEVICES.to_owned());
                Ok(())
            }
            made => made,
        }
    }

    fn hard_link(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
        let target = clean(&entry.link).context("target of the link")?;
        let (target_parent, target_name) = split(&target);
        let missing = || format!("no target {:?} of the link", String::from_utf8_lossy(&target));
        let found = match self.directories.existing(target_parent)? {
            Some(directory) => rooted::try_stat(directory.fd(), target_name)?
                .filter(|stat| !(self.target == Target::Overlay && whiteout::is_whiteout(stat)))
                .map(|stat| (directory, stat)),
            None => None,
        };
        let Some((target_parent, stat)) = found else {
            ensure!(self.target != Target::Overlay, NeedsLower(missing()));
            bail!(missing());
        };
        ensure!(rooted::file_type(&stat) != FileType::Directory, "hard link to a directory");
        let parent = self.parent(parent)?;
        if parent.inode() == target_parent.inode() && name == target_name {
            return Ok(());
        }
        let link =
            || fs::linkat(target_parent.fd(), target_name, parent.fd(), name, AtFlags::empty());
        let result = match link() {
            Err(Errno::EXIST) => {
                self.remove(&parent, name)?;
                link()
            }
            result => result,
        };
        result.context("make hard link")?;
        self.made(&parent, name);
        Ok(())
    }

    fn describe(&mut self, parent: &Directory, name: &[u8], entry: &Entry) -> Result<()> {
        let place = Place { parent: parent.fd(), name };
        if parent.has_default_acl() {
            place.remove_inherited_acl()?;
        }
        self.setter.all(place, entry)
    }

    fn remove(&mut self, parent: &Directory, name: &[u8]) -> Result<()> {
        let stat = rooted::stat(parent.fd(), name)?;
        let is_directory = rooted::file_type(&stat) == FileType::Directory;
        ensure!(
            self.target != Target::Copy || !is_directory,
            "a directory is replaced by nothing but a directory"
        );
        rooted::remove(parent.fd(), name).context("remove what stands in the way")?;
        if is_directory || rooted::file_type(&stat) == FileType::Symlink {
            self.directories.forget();
        }
        self.made.remove(&(parent.inode(), name.to_vec()));
        Ok(())
    }

    fn made(&mut self, parent: &Directory, name: &[u8]) {
        if self.target == Target::Flat {
            self.made.insert((parent.inode(), name.to_vec()));
        }
    }
}

/// Links let short paths lead on from deep directories, without end. A tree is taken as deep as the
/// kernel can still name its directories by a path.
fn check_depth(directory: BorrowedFd<'_>) -> Result<()> {
    match fs::readlink(rooted::proc_path(directory, b""), Vec::new()) {
        Err(Errno::NAMETOOLONG) => bail!("directories are nested too deeply"),
        path => path.map(drop).context("find the path of a directory"),
    }
}

fn set_opaque(directory: BorrowedFd<'_>) -> Result<()> {
    let path = rooted::proc_path(directory, b".");
    fs::lsetxattr(path, whiteout::opaque_xattr(), b"y", XattrFlags::empty())
        .context("mark directory as opaque")
}

/// The path of an entry from the root, without `.` and empty components. `..` is resolved as
/// text, and may not lead out.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    ensure!(path.len() <= MAX_PATH, "path is too long");
    ensure!(!path.contains(&0), "path with a zero byte");
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => ensure!(components.pop().is_some(), "path leads out of the root"),
            _ => components.push(component),
        }
    }
    Ok(components.join(&b'/'))
}

/// Cuts a cleaned path into the path of its directory and its name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

#[cfg(test)]
mod tests;
