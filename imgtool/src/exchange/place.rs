//! What a path beneath a root stands for, and where a copy of something goes.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::Root;
use crate::layer::extract::split;
use crate::layer::metadata;
use crate::rooted::{self, Symlinks};

/// Links that lead to links.
const MAX_LINKS: usize = 40;

/// A path, resolved up to its last component.
pub(crate) struct Place {
    directory: OwnedFd,
    /// `.` where the path is the directory itself.
    name: Vec<u8>,
    stat: Option<Stat>,
    ending: Ending,
    named: String,
}

/// What a path ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Name,
    /// It must be a directory.
    Slash,
    /// What is in the directory.
    Dot,
}

/// Something that is there.
pub(crate) struct Source {
    directory: OwnedFd,
    name: Vec<u8>,
    /// What it is called where it is copied to.
    base: Vec<u8>,
    is_directory: bool,
    contents_only: bool,
    pub(super) named: String,
}

/// Where an archive is unpacked, and under which name what is copied stands in it.
pub(crate) struct Destination {
    pub(super) directory: OwnedFd,
    pub(super) name: Vec<u8>,
}

impl Place {
    /// Follows every link, that of the last component too.
    pub(crate) fn find(root: &Root) -> Result<Self> {
        Self::resolve(root, true)
    }

    fn resolve(root: &Root, follow: bool) -> Result<Self> {
        let (mut path, ending) = clean(&root.path);
        for _ in 0..MAX_LINKS {
            let (parent, name) = split(&path);
            let opened = rooted::open_directory(root.fd.as_fd(), parent, Symlinks::InRoot);
            let directory = match opened {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    bail!("no such file or directory: {}", root.named)
                }
                opened => opened.with_context(|| format!("find {}", root.named))?,
            };
            let name = if name.is_empty() { b"." } else { name }.to_vec();
            let stat = rooted::try_stat(directory.as_fd(), &name)
                .with_context(|| format!("look at {}", root.named))?;
            let is_link = stat.as_ref().map(rooted::file_type) == Some(FileType::Symlink);
            if !is_link || !(follow || ending != Ending::Name) {
                let named = root.named.clone();
                return Ok(Self { directory, name, stat, ending, named });
            }
            let target = rooted::read_link(directory.as_fd(), &CString::new(name)?)
                .with_context(|| format!("read the link {}", root.named))?;
            path = beside(parent, &target);
        }
        bail!("too many links: {}", root.named)
    }

    fn is_directory(&self) -> bool {
        self.stat.as_ref().map(rooted::file_type) == Some(FileType::Directory)
    }

    fn open(&self) -> Result<OwnedFd> {
        rooted::open_directory(self.directory.as_fd(), &self.name, Symlinks::Refuse)
            .with_context(|| format!("open {}", self.named))
    }

    /// The directory that it is.
    pub(crate) fn directory(&self) -> Result<OwnedFd> {
        ensure!(self.stat.is_some(), "no such directory: {}", self.named);
        ensure!(self.is_directory(), "not a directory: {}", self.named);
        self.open()
    }

    /// Where `source` goes if it is copied here.
    pub(crate) fn for_source(self, source: &Source) -> Result<Destination> {
        if self.is_directory() {
            let name = if source.contents_only { b".".to_vec() } else { source.base.clone() };
            return Ok(Destination { directory: self.open()?, name });
        }
        let must_be_directory = self.ending != Ending::Name;
        if self.stat.is_some() {
            ensure!(!source.is_directory, "can't copy a directory to a file: {}", self.named);
            ensure!(!must_be_directory, "not a directory: {}", self.named);
        } else {
            ensure!(source.is_directory || !must_be_directory, "no such directory: {}", self.named);
        }
        Ok(Destination { directory: self.directory, name: self.name })
    }
}

/// The path that a link in the directory `parent` leads to. What the kernel is given to resolve never
/// ends with `..`: as a name of its own that could lead out of the root.
fn beside(parent: &[u8], target: &[u8]) -> Vec<u8> {
    let mut path =
        if target.starts_with(b"/") { target.to_vec() } else { [parent, b"/", target].concat() };
    while path.ends_with(b"/") {
        path.pop();
    }
    if path.ends_with(b"/..") {
        path.extend_from_slice(b"/.");
    }
    path
}

impl Source {
    /// Finds what a path means; a link as its last component is the link, unless it is followed.
    pub(crate) fn find(root: &Root, follow: bool) -> Result<Self> {
        let place = Place::resolve(root, follow)?;
        ensure!(place.stat.is_some(), "no such file or directory: {}", place.named);
        let is_directory = place.is_directory();
        ensure!(is_directory || place.ending == Ending::Name, "not a directory: {}", place.named);
        let (path, ending) = clean(&root.path);
        let base = split(&path).1.to_vec();
        Ok(Self {
            contents_only: ending == Ending::Dot || base.is_empty(),
            base,
            is_directory,
            directory: place.directory,
            name: place.name,
            named: place.named,
        })
    }

    pub(super) fn place(&self) -> metadata::Place<'_> {
        metadata::Place { parent: self.directory.as_fd(), name: &self.name }
    }

    /// What it is called in an archive of its own.
    pub(crate) fn archive_name(&self) -> &[u8] {
        if self.contents_only { b"." } else { &self.base }
    }
}

/// The path from the root without empty components, `.` and, resolved as text, `..`; and how it
/// ended.
pub(super) fn clean(path: &str) -> (Vec<u8>, Ending) {
    let ending = match path.rsplit('/').next() {
        Some("." | "..") => Ending::Dot,
        Some("") => Ending::Slash,
        _ => Ending::Name,
    };
    (rooted::as_text(path).into_bytes(), ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_their_ending_kept() {
        let cleaned = |path| {
            let (path, ending) = clean(path);
            (String::from_utf8(path).unwrap(), ending)
        };
        assert_eq!(cleaned("/a//b/../c"), ("a/c".to_owned(), Ending::Name));
        assert_eq!(cleaned("../../a/"), ("a".to_owned(), Ending::Slash));
        assert_eq!(cleaned("a/."), ("a".to_owned(), Ending::Dot));
        assert_eq!(cleaned("/"), (String::new(), Ending::Slash));
    }

    #[test]
    fn no_link_ends_in_a_name_that_leads_up() {
        assert_eq!(beside(b"a", b".."), b"a/../.");
        assert_eq!(beside(b"", b"../"), b"/../.");
        assert_eq!(beside(b"a", b"/.."), b"/../.");
        assert_eq!(beside(b"a", b"b/"), b"a/b");
        assert_eq!(beside(b"a", b"/"), b"");
    }
}
