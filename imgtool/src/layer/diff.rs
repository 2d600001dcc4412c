//! What a container changed, as a layer's archive: from the upper directory of its overlay, or
//! from its plain tree and the record of what that was. Entries come sorted, a directory before
//! what is in it; where something changed the directories above are named too.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, ensure};
use rustix::fs::{self, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::process::{getegid, geteuid};

use super::compress::BUFFER;
use super::extract::{MAX_PATH, join};
use super::lower::{Found, Lowers};
use super::metadata::Place;
use super::record::{Record, read_entry};
use super::tar::{Entry, Kind, Writer};
use super::whiteout::{self, OPAQUE, OPAQUE_XATTR, is_whiteout};
use crate::rooted;

/// What a tree is compared with.
pub(crate) enum Baseline<'a> {
    /// The tree is an upper directory above these layers.
    Layers(&'a Lowers),
    /// The tree is whole, and was like this.
    Record(&'a Record),
}

/// Writes the difference between the directory `root` and `baseline`; gives the number of entries.
///
/// `mount_points` are the paths, from the root and without a slash before them, that something is
/// mounted on in the container: what is there, and the directories made only to hold them, is no
/// content of the container.
pub(crate) fn diff<W: Write>(
    root: BorrowedFd<'_>,
    baseline: &Baseline<'_>,
    mount_points: &BTreeSet<Vec<u8>>,
    output: &mut Writer<W>,
) -> Result<u64> {
    let mut differ = Differ {
        baseline,
        mount_points,
        output,
        above: Vec::new(),
        links: HashMap::new(),
        count: 0,
        root_is: (geteuid(), getegid()),
    };
    let place = Place::itself(root);
    let stat = place.stat().context("read root")?;
    differ.directory(place, rooted::reopen(root)?.as_fd(), &stat, b"", false)?;
    Ok(differ.count)
}

struct Differ<'a, W> {
    baseline: &'a Baseline<'a>,
    mount_points: &'a BTreeSet<Vec<u8>>,
    output: &'a mut Writer<W>,
    /// Directories that are written only if something in them is.
    above: Vec<Entry>,
    /// The name under which a file with several was written.
    links: HashMap<(u64, u64), Vec<u8>>,
    count: u64,
    /// Who root in the container is: us. Without privileges its map has this one pair.
    root_is: (Uid, Gid),
}

type Names = BTreeSet<Vec<u8>>;

/// A directory as it is found.
struct Look {
    entry: Entry,
    before: Before,
    /// What overlayfs noted of it.
    mark: Option<Vec<u8>>,
    disk: Names,
}

/// What an error is about. Every error is given this once, not again for each directory above.
fn packing(path: &[u8]) -> String {
    format!("pack {:?}", String::from_utf8_lossy(path))
}

/// How a file relates to what was at its path before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The same in all that a layer tells.
    Same,
    /// A directory of which only the time differs, so its entries may.
    OtherTime(super::tar::Time),
    OtherDirectory,
    Other,
}

