//! Owner, mode, times and extended attributes of one entry, set in the order that keeps them:
//! a change of owner clears setuid bits and `security.capability`, so it comes first.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::tar::{Entry, Kind, Time};
use super::whiteout::is_overlay_xattr;
use crate::rooted;
use crate::userns::{self, shift};

/// The attribute that new entries of a directory inherit; set last, when there are none to come.
pub(crate) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// Where files can be given to nobody: whose the file is in the image, as `UID:GID`.
const OWNER: &[u8] = b"user.imgtool.owner";

/// An entry by the descriptor of its directory and its name; `.` is the directory itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The directory.
    pub(crate) parent: BorrowedFd<'a>,
    /// The name in it.
    pub(crate) name: &'a [u8],
}

/// What may be changed and what can't be is decided once.
#[derive(Debug)]
pub(crate) struct Setter {
    owners: Owners,
    warnings: BTreeSet<String>,
}

/// What becomes of the owner that an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owners {
    /// The file is given to it.
    Given,
    /// The file stays ours and tells of it, so that a layer made of the tree does too.
    Noted,
    /// The file is ours.
    Forgotten,
}

impl Setter {
    /// For the user that runs us: only root gives files away.
    pub(crate) fn new() -> Self {
        let owners = if userns::gives_files_away() { Owners::Given } else { Owners::Noted };
        Self { owners, warnings: BTreeSet::new() }
    }

    /// For files that are to be ours whoever they belong to.
    pub(crate) fn ours() -> Self {
        Self { owners: Owners::Forgotten, warnings: BTreeSet::new() }
    }

    /// Whether files can be given to others and devices made.
    pub(crate) fn privileged(&self) -> bool {
        self.owners == Owners::Given
    }

    /// Records something that could not be done and is not fatal; each text once.
    pub(crate) fn warn(&mut self, text: String) {
        self.warnings.insert(text);
    }

    /// What could not be done.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_iter().collect()
    }

    /// Sets all that the entry says about a new file, link, device or pipe.
    pub(crate) fn all(&mut self, place: Place<'_>, entry: &Entry) -> Result<()> {
        self.owner_and_xattrs(place, entry)?;
        if entry.kind != Kind::Symlink {
            set_mode(place, entry.mode)?;
        }
        set_mtime(place, entry.mtime)
    }

    /// The same for a file that is still open, without what it has since it was made.
    pub(crate) fn all_of_open(
        &mut self,
        file: BorrowedFd<'_>,
        place: Place<'_>,
        entry: &Entry,
    ) -> Result<()> {
        let stat = fs::fstat(file).context("look at file")?;
        if !self.privileged() || (stat.st_uid, stat.st_gid) != shift::written(entry.uid, entry.gid)?
        {
            self.owner(place, entry)?;
        }
        self.xattrs(place, entry)?;
        // An ACL among the attributes has permissions of its own.
        if !entry.xattrs.is_empty() || stat.st_mode & 0o7777 != entry.mode {
            set_mode(place, entry.mode)?;
        }
        fs::futimens(file, &timestamps(entry.mtime)).context("set time")
    }

    /// Sets what can be set of a directory before its entries are there.
    pub(crate) fn owner_and_xattrs(&mut self, place: Place<'_>, entry: &Entry) -> Result<()> {
        self.owner(place, entry)?;
        self.xattrs(place, entry)
    }

    fn owner(&mut self, place: Place<'_>, entry: &Entry) -> Result<()> {
        if self.privileged() {
            return set_owner(place, entry.uid, entry.gid);
        }
        if (entry.uid, entry.gid) == (0, 0) {
            return Ok(());
        }
        self.warn("without root all files belong to the user that unpacks them".to_owned());
        if self.owners == Owners::Forgotten {
            return Ok(());
        }
        let owner = format!("{}:{}", entry.uid, entry.gid);
        match fs::lsetxattr(place.path(), OWNER, owner.as_bytes(), XattrFlags::empty()) {
            // Links, devices and pipes have no attributes of users, nor has every file system.
            Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
            noted => noted.context("note the owner"),
        }
    }

    fn xattrs(&mut self, place: Place<'_>, entry: &Entry) -> Result<()> {
        for (name, value) in &entry.xattrs {
            if is_kept(name) && name != DEFAULT_ACL {
                self.xattr(place, name, value)?;
            }
        }
        Ok(())
    }

    /// Sets one attribute. What this file system or user can't keep is no reason to fail: the
    /// engines go on there too.
    pub(crate) fn xattr(&mut self, place: Place<'_>, name: &[u8], value: &[u8]) -> Result<()> {
        let value = shift::written_value(name, value)?;
        match fs::lsetxattr(place.path(), name, &value, XattrFlags::empty()) {
            Err(errno @ (Errno::OPNOTSUPP | Errno::PERM)) => {
                let name = String::from_utf8_lossy(name);
                self.warn(format!("attribute {name} is not kept: {errno}"));
                Ok(())
            }
            result => {
                result.with_context(|| format!("set attribute {}", String::from_utf8_lossy(name)))
            }
        }
    }

    /// Gives `to` the attributes that `entry` has and no others.
    pub(crate) fn replace_xattrs(&mut self, place: Place<'_>, entry: &Entry) -> Result<()> {
        if self.owners == Owners::Noted {
            place.remove_xattr(OWNER)?;
        }
        for name in place.xattr_names()? {
            if is_kept(&name) && !entry.xattrs.iter().any(|(kept, _)| *kept == name) {
                place.remove_xattr(&name)?;
            }
        }
        self.owner_and_xattrs(place, entry)
    }
}

