//! What fuzzers feed: every reader of what others wrote, under a name. A reader may refuse; it may not
//! panic, hang, or read what it would not write. The corpus beneath `tests/fuzz/corpus` is replayed
//! by the unit tests; `tests/fuzz/README.md` says how to run them longer.

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

use std::ops::Range;

use tar::{Archive, EntryType};

use crate::layer::tar::{BLOCK, Kind, Reader};
use crate::{build, manifest, reference, transport};

use self::targets::Target;

pub(crate) const TARGETS: [(&str, Target); 7] = [
    ("tar", layer),
    ("dockerfile", build::fuzz::dockerfile),
    ("manifest", |data| {
        let _ = manifest::fuzz::document(data);
    }),
    ("image-config", |data| {
        let _ = manifest::fuzz::config(data);
    }),
    ("reference", |data| {
        let _ = reference::fuzz(data);
    }),
    ("challenge", |data| {
        let _ = transport::auth::fuzz::challenge(data);
    }),
    ("token", |data| {
        let _ = transport::auth::fuzz::token(data);
    }),
];

/// The target that the variable names.
#[cfg(fuzzing)]
pub(crate) fn chosen() -> Target {
    targets::chosen(&TARGETS)
}

/// Where the sum of a header stands in it, and where its kind.
const SUM: Range<usize> = 148..156;
const MAGIC: Range<usize> = 257..263;

/// A file of an archive, as both readers tell of it.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    path: Vec<u8>,
    contents: Vec<u8>,
    is_directory: bool,
}

/// Archives, beside the `tar` crate: where both read one whole, they read the same. Once as they are,
/// and once with sums that are right, which changes made at random are never.
fn layer(data: &[u8]) {
    let mut summed = data.to_vec();
    for block in summed.as_chunks_mut::<BLOCK>().0 {
        sum(block);
    }
    for data in [data, &summed] {
        let Ok(ours) = read_by_us(data) else { continue };
        let Some(theirs) = read_by_tar(data) else { continue };
        assert_eq!(ours, theirs);
    }
}

/// Gives what may be a header the sum that it ought to have.
fn sum(block: &mut [u8; BLOCK]) {
    if !block[MAGIC].starts_with(b"ustar") {
        return;
    }
    block[SUM].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn read_by_us(data: &[u8]) -> anyhow::Result<Vec<Member>> {
    let mut reader = Reader::new(data);
    let mut members = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut contents = Vec::new();
        reader.contents(|bytes| {
            contents.extend_from_slice(bytes);
            Ok(())
        })?;
        assert!(entry.mtime.nanoseconds < 1_000_000_000, "{entry:?}");
        let is_directory = entry.kind == Kind::Directory;
        members.push(Member { path: entry.path, contents, is_directory });
    }
    Ok(members)
}

/// `None` where it can't be compared: refused, or with headers that the crate gives as entries or
/// knows to be wrong about.
fn read_by_tar(data: &[u8]) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    let mut archive = Archive::new(data);
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        // Extended headers are read otherwise on purpose: see the head of `layer/tar/reader.rs`.
        let kind = entry.header().entry_type();
        let plain = matches!(
            kind,
            EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link
        );
        if !plain || entry.pax_extensions().ok()?.is_some() {
            return None;
        }
        // Directories and links have no contents to us, as to whatever writes and unpacks layers.
        if kind != EntryType::Regular && entry.size() != 0 {
            return None;
        }
        // To GNU tar ustar is ustar whatever its version, which the crate wants to be 00; and star's
        // prefix is shorter.
        let block = entry.header().as_bytes();
        let is_ustar = entry.header().as_ustar().is_some();
        if (block[MAGIC] == *b"ustar\0") != is_ustar || block.ends_with(b"tar\0") {
            return None;
        }
        let mut contents = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut contents).ok()?;
        // What follows a zero in a long name is no part of it to GNU tar and us.
        let path: Vec<u8> = entry.path_bytes().iter().copied().take_while(|b| *b != 0).collect();
        // Before ustar a trailing slash was all that told a directory; GNU tar goes by it still.
        let by_slash = kind == EntryType::Regular && path.ends_with(b"/");
        let is_directory = by_slash || kind == EntryType::Directory;
        members.push(Member { path, contents, is_directory });
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_fuzzers_is_read_or_refused() {
        targets::replay(&TARGETS);
    }
}
