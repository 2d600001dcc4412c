//! Files and directories as they are, in an archive: no layer, so nothing is left out and nothing
//! hidden.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use rustix::fs::{self, Mode, OFlags, Stat};

use super::compress::BUFFER;
use super::extract::{MAX_PATH, join};
use super::metadata::Place;
use super::record::read_entry;
use super::tar::{Entry, Kind, Writer};
use crate::rooted;

/// The names under which files with several were written.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<(u64, u64), Vec<u8>>);

impl Links {
    /// Makes `entry` a link to the first name of its file, if that was written already.
    pub(crate) fn is_another_name(&mut self, entry: &mut Entry, stat: &Stat) -> bool {
        if stat.st_nlink < 2 || entry.kind == Kind::Directory {
            return false;
        }
        let Some(first) = self.0.get(&(stat.st_dev, stat.st_ino)) else {
            self.0.insert((stat.st_dev, stat.st_ino), entry.path.clone());
            return false;
        };
        entry.link.clone_from(first);
        entry.kind = Kind::HardLink;
        // Docker gives a link its owner once more, by which the file loses its capabilities.
        entry.xattrs.retain(|(name, _)| name == b"security.capability");
        true
    }
}

/// Who the files in the archive belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Whom they belong to on the disk.
    Kept,
    /// The root of whoever unpacks it.
    Root,
}

/// Writes what is at `place` under the name `name`, and all beneath it. A name of `.` stands for a
/// directory's contents: the directory itself has no entry.
pub(crate) fn pack<W: Write>(
    place: Place<'_>,
    name: &[u8],
    owner: Owner,
    output: &mut Writer<W>,
) -> Result<()> {
    let mut packer = Packer { owner, links: Links::default(), output };
    packer.place(place, name)
}

struct Packer<'a, W> {
    owner: Owner,
    links: Links,
    output: &'a mut Writer<W>,
}

impl<W: Write> Packer<'_, W> {
    fn place(&mut self, place: Place<'_>, path: &[u8]) -> Result<()> {
        let read = || format!("read {:?}", String::from_utf8_lossy(path));
        let stat = place.stat().with_context(read)?;
        ensure!(path.len() <= MAX_PATH, "directories are nested too deeply");
        let Some(mut entry) = read_entry(place, &stat, path)? else { return Ok(()) };
        if self.owner == Owner::Root {
            (entry.uid, entry.gid) = (0, 0);
        }
        if entry.kind == Kind::Directory {
            let directory = match place.name {
                b"." => rooted::reopen(place.parent),
                name => rooted::open_child(place.parent, name),
            };
            let directory = directory.with_context(read)?;
            if path != b"." {
                entry.path.push(b'/');
                self.output.entry(&entry)?;
            }
            for name in rooted::names(&directory).with_context(read)? {
                let name = name.to_bytes();
                let path = if path == b"." { name.to_vec() } else { join(path, name) };
                self.place(Place { parent: directory.as_fd(), name }, &path)?;
            }
            return Ok(());
        }
        if self.links.is_another_name(&mut entry, &stat) || entry.kind != Kind::File {
            return self.output.entry(&entry);
        }
        let file = open(place, &stat).with_context(read)?;
        self.output.entry(&entry)?;
        contents(file, entry.size, self.output).with_context(read)
    }
}

/// Opens the regular file of which `stat` tells.
pub(crate) fn open(place: Place<'_>, stat: &Stat) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(place.parent, place.name, flags, Mode::empty()).context("open")?;
    let opened = fs::fstat(&file)?;
    ensure!(
        (opened.st_dev, opened.st_ino) == (stat.st_dev, stat.st_ino),
        "file was replaced while it was read"
    );
    Ok(file.into())
}

/// Writes the contents of a file of `size` bytes.
pub(crate) fn contents<W: Write>(file: File, size: u64, output: &mut Writer<W>) -> Result<()> {
    let mut contents = file.take(size);
    let mut buffer = vec![0; BUFFER.min(usize::try_from(size.max(1))?)];
    loop {
        match contents.read(&mut buffer).context("read file")? {
            0 => return Ok(()),
            read => output.contents(&buffer[..read])?,
        }
    }
}
