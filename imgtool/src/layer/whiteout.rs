//! Whiteouts, both ways: marker entries in an archive, and what overlayfs keeps in their place.

use anyhow::{Result, bail};
use rustix::fs::{FileType, Stat};

use crate::{rooted, userns};

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
/// The name of the marker that hides all that lower layers have in its directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// The attribute, with the value `y`, by which overlayfs knows such a directory.
pub(crate) fn opaque_xattr() -> &'static [u8] {
    // What begins with "trusted." is for the host's root alone.
    if userns::is_inner() { b"user.overlay.opaque" } else { b"trusted.overlay.opaque" }
}

/// What the name of an archive's entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// It is no marker.
    Entry,
    /// Hides the entry of this name in lower layers.
    Hide(&'a [u8]),
    /// Hides all entries of lower layers in its directory.
    Opaque,
    /// Bookkeeping of aufs that some archives still carry.
    Ignore,
}

/// Reads a cleaned path, cut into parent and name.
pub(crate) fn meaning<'a>(parent: &[u8], name: &'a [u8]) -> Result<Meaning<'a>> {
    for component in parent.split(|byte| *byte == b'/') {
        if component.starts_with(META_PREFIX) {
            return Ok(Meaning::Ignore);
        }
        if component.starts_with(PREFIX) {
            bail!("entry beneath a whiteout");
        }
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    if name.starts_with(META_PREFIX) {
        return Ok(Meaning::Ignore);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Meaning::Entry),
        Some(b"" | b"." | b"..") => bail!("whiteout without a name"),
        Some(hidden) => Ok(Meaning::Hide(hidden)),
    }
}

/// The name of the marker that hides `name`.
pub(crate) fn hiding(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}

/// Whether overlayfs takes the entry for a whiteout: a character device with number 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    rooted::file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an attribute steers overlayfs. Such ones are never taken from an archive, where they
/// could make a directory show files of the host, nor written into one.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_entries() {
        assert_eq!(meaning(b"a", b"b").unwrap(), Meaning::Entry);
        assert_eq!(meaning(b"a", b".wh.b").unwrap(), Meaning::Hide(b"b"));
        assert_eq!(meaning(b"", b".wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(meaning(b"", b".wh..wh.aufs").unwrap(), Meaning::Ignore);
        assert_eq!(meaning(b".wh..wh.plnk", b"7.9").unwrap(), Meaning::Ignore);
        assert_eq!(meaning(b"a", b".wh..hidden").unwrap(), Meaning::Hide(b".hidden"));
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(meaning(b"e", name).is_err());
        }
        assert!(meaning(b".wh.x", b"y").is_err());
    }
}