impl<W: Write> Differ<'_, W> {
    /// `hidden`: nothing of lower layers shows here.
    fn directory(
        &mut self,
        place: Place<'_>,
        directory: BorrowedFd<'_>,
        stat: &Stat,
        path: &[u8],
        hidden: bool,
    ) -> Result<()> {
        let looked = self.look(place, directory, stat, path, hidden);
        let looked = looked.with_context(|| packing(path))?;
        let Some(Look { mut entry, before, mark, disk }) = looked else { return Ok(()) };
        let opaque = mark.as_deref() == Some(b"y");
        let was_directory = !matches!(before, Before::Nothing | Before::Other);
        let holds_mount = self.holds_mount(path);
        entry.path.push(b'/');
        if path.is_empty() {
            entry.path.insert(0, b'.');
        }
        self.above.push(entry);
        let depth = self.above.len();
        let forced = match before {
            Before::Same => false,
            Before::OtherTime(_) => !holds_mount && !path.is_empty(),
            Before::OtherDirectory | Before::Other => true,
            Before::Nothing => !holds_mount,
        };
        if forced {
            self.write_above()?;
        }
        if opaque && was_directory && !hidden {
            self.marker(&join(path, OPAQUE))?;
        }
        let mut names = disk.clone();
        names.extend(self.recorded(path).iter().cloned());
        for name in names {
            if disk.contains(&name) {
                let hidden = hidden || opaque || !was_directory;
                self.child(directory, &name, path, hidden, mark.as_deref() == Some(b"x"))?;
            } else if !self.mount_points.contains(&join(path, &name)) {
                self.marker(&whiteout::marker(path, &name))?;
            }
        }
        // Children that were written took the directory with them.
        if self.above.len() == depth {
            self.above.pop();
        }
        Ok(())
    }

    /// What there is to know of a directory before its entries.
    fn look(
        &self,
        place: Place<'_>,
        directory: BorrowedFd<'_>,
        stat: &Stat,
        path: &[u8],
        hidden: bool,
    ) -> Result<Option<Look>> {
        ensure!(path.len() <= MAX_PATH, "directories are nested too deeply");
        let Some(mut entry) = read_entry(place, stat, path)? else { return Ok(None) };
        let before = self.before(&entry, stat, hidden)?;
        let mark = self.opaque(directory)?;
        let names = rooted::names(directory).context("read directory")?;
        let disk: Names = names.into_iter().map(CString::into_bytes).collect();
        if let Before::OtherTime(time) = before
            && self.holds_stub(path, &disk)?
        {
            // Making it changed the time; the container did not.
            entry.mtime = time;
        }
        Ok(Some(Look { entry, before, mark, disk }))
    }

    /// The names that a plain tree had here.
    fn recorded(&self, path: &[u8]) -> &[Vec<u8>] {
        match self.baseline {
            Baseline::Record(record) => record.children(path),
            Baseline::Layers(_) => &[],
        }
    }

    fn child(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        parent: &[u8],
        hidden: bool,
        marks_by_xattr: bool,
    ) -> Result<()> {
        let path = join(parent, name);
        if self.mount_points.contains(&path) {
            return Ok(());
        }
        let place = Place { parent: directory, name };
        let stat = place.stat().context("read file")?;
        if rooted::file_type(&stat) == FileType::Directory {
            let child = rooted::open_child(directory, name).with_context(|| packing(&path))?;
            return self.directory(place, child.as_fd(), &stat, &path, hidden);
        }
        let by_xattr = marks_by_xattr && place.xattr(b"trusted.overlay.whiteout")?.is_some();
        if is_whiteout(&stat) || by_xattr {
            return if hidden { Ok(()) } else { self.marker(&whiteout::marker(parent, name)) };
        }
        self.file(place, &stat, &path, hidden).with_context(|| packing(&path))
    }

    fn file(&mut self, place: Place<'_>, stat: &Stat, path: &[u8], hidden: bool) -> Result<()> {
        let Some(mut entry) = read_entry(place, stat, path)? else { return Ok(()) };
        if let Baseline::Layers(_) = self.baseline {
            let redirected = place.xattr(b"trusted.overlay.metacopy")?.is_some();
            ensure!(!redirected, "its contents are in a lower layer: mount with metacopy=off");
        }
        // A new name of an old file copies that up: the names belong together.
        if stat.st_nlink < 2 && self.before(&entry, stat, hidden)? == Before::Same {
            return Ok(());
        }
        if let Baseline::Record(_) = self.baseline
            && self.before(&entry, stat, hidden)? == Before::Same
        {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                entry.link.clone_from(first);
                entry.kind = Kind::HardLink;
                entry.xattrs.clear();
                return self.write(&entry);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        if entry.kind != Kind::File {
            return self.write(&entry);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(place.parent, place.name, flags, Mode::empty()).context("open")?;
        let opened = fs::fstat(&file)?;
        ensure!(
            (opened.st_dev, opened.st_ino) == (stat.st_dev, stat.st_ino),
            "file was replaced while it was read"
        );
        self.write(&entry)?;
        let mut contents = std::fs::File::from(file).take(entry.size);
        let mut buffer = vec![0; BUFFER.min(usize::try_from(entry.size.max(1))?)];
        loop {
            match contents.read(&mut buffer).context("read file")? {
                0 => return Ok(()),
                read => self.output.contents(&buffer[..read])?,
            }
        }
    }

    fn before(&self, entry: &Entry, stat: &Stat, hidden: bool) -> Result<Before> {
        if hidden {
            return Ok(Before::Nothing);
        }
        match self.baseline {
            Baseline::Record(record) => Ok(match record.get(&entry.path) {
                None => Before::Nothing,
                Some(known) if known.is(entry, stat) => Before::Same,
                Some(known) => {
                    let mut aged = entry.clone();
                    aged.mtime = known.entry.mtime;
                    differing(known.is(&aged, stat), &known.entry, entry.kind)
                }
            }),
            Baseline::Layers(lowers) => match lowers.find(&entry.path)? {
                Found::Nothing => Ok(Before::Nothing),
                Found::Directory(lower) => self.compare(Place::itself(lower.as_fd()), entry),
                Found::Other(_, parent, name) => {
                    self.compare(Place { parent: parent.as_fd(), name: &name }, entry)
                }
            },
        }
    }

    fn compare(&self, lower: Place<'_>, entry: &Entry) -> Result<Before> {
        let stat = lower.stat().context("read file of a lower layer")?;
        let Some(lower) = read_entry(lower, &stat, &entry.path)? else { return Ok(Before::Other) };
        if lower == *entry {
            return Ok(Before::Same);
        }
        let mut aged = entry.clone();
        aged.mtime = lower.mtime;
        Ok(differing(lower == aged, &lower, entry.kind))
    }

    /// Whether something is mounted somewhere beneath.
    fn holds_mount(&self, path: &[u8]) -> bool {
        let prefix = if path.is_empty() { Vec::new() } else { join(path, b"") };
        self.mount_points.range(prefix.clone()..).next().is_some_and(|p| p.starts_with(&prefix))
    }

    /// Whether a runtime made something here only to mount on it.
    fn holds_stub(&self, path: &[u8], disk: &Names) -> Result<bool> {
        for name in disk {
            let path = join(path, name);
            if self.mount_points.contains(&path)
                && match self.baseline {
                    Baseline::Record(record) => record.get(&path).is_none(),
                    Baseline::Layers(lowers) => matches!(lowers.find(&path)?, Found::Nothing),
                }
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn opaque(&self, directory: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
        if matches!(self.baseline, Baseline::Record(_)) {
            return Ok(None);
        }
        let place = Place::itself(directory);
        let redirected = place.xattr(b"trusted.overlay.redirect")?.is_some();
        ensure!(!redirected, "directory is in another place below: mount with redirect_dir=off");
        place.xattr(OPAQUE_XATTR)
    }

    fn marker(&mut self, path: &[u8]) -> Result<()> {
        self.write(&Entry::new(path.to_vec(), Kind::File, 0o644))
    }

    fn write(&mut self, entry: &Entry) -> Result<()> {
        self.write_above()?;
        self.write_one(entry)
    }

    fn write_above(&mut self) -> Result<()> {
        for entry in std::mem::take(&mut self.above) {
            self.write_one(&entry)?;
        }
        Ok(())
    }

    fn write_one(&mut self, entry: &Entry) -> Result<()> {
        self.count += 1;
        let (uid, gid) = self.root_is;
        if uid.is_root() {
            return self.output.entry(entry);
        }
        let mut entry = entry.clone();
        entry.uid = if entry.uid == uid.as_raw() { 0 } else { entry.uid };
        entry.gid = if entry.gid == gid.as_raw() { 0 } else { entry.gid };
        self.output.entry(&entry)
    }
}

fn differing(only_time: bool, before: &Entry, now: Kind) -> Before {
    match (before.kind, now) {
        (Kind::Directory, Kind::Directory) if only_time => Before::OtherTime(before.mtime),
        (Kind::Directory, Kind::Directory) => Before::OtherDirectory,
        _ => Before::Other,
    }
}

#[cfg(test)]
mod tests;
