//! The record of a plain tree: what every file looked like when the tree was made, so that a later
//! look tells what changed. The time of the last change of the inode, which no program can set,
//! stands for the contents.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FileType, Stat};

use super::metadata::{self, Place};
use super::tar::{Entry, Kind, Time};
use crate::digest::Digest;
use crate::rooted;

const HEADER: &str = "imgtool tree 1";

/// What is remembered of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// Its metadata, without path and attributes.
    pub(crate) entry: Entry,
    xattrs: String,
    inode: u64,
    changed: (i64, u64),
}

/// All files of a tree.
#[derive(Debug, Default)]
pub(crate) struct Record {
    files: HashMap<Vec<u8>, Remembered>,
    children: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    /// The paths of files that had several, by inode.
    linked: HashMap<u64, Vec<Vec<u8>>>,
}

impl Record {
    /// What was at `path`.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Remembered> {
        self.files.get(path)
    }

    /// The names that the directory at `path` had, sorted.
    pub(crate) fn children(&self, path: &[u8]) -> &[Vec<u8>] {
        self.children.get(path).map_or(&[], Vec::as_slice)
    }

    /// All paths that a file with several names had.
    pub(crate) fn linked(&self, inode: u64) -> &[Vec<u8>] {
        self.linked.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// Reads what `write` wrote.
    pub(crate) fn read(input: impl BufRead) -> Result<Self> {
        let mut lines = input.split(b'\n');
        let header = lines.next().transpose().context("read record of the tree")?;
        ensure!(header.as_deref() == Some(HEADER.as_bytes()), "not a record of a tree");
        let mut record = Self::default();
        for line in lines {
            let line = String::from_utf8(line.context("read record of the tree")?)?;
            let (path, file) = parse(&line).context("malformed record of the tree")?;
            if !path.is_empty() {
                let (parent, name) = super::extract::split(&path);
                record.children.entry(parent.to_vec()).or_default().push(name.to_vec());
            }
            if file.inode != 0 {
                record.linked.entry(file.inode).or_default().push(path.clone());
            }
            record.files.insert(path, file);
        }
        record.linked.retain(|_, paths| paths.len() > 1);
        for names in record.children.values_mut() {
            names.sort_unstable();
        }
        Ok(record)
    }
}

impl Remembered {
    fn new(mut entry: Entry, stat: &Stat) -> Self {
        let mut text = Vec::new();
        for (name, value) in &entry.xattrs {
            for part in [name, value] {
                text.extend_from_slice(&(part.len() as u64).to_le_bytes());
                text.extend_from_slice(part);
            }
        }
        let xattrs =
            if text.is_empty() { "-".to_owned() } else { Digest::of(&text).hex().to_owned() };
        entry.path.clear();
        entry.xattrs.clear();
        let inode = stat.st_ino;
        // Entries of a directory change its inode without changing what a layer says of it.
        let changed = match entry.kind {
            Kind::File => (stat.st_ctime, stat.st_ctime_nsec),
            _ => (0, 0),
        };
        let inode = if entry.kind == Kind::File { inode } else { 0 };
        Self { entry, xattrs, inode, changed }
    }

    /// Whether a file as it is now is the one that is remembered.
    pub(crate) fn is(&self, entry: &Entry, stat: &Stat) -> bool {
        *self == Self::new(entry.clone(), stat)
    }
}

/// Writes the record of the tree at `root`, parents first. The last step of making a tree: what
/// comes after it counts as a change.
pub(crate) fn write(root: BorrowedFd<'_>, output: &mut dyn Write) -> Result<()> {
    writeln!(output, "{HEADER}").context("write record of the tree")?;
    let place = Place::itself(root);
    let stat = place.stat().context("read root")?;
    if let Some(entry) = read_entry(place, &stat, b"")? {
        line(output, b"", &Remembered::new(entry, &stat))?;
    }
    write_beneath(rooted::reopen(root)?.as_fd(), b"", output)
}

fn write_beneath(directory: BorrowedFd<'_>, path: &[u8], output: &mut dyn Write) -> Result<()> {
    ensure!(path.len() <= super::extract::MAX_PATH, "directories are nested too deeply");
    for name in rooted::names(directory).context("read directory")? {
        let name = name.to_bytes();
        let path = super::extract::join(path, name);
        let place = Place { parent: directory, name };
        let stat = place.stat().context("read file")?;
        let Some(entry) = read_entry(place, &stat, &path)? else { continue };
        let is_directory = entry.kind == Kind::Directory;
        line(output, &path, &Remembered::new(entry, &stat))?;
        if is_directory {
            let child = rooted::open_child(directory, name)
                .with_context(|| format!("open {:?}", String::from_utf8_lossy(&path)))?;
            write_beneath(child.as_fd(), &path, output)?;
        }
    }
    Ok(())
}

