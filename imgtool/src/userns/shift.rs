//! Trees whose files belong to the ids of a container that has other ones than we see: read as the
//! container sees them, and given to it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, FileType, Gid, Stat, Uid, XattrFlags};
use rustix::thread::CapabilitiesSecureBits;

use super::maps::{Maps, Range, to_inside, to_outside};
use crate::layer::metadata::{self, Place};
use crate::rooted;

/// Each level holds a descriptor.
const MAX_DEPTH: usize = 2000;
/// What a change of owner takes from a file. It names the root that it holds good for, if that is not
/// the host's.
const CAPABILITY: &[u8] = b"security.capability";
const CAPABILITY_PLAIN: usize = 20;
const CAPABILITY_PLAIN_VERSION: u8 = 2;
const CAPABILITY_WITH_ROOT: usize = 24;
const CAPABILITY_ROOT_VERSION: u8 = 3;
/// Lists of permissions name ids, too.
const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// In a list: the version, then entries of kind, permissions and id.
const LIST_HEADER: usize = 4;
const LIST_ENTRY: usize = 8;
const KIND_USER: u16 = 2;
const KIND_GROUP: u16 = 8;

static READ: OnceLock<Maps> = OnceLock::new();
static WRITTEN: OnceLock<Maps> = OnceLock::new();

/// From now on, what is read belongs to whom the container with these ids sees.
pub(crate) fn read_as(maps: &Maps) {
    READ.get_or_init(|| maps.clone());
}

/// From now on, what is written belongs to those of the container's ids that are meant, and is made by
/// its root: where layers are mapped nobody else can make files.
pub(crate) fn write_as(maps: &Maps) -> Result<()> {
    become_root(maps)?;
    WRITTEN.get_or_init(|| maps.clone());
    Ok(())
}

/// Has this thread make files as the container's root, with all its own rights.
pub(crate) fn become_root(maps: &Maps) -> Result<()> {
    let root = |ranges: &[Range]| to_outside(ranges, 0).context("the container has no root");
    let (uid, gid) = (root(&maps.uids)?, root(&maps.gids)?);
    let bits = rustix::thread::capabilities_secure_bits().context("read the secure bits")?;
    // Or the capabilities to write anything would go with the user id.
    rustix::thread::set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .context("keep the capabilities")?;
    nix::unistd::setfsgid(gid.into());
    nix::unistd::setfsuid(uid.into());
    // The calls give the former id, whatever comes of them.
    ensure!(
        nix::unistd::setfsuid(uid.into()).as_raw() == uid
            && nix::unistd::setfsgid(gid.into()).as_raw() == gid,
        "become user {uid} and group {gid}, the container's root: not permitted"
    );
    Ok(())
}

/// Whose the file is that belongs to these ids. Who is none of the container's keeps the number, as there
/// is no other name for him.
pub(crate) fn read(uid: u32, gid: u32) -> (u32, u32) {
    match READ.get() {
        None => (uid, gid),
        Some(maps) => {
            (to_inside(&maps.uids, uid).unwrap_or(uid), to_inside(&maps.gids, gid).unwrap_or(gid))
        }
    }
}

/// To whom a file is to be given.
pub(crate) fn written(uid: u32, gid: u32) -> Result<(u32, u32)> {
    match WRITTEN.get() {
        None => Ok((uid, gid)),
        Some(maps) => outside(maps, uid, gid),
    }
}

fn outside(maps: &Maps, uid: u32, gid: u32) -> Result<(u32, u32)> {
    let uid = to_outside(&maps.uids, uid)
        .with_context(|| format!("user {uid} is not among the container's ids"))?;
    let gid = to_outside(&maps.gids, gid)
        .with_context(|| format!("group {gid} is not among the container's ids"))?;
    Ok((uid, gid))
}

/// Gives what lies at `place`, and all beneath it, from the ids it has now to the container's.
pub(crate) fn give(place: Place<'_>, maps: &Maps) -> Result<()> {
    Giver { maps, links: HashSet::new() }.tree(place, 0)
}

struct Giver<'a> {
    maps: &'a Maps,
    /// Files with several names that were given away under one of them.
    links: HashSet<(u64, u64)>,
}

impl Giver<'_> {
    fn tree(&mut self, place: Place<'_>, depth: usize) -> Result<()> {
        ensure!(depth < MAX_DEPTH, "directories are nested more than {MAX_DEPTH} deep");
        let stat = place.stat()?;
        if rooted::file_type(&stat) == FileType::Directory {
            let directory = match place.name {
                b"." => rooted::reopen(place.parent)?,
                name => rooted::open_child(place.parent, name)?,
            };
            for name in rooted::names(&directory)? {
                let child = Place { parent: directory.as_fd(), name: name.as_bytes() };
                self.tree(child, depth + 1)
                    .with_context(|| format!("give away {}", name.to_string_lossy()))?;
            }
        } else if stat.st_nlink > 1 && !self.links.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.one(place, &stat)
    }

    /// What a change of owner takes away, the bits that let it run as its owner and its capabilities, it
    /// gets again.
    fn one(&self, place: Place<'_>, stat: &Stat) -> Result<()> {
        let (uid, gid) = outside(self.maps, stat.st_uid, stat.st_gid)?;
        let kind = rooted::file_type(stat);
        let kept = match kind {
            FileType::Symlink => Vec::new(),
            _ => place.xattrs()?,
        };
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(place.parent, place.name, owner.0, owner.1, flags)
            .with_context(|| format!("give to user {uid} and group {gid}"))?;
        if kind != FileType::Symlink && stat.st_mode & 0o6000 != 0 {
            metadata::set_mode(place, stat.st_mode & 0o7777)?;
        }
        let path = rooted::proc_path(place.parent, place.name);
        for (name, value) in kept.iter().filter(|(name, _)| names_ids(name)) {
            let value = outside_in_value(self.maps, name, value)?;
            rustix::fs::lsetxattr(&path, name.as_slice(), &value, XattrFlags::empty())
                .with_context(|| format!("set attribute {}", String::from_utf8_lossy(name)))?;
        }
        Ok(())
    }
}