impl<'a> Place<'a> {
    /// The directory itself that the descriptor stands for.
    pub(crate) fn itself(directory: BorrowedFd<'a>) -> Self {
        Self { parent: directory, name: b"." }
    }

    /// Metadata; of a link, not of its target.
    pub(crate) fn stat(self) -> Result<Stat, Errno> {
        rooted::stat(self.parent, self.name)
    }

    /// The names of all extended attributes.
    pub(crate) fn xattr_names(self) -> Result<Vec<Vec<u8>>> {
        let path = self.path();
        let list = match sized(|buffer| fs::llistxattr(&path, buffer)) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            list => list.context("list attributes")?,
        };
        let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    /// The attributes that a layer keeps, sorted by name.
    pub(crate) fn xattrs(self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut xattrs = Vec::new();
        for name in self.xattr_names()? {
            if is_kept(&name)
                && let Some(value) = self.xattr(&name)?
            {
                let value = shift::read_value(&name, value);
                xattrs.push((name, value));
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    /// One attribute, or `None` if there is none of this name.
    pub(crate) fn xattr(self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let path = self.path();
        match sized(|buffer| fs::lgetxattr(&path, name, buffer)) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno)
                .with_context(|| format!("read attribute {}", String::from_utf8_lossy(name))),
        }
    }

    /// Removes an attribute if it is there.
    pub(crate) fn remove_xattr(self, name: &[u8]) -> Result<()> {
        match fs::lremovexattr(self.path(), name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno)
                .with_context(|| format!("remove attribute {}", String::from_utf8_lossy(name))),
        }
    }

    /// Removes what the entry inherited from its directory's default ACL.
    pub(crate) fn remove_inherited_acl(self) -> Result<()> {
        self.remove_xattr(ACCESS_ACL)?;
        self.remove_xattr(DEFAULT_ACL)
    }

    fn path(self) -> Vec<u8> {
        rooted::proc_path(self.parent, self.name)
    }
}

/// Whose a file is, in the image that its tree is of: user and group.
pub(crate) fn owner(place: Place<'_>, stat: &Stat) -> Result<(u32, u32)> {
    if userns::gives_files_away() {
        return Ok(shift::read(stat.st_uid, stat.st_gid));
    }
    let noted = match rooted::file_type(stat) {
        FileType::RegularFile | FileType::Directory => place.xattr(OWNER)?,
        _ => None,
    };
    if let Some(owner) = noted.as_deref().and_then(parse_owner) {
        return Ok(owner);
    }
    // The map of such a container has one pair: its root is us.
    let root_or = |id: u32, ours: u32| if id == ours { 0 } else { id };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    Ok((root_or(stat.st_uid, uid.as_raw()), root_or(stat.st_gid, gid.as_raw())))
}

fn parse_owner(text: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Gives an entry, or a link itself, to an owner.
pub(crate) fn set_owner(place: Place<'_>, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = shift::written(uid, gid)?;
    let given = fs::chownat(
        place.parent,
        place.name,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    );
    match given {
        // What the kernel says of an id that our user namespace does not have.
        Err(Errno::INVAL) => bail!(
            "no user {uid} or no group {gid} can own files here: \
             longer ranges in /etc/subuid and /etc/subgid are needed"
        ),
        given => given.with_context(|| format!("give to user {uid} and group {gid}")),
    }
}

/// Sets the permission bits of something that is no link.
pub(crate) fn set_mode(place: Place<'_>, mode: u32) -> Result<()> {
    fs::chmodat(place.parent, place.name, Mode::from_raw_mode(mode), AtFlags::empty())
        .with_context(|| format!("set mode {mode:o}"))
}

/// Sets both times; there is no better one for the last access.
pub(crate) fn set_mtime(place: Place<'_>, mtime: Time) -> Result<()> {
    let times = timestamps(mtime);
    fs::utimensat(place.parent, place.name, &times, AtFlags::SYMLINK_NOFOLLOW).context("set time")
}

fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// The time of last modification.
pub(crate) fn mtime(stat: &Stat) -> Time {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 10^9")]
    Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// Makes a directory look like another one: owner, mode, attributes, times.
pub(crate) fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let (from, to) = (Place::itself(from), Place::itself(to));
    let stat = from.stat().context("read directory")?;
    let mut entry = Entry::new(Vec::new(), Kind::Directory, stat.st_mode & 0o7777);
    (entry.uid, entry.gid) = owner(from, &stat)?;
    entry.mtime = mtime(&stat);
    entry.xattrs = from.xattrs()?;
    let mut setter = Setter::new();
    setter.replace_xattrs(to, &entry)?;
    if let Some((name, value)) = entry.xattrs.iter().find(|(name, _)| name == DEFAULT_ACL) {
        setter.xattr(to, name, value)?;
    }
    set_mtime(to, entry.mtime)?;
    // Last, since it may shut the directory for its owner too.
    set_mode(to, entry.mode)
}

/// Whether an attribute belongs to a layer. Labels of the host's security modules and NFS's own
/// lists are the host's business, and whose a file is stands in its entry.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name != b"security.selinux"
        && name != b"system.nfs4_acl"
        && name != OWNER
        && !is_overlay_xattr(name)
}

/// Calls with a buffer that grows until the answer fits.
fn sized(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(errno) => return Err(errno),
        }
    }
}