fn line(output: &mut dyn Write, path: &[u8], file: &Remembered) -> Result<()> {
    let entry = &file.entry;
    writeln!(
        output,
        "{} {:o} {} {} {}.{:09} {} {}:{} {} {}.{:09} {} /{} {}",
        letter(entry.kind)?,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime.seconds,
        entry.mtime.nanoseconds,
        entry.size,
        entry.device.0,
        entry.device.1,
        file.inode,
        file.changed.0,
        file.changed.1,
        file.xattrs,
        escape(path),
        escape(&entry.link),
    )
    .context("write record of the tree")
}

fn parse(line: &str) -> Result<(Vec<u8>, Remembered)> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [kind, mode, uid, gid, mtime, size, device, inode, changed, xattrs, path, link] =
        fields[..]
    else {
        bail!("wrong number of fields");
    };
    let pair = |text: &str, at: char| -> Result<(i64, u64)> {
        let (first, second) = text.split_once(at).context("no pair")?;
        Ok((first.parse()?, second.parse()?))
    };
    let path = unescape(path.strip_prefix('/').context("no path")?)?;
    let mut entry = Entry::new(Vec::new(), kind_of(kind)?, u32::from_str_radix(mode, 8)?);
    (entry.uid, entry.gid, entry.size) = (uid.parse()?, gid.parse()?, size.parse()?);
    let (seconds, nanoseconds) = pair(mtime, '.')?;
    entry.mtime = Time { seconds, nanoseconds: u32::try_from(nanoseconds)? };
    let (major, minor) = pair(device, ':')?;
    entry.device = (u32::try_from(major)?, u32::try_from(minor)?);
    entry.link = unescape(link)?;
    let (inode, changed) = (inode.parse()?, pair(changed, '.')?);
    Ok((path, Remembered { entry, xattrs: xattrs.to_owned(), inode, changed }))
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::File, "f"),
    (Kind::Directory, "d"),
    (Kind::Symlink, "l"),
    (Kind::CharDevice, "c"),
    (Kind::BlockDevice, "b"),
    (Kind::Fifo, "p"),
];

fn letter(kind: Kind) -> Result<&'static str> {
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    found.map(|(_, letter)| *letter).context("file of unknown type")
}

fn kind_of(letter: &str) -> Result<Kind> {
    let found = KINDS.iter().find(|(_, known)| *known == letter);
    found.map(|(kind, _)| *kind).context("file of unknown type")
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'%' {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).context("malformed escape")?;
        bytes.push(u8::from_str_radix(digits, 16)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Ok(bytes)
}

/// A file on the disk as an archive's entry; `None` for a socket, which an archive can't hold.
pub(crate) fn read_entry(place: Place<'_>, stat: &Stat, path: &[u8]) -> Result<Option<Entry>> {
    let kind = match rooted::file_type(stat) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => return Ok(None),
    };
    let mut entry = Entry::new(path.to_vec(), kind, stat.st_mode & 0o7777);
    (entry.uid, entry.gid) = metadata::owner(place, stat).context("read owner")?;
    entry.mtime = metadata::mtime(stat);
    match kind {
        Kind::File => entry.size = u64::try_from(stat.st_size).context("size of file")?,
        Kind::Symlink => {
            let name = [place.name, b"\0"].concat();
            let name = CStr::from_bytes_with_nul(&name).context("name of file")?;
            entry.link = rooted::read_link(place.parent, name).context("read link")?;
        }
        Kind::CharDevice | Kind::BlockDevice => {
            let device = stat.st_rdev;
            entry.device = (rustix::fs::major(device), rustix::fs::minor(device));
        }
        _ => {}
    }
    entry.xattrs = place
        .xattrs()
        .with_context(|| format!("read attributes of {:?}", String::from_utf8_lossy(path)))?;
    Ok(Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_equals_its_record_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("a b\n%")).unwrap();
        std::fs::write(path("a b\n%/file"), "x").unwrap();
        symlink("to where", path("link")).unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        let mut text = Vec::new();
        write(root.as_fd(), &mut text).unwrap();
        let record = Record::read(&text[..]).unwrap();
        assert_eq!(record.children(b""), [b"a b\n%".to_vec(), b"link".to_vec()]);
        let is_same = |name: &[u8], path: &[u8]| {
            let parent = rooted::open_directory(root.as_fd(), path, rooted::Symlinks::Refuse);
            let parent = parent.unwrap();
            let place = Place { parent: parent.as_fd(), name };
            let stat = place.stat().unwrap();
            let full = super::super::extract::join(path, name);
            record.get(&full).unwrap().is(&read_entry(place, &stat, &full).unwrap().unwrap(), &stat)
        };
        assert!(is_same(b"link", b"") && is_same(b"file", b"a b\n%"));
        std::fs::write(path("a b\n%/file"), "y").unwrap();
        assert!(!is_same(b"file", b"a b\n%"));
    }
}