/// Whether ids stand in the attribute's value.
fn names_ids(name: &[u8]) -> bool {
    name == CAPABILITY || ACCESS_LISTS.contains(&name)
}

/// The value of an attribute as the container would see it.
pub(crate) fn read_value(name: &[u8], value: Vec<u8>) -> Vec<u8> {
    match READ.get() {
        Some(maps) if name == CAPABILITY && value.len() == CAPABILITY_WITH_ROOT => {
            let root = to_outside(&maps.uids, 0).map(u32::to_le_bytes);
            match value.split_last_chunk() {
                Some((rest, last)) if Some(*last) == root => {
                    with_version(rest, CAPABILITY_PLAIN_VERSION)
                }
                _ => value,
            }
        }
        Some(maps) if ACCESS_LISTS.contains(&name) => {
            let mut list = value;
            for (ranges, id) in ids_in_list(maps, &mut list) {
                let inside = to_inside(ranges, u32::from_le_bytes(*id)).map(u32::to_le_bytes);
                *id = inside.unwrap_or(*id);
            }
            list
        }
        _ => value,
    }
}

/// The value of an attribute that the container is to see as `value`.
pub(crate) fn written_value<'a>(name: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    match WRITTEN.get() {
        Some(maps) if names_ids(name) => outside_in_value(maps, name, value).map(Cow::Owned),
        _ => Ok(Cow::Borrowed(value)),
    }
}

fn outside_in_value(maps: &Maps, name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    if name == CAPABILITY {
        if value.len() != CAPABILITY_PLAIN {
            return Ok(value.to_vec());
        }
        let mut all = with_version(value, CAPABILITY_ROOT_VERSION);
        all.extend_from_slice(&outside(maps, 0, 0)?.0.to_le_bytes());
        return Ok(all);
    }
    let mut list = value.to_vec();
    for (ranges, id) in ids_in_list(maps, &mut list) {
        let inside = u32::from_le_bytes(*id);
        let given = to_outside(ranges, inside).with_context(|| {
            format!("an access list names {inside}, which is not among the container's ids")
        })?;
        *id = given.to_le_bytes();
    }
    Ok(list)
}

fn with_version(value: &[u8], version: u8) -> Vec<u8> {
    let mut value = value.to_vec();
    // The flags are in the lowest byte of the number, the version is in the highest.
    if let Some(byte) = value.get_mut(3) {
        *byte = version;
    }
    value
}

/// The ids in an access list, each with the map for it.
fn ids_in_list<'a>(
    maps: &'a Maps,
    list: &'a mut [u8],
) -> impl Iterator<Item = (&'a [Range], &'a mut [u8; 4])> {
    let entries = list.get_mut(LIST_HEADER..).unwrap_or_default();
    entries.chunks_exact_mut(LIST_ENTRY).filter_map(|entry| {
        let ranges = match u16::from_le_bytes([entry[0], entry[1]]) {
            KIND_USER => &maps.uids,
            KIND_GROUP => &maps.gids,
            _ => return None,
        };
        Some((ranges.as_slice(), entry.last_chunk_mut()?))
    })
}

/// Gives one file or directory of ours to the container's root.
pub(crate) fn give_to_root(parent: BorrowedFd<'_>, name: &[u8], maps: &Maps) -> Result<()> {
    let (uid, gid) = outside(maps, 0, 0)?;
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("give to user {uid} and group {gid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps() -> Maps {
        let range = Range { inside: 0, outside: 100_000, count: 1000 };
        Maps { uids: vec![range], gids: vec![Range { outside: 200_000, ..range }] }
    }

    #[test]
    fn capabilities_hold_good_for_the_containers_root() {
        let plain = [&[1, 0, 0, 2][..], &[7; 16]].concat();
        let given = outside_in_value(&maps(), CAPABILITY, &plain).unwrap();
        assert_eq!(given[..4], [1, 0, 0, 3]);
        assert_eq!(given[20..], 100_000_u32.to_le_bytes());
    }

    #[test]
    fn access_lists_name_the_containers_ids() {
        let entry = |kind: u16, id: u32| {
            [&kind.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list = |user, group| {
            [&2_u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, user), &entry(8, group)]
                .concat()
        };
        let given = outside_in_value(&maps(), ACCESS_LISTS[0], &list(33, 34)).unwrap();
        assert_eq!(given, list(100_033, 200_034));
        assert!(outside_in_value(&maps(), ACCESS_LISTS[0], &list(33, 1000)).is_err());
    }
}
