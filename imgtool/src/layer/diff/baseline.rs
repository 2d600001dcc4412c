//! What a tree is compared with, and how a file of it compares.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::fs::Stat;

use crate::layer::compress::BUFFER;
use crate::layer::lower::{Found, Lowers};
use crate::layer::metadata::Place;
use crate::layer::pack;
use crate::layer::record::{Record, read_entry};
use crate::layer::tar::{Entry, Kind, Time};

/// What a tree is compared with.
pub(crate) enum Baseline<'a> {
    /// The tree is an upper directory above these layers.
    Layers(&'a Lowers),
    /// The tree is whole, and was like this.
    Record(&'a Record),
}

/// How a file relates to what was at its path before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// The same in all that a layer tells.
    Same,
    /// A directory of which only the time differs, so its entries may.
    OtherTime(Time),
    OtherDirectory,
    Other,
}

impl Baseline<'_> {
    /// What was at the path of `entry`, which is at `place` now. `hidden`: nothing of lower layers
    /// shows there.
    pub(super) fn before(
        &self,
        place: Place<'_>,
        entry: &Entry,
        stat: &Stat,
        hidden: bool,
    ) -> Result<Before> {
        if hidden {
            return Ok(Before::Nothing);
        }
        match self {
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
                Found::Directory(lower) => compare(Place::itself(lower.as_fd()), entry),
                Found::Other(below, parent, name) => {
                    let lower = Place { parent: parent.as_fd(), name: &name };
                    match compare(lower, entry)? {
                        // A copy of a file with several names is none of them any more.
                        Before::Same
                            if entry.kind == Kind::File
                                && (below.st_nlink > 1 || !equal(lower, &below, place, stat)?) =>
                        {
                            Ok(Before::Other)
                        }
                        before => Ok(before),
                    }
                }
            },
        }
    }
}

fn compare(lower: Place<'_>, entry: &Entry) -> Result<Before> {
    let stat = lower.stat().context("read file of a lower layer")?;
    let Some(lower) = read_entry(lower, &stat, &entry.path)? else { return Ok(Before::Other) };
    if lower == *entry {
        return Ok(Before::Same);
    }
    let mut aged = entry.clone();
    aged.mtime = lower.mtime;
    Ok(differing(lower == aged, &lower, entry.kind))
}

/// Whether two files of one size have the same contents: times can be set to what they were. A file
/// comes here that was copied up and then changed in nothing that shows, so seldom.
fn equal(a: Place<'_>, a_stat: &Stat, b: Place<'_>, b_stat: &Stat) -> Result<bool> {
    let open =
        |place, stat| pack::open(place, stat).map(|file| BufReader::with_capacity(BUFFER, file));
    let (mut a, mut b) = (open(a, a_stat)?, open(b, b_stat)?);
    loop {
        let (left, right) =
            (a.fill_buf().context("read file")?, b.fill_buf().context("read file")?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        a.consume(length);
        b.consume(length);
    }
}

fn differing(only_time: bool, before: &Entry, now: Kind) -> Before {
    match (before.kind, now) {
        (Kind::Directory, Kind::Directory) if only_time => Before::OtherTime(before.mtime),
        (Kind::Directory, Kind::Directory) => Before::OtherDirectory,
        _ => Before::Other,
    }
}
