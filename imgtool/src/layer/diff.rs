//! What a container changed, as a layer's archive: from the upper directory of its overlay, or
//! from its plain tree and the record of what that was. Entries come sorted, a directory before
//! what is in it; where something changed the directories above are named too.

mod baseline;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FileType, Stat};

pub(crate) use self::baseline::Baseline;
use self::baseline::Before;
use super::extract::{MAX_PATH, join, split};
use super::lower::Found;
use super::metadata::Place;
use super::pack::{self, Links};
use super::record::read_entry;
use super::tar::{Entry, Kind, Time, Writer};
use super::whiteout::{self, OPAQUE, is_whiteout, opaque_xattr};
use crate::rooted::{self, Symlinks};

/// How a path differs from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Changed,
    Deleted,
}

/// Differing paths from the root, without a slash before them.
pub(crate) type Changes = BTreeMap<Vec<u8>, Change>;

/// Where a difference goes.
enum Output<'a, W> {
    Layer(&'a mut Writer<W>),
    List(&'a mut Changes),
}

/// Writes the difference between the directory `root` and `baseline`; gives the number of entries.
/// Files newer than `newest`, in seconds since 1970, are given that time.
///
/// `mount_points` are the paths, from the root and without a slash before them, that something is
/// mounted on in the container: what is there, and the directories made only to hold them, is no
/// content of the container.
pub(crate) fn diff<W: Write>(
    root: BorrowedFd<'_>,
    baseline: &Baseline<'_>,
    mount_points: &BTreeSet<Vec<u8>>,
    newest: Option<i64>,
    output: &mut Writer<W>,
) -> Result<u64> {
    Differ::new(root, baseline, mount_points, newest, Output::Layer(output)).run()
}

/// Lists the same difference, by path. As `docker diff` has it, all directories above something
/// that differs have changed, and one of which only the time differs has not.
pub(crate) fn changes(
    root: BorrowedFd<'_>,
    baseline: &Baseline<'_>,
    mount_points: &BTreeSet<Vec<u8>>,
) -> Result<Changes> {
    let mut changes = Changes::new();
    let output: Output<'_, io::Sink> = Output::List(&mut changes);
    Differ::new(root, baseline, mount_points, None, output).run()?;
    Ok(changes)
}

struct Differ<'a, W> {
    root: BorrowedFd<'a>,
    baseline: &'a Baseline<'a>,
    mount_points: &'a BTreeSet<Vec<u8>>,
    newest: Option<i64>,
    output: Output<'a, W>,
    /// Directories that are written only if something in them is.
    above: Vec<Entry>,
    links: Links,
    /// What was found of files with several names, by inode.
    other_names: HashMap<u64, bool>,
    count: u64,
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

impl<'a, W: Write> Differ<'a, W> {
    fn new(
        root: BorrowedFd<'a>,
        baseline: &'a Baseline<'a>,
        mount_points: &'a BTreeSet<Vec<u8>>,
        newest: Option<i64>,
        output: Output<'a, W>,
    ) -> Self {
        Self {
            root,
            baseline,
            mount_points,
            newest,
            output,
            above: Vec::new(),
            links: Links::default(),
            other_names: HashMap::new(),
            count: 0,
        }
    }

    fn run(mut self) -> Result<u64> {
        let root = self.root;
        let place = Place::itself(root);
        let stat = place.stat().context("read root")?;
        self.directory(place, rooted::reopen(root)?.as_fd(), &stat, b"", false)?;
        Ok(self.count)
    }

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
            self.write_above(before)?;
        }
        if opaque && was_directory && !hidden {
            self.marker(path, OPAQUE)?;
        }
        let mut names = disk.clone();
        names.extend(self.gone(path, opaque)?);
        for name in names {
            if disk.contains(&name) {
                // A list tells what of a lower layer's came back.
                let hidden = hidden || !was_directory || opaque && !self.lists();
                self.child(directory, &name, path, hidden, mark.as_deref() == Some(b"x"))?;
            } else if !self.mount_points.contains(&join(path, &name)) {
                self.delete(path, &name)?;
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
        let before = self.baseline.before(place, &entry, stat, hidden)?;
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

    /// The names there were here, where there is no whiteout for each that is gone.
    fn gone(&self, path: &[u8], opaque: bool) -> Result<Vec<Vec<u8>>> {
        match self.baseline {
            Baseline::Record(record) => Ok(record.children(path).to_vec()),
            Baseline::Layers(lowers) if opaque && self.lists() => lowers.names(path),
            Baseline::Layers(_) => Ok(Vec::new()),
        }
    }

    fn lists(&self) -> bool {
        matches!(self.output, Output::List(_))
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
            return if hidden { Ok(()) } else { self.delete(parent, name) };
        }
        self.file(place, &stat, &path, hidden).with_context(|| packing(&path))
    }

    fn file(&mut self, place: Place<'_>, stat: &Stat, path: &[u8], hidden: bool) -> Result<()> {
        let Some(mut entry) = read_entry(place, stat, path)? else { return Ok(()) };
        if let Baseline::Layers(_) = self.baseline {
            let redirected = place.xattr(b"trusted.overlay.metacopy")?.is_some();
            ensure!(!redirected, "its contents are in a lower layer: mount with metacopy=off");
        }
        let mut before = self.baseline.before(place, &entry, stat, hidden)?;
        if before == Before::Same && self.has_other_names(stat)? {
            before = Before::Other;
        }
        // A new name of an old file copies that up: in an upper directory the names belong together.
        let stands_alone = stat.st_nlink < 2 || matches!(self.baseline, Baseline::Record(_));
        if before == Before::Same && stands_alone {
            return Ok(());
        }
        if self.lists() {
            return self.note(path, before);
        }
        if self.links.is_another_name(&mut entry, stat) {
            return self.write(&entry);
        }
        let opened = (entry.kind == Kind::File).then(|| pack::open(place, stat)).transpose()?;
        self.write(&entry)?;
        match (opened, &mut self.output) {
            (Some(file), Output::Layer(output)) => pack::contents(file, entry.size, output),
            _ => Ok(()),
        }
    }

    /// Whether a file of a plain tree has got or lost names, of which a move of the directory that they
    /// are in tells nothing in the file itself.
    fn has_other_names(&mut self, stat: &Stat) -> Result<bool> {
        let Baseline::Record(record) = self.baseline else { return Ok(false) };
        let known = record.linked(stat.st_ino);
        if stat.st_nlink < 2 || known.is_empty() {
            return Ok(false);
        }
        if let Some(answer) = self.other_names.get(&stat.st_ino) {
            return Ok(*answer);
        }
        let mut answer = usize::try_from(stat.st_nlink) != Ok(known.len());
        for path in known {
            let (parent, name) = split(path);
            let found = match rooted::open_directory(self.root, parent, Symlinks::Refuse) {
                Ok(parent) => rooted::try_stat(parent.as_fd(), name)?,
                Err(_) => None,
            };
            answer |= found.is_none_or(|found| found.st_ino != stat.st_ino);
        }
        self.other_names.insert(stat.st_ino, answer);
        Ok(answer)
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
        let redirected = place.xattr(b"trusted.overlay.redirect")?.is_some()
            || place.xattr(b"user.overlay.redirect")?.is_some();
        ensure!(!redirected, "directory is in another place below: mount with redirect_dir=off");
        place.xattr(opaque_xattr())
    }

    fn delete(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        match (&mut self.output, self.baseline) {
            (Output::Layer(_), _) => self.marker(parent, &whiteout::hiding(name)),
            (Output::List(changes), baseline) => {
                let path = join(parent, name);
                let was_there = match baseline {
                    Baseline::Record(_) => true,
                    Baseline::Layers(lowers) => !matches!(lowers.find(&path)?, Found::Nothing),
                };
                if was_there {
                    list(changes, &path, Change::Deleted);
                }
                Ok(())
            }
        }
    }

    fn marker(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        self.write(&Entry::new(join(parent, name), Kind::File, 0o644))
    }

    fn note(&mut self, path: &[u8], before: Before) -> Result<()> {
        if let Output::List(changes) = &mut self.output {
            match before {
                Before::Same | Before::OtherTime(_) => {}
                Before::Nothing => list(changes, path, Change::Added),
                _ => list(changes, path, Change::Changed),
            }
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> Result<()> {
        if let Output::Layer(_) = self.output {
            self.write_above(Before::Same)?;
        }
        self.write_one(entry)
    }

    /// Writes the directories that what follows is in; a list gets the last one.
    fn write_above(&mut self, before: Before) -> Result<()> {
        if self.lists() {
            let last = self.above.last().map(|entry| entry.path.clone()).unwrap_or_default();
            return self.note(last.strip_suffix(b"/").unwrap_or_default(), before);
        }
        for entry in std::mem::take(&mut self.above) {
            self.write_one(&entry)?;
        }
        Ok(())
    }

    fn write_one(&mut self, entry: &Entry) -> Result<()> {
        let Output::Layer(output) = &mut self.output else { return Ok(()) };
        self.count += 1;
        let mut entry = entry.clone();
        if let Some(newest) = self.newest.map(|seconds| Time { seconds, nanoseconds: 0 }) {
            entry.mtime = entry.mtime.min(newest);
        }
        output.entry(&entry)
    }
}

/// What differs changes the directories that it is in, but for the root, which nobody lists.
fn list(changes: &mut Changes, path: &[u8], change: Change) {
    if path.is_empty() || path == b"." {
        return;
    }
    let mut above = split(path).0;
    while !above.is_empty() {
        changes.entry(above.to_vec()).or_insert(Change::Changed);
        above = split(above).0;
    }
    changes.insert(path.to_vec(), change);
}

#[cfg(test)]
mod tests;
