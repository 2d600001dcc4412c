//! Without root: a user namespace whose root we are, so that the files of a tree can have the
//! owners that the image names. `newuidmap` and `newgidmap` map the ids that /etc/subuid and
//! /etc/subgid give the user; without them there is one id for all files.

mod maps;
pub(crate) mod shift;

use std::ffi::{CString, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;

pub(crate) use maps::{Maps, Range, check, to_outside};

use crate::digest::Digest;
use crate::rooted;
use crate::sys::Held;

/// Who can own the files of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owners {
    /// We are root: anybody.
    Anybody,
    /// The ids of a user namespace's maps.
    Mapped(Maps),
    /// We alone, and why there are no more.
    Ourselves { maps: Maps, because: String },
}

impl Owners {
    /// The ids that a container can have; `None` if all.
    pub(crate) fn maps(&self) -> Option<&Maps> {
        match self {
            Self::Anybody => None,
            Self::Mapped(maps) | Self::Ourselves { maps, .. } => Some(maps),
        }
    }
}

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => write!(f, "any (root)"),
            Self::Mapped(maps) => {
                write!(f, "{} users and {} groups", maps.users(), maps.groups())
            }
            Self::Ourselves { because, .. } => write!(f, "one user and one group ({because})"),
        }
    }
}

static OWNERS: OnceLock<Owners> = OnceLock::new();

/// Finds out who can own files and, where that takes a user namespace, enters one for good. To be
/// called where trees are read or written, after all that is to be seen of other processes, and
/// before any thread is started.
pub(crate) fn enter() -> Result<&'static Owners> {
    if let Some(owners) = OWNERS.get() {
        return Ok(owners);
    }
    let owners = if nix::unistd::geteuid().is_root() { Owners::Anybody } else { leave_host()? };
    Ok(OWNERS.get_or_init(|| owners))
}

/// Our user and group as the host has them.
pub(crate) fn outside() -> Result<(u32, u32)> {
    match entered().and_then(Owners::maps) {
        None => Ok((nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())),
        Some(maps) => {
            let root = |ranges| to_outside(ranges, 0).context("our own namespace has no root");
            Ok((root(&maps.uids)?, root(&maps.gids)?))
        }
    }
}

/// Removes a tree in which files may be of any of the user's ids.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Errno> {
    match rooted::remove_path(path) {
        Err(errno @ (Errno::ACCESS | Errno::PERM)) if !nix::unistd::geteuid().is_root() => {
            enter().map_err(|_| errno)?;
            rooted::remove_path(path)
        }
        removed => removed,
    }
}

/// Whether files can be given away at all.
pub(crate) fn gives_files_away() -> bool {
    match OWNERS.get() {
        Some(owners) => !matches!(owners, Owners::Ourselves { .. }),
        None => nix::unistd::geteuid().is_root(),
    }
}

/// What was found out, if it was.
pub(crate) fn entered() -> Option<&'static Owners> {
    OWNERS.get()
}

/// Whether we are in a user namespace, entered by ourselves or by whoever started us: file systems
/// that such a one mounts keep their marks in other attributes.
pub(crate) fn is_inner() -> bool {
    static STARTED_IN_ONE: OnceLock<bool> = OnceLock::new();
    match OWNERS.get() {
        Some(Owners::Mapped(_) | Owners::Ourselves { .. }) => true,
        Some(Owners::Anybody) | None => *STARTED_IN_ONE.get_or_init(|| {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let whole: Vec<&str> = map.split_whitespace().collect();
            !whole.is_empty() && whole != ["0", "0", "4294967295"]
        }),
    }
}

/// The directory for trees whose owners are those that we can give files now: the same tree has other
/// owners for the host under other maps.
pub(crate) fn kind_of_trees() -> String {
    match OWNERS.get() {
        None | Some(Owners::Anybody) => "sha256".to_owned(),
        Some(Owners::Ourselves { .. }) => "single".to_owned(),
        Some(Owners::Mapped(maps)) => {
            let text = |ranges: &[Range]| {
                ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            };
            let maps = format!("{};{}", text(&maps.uids), text(&maps.gids));
            format!("mapped-{}", Digest::of(maps.as_bytes()).short())
        }
    }
}

fn leave_host() -> Result<Owners> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let own = Maps { uids: vec![Range::one(uid)], gids: vec![Range::one(gid)] };
    let alone = |because: String| Owners::Ourselves { maps: own.clone(), because };
    let prepared = Prepared::new(uid, &own);
    if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER) {
        return Ok(alone(format!("the system allows no user namespace: {error}")));
    }
    let owners = match prepared.and_then(Prepared::write) {
        Ok(maps) => return Ok(Owners::Mapped(maps)),
        Err(because) => alone(because),
    };
    let write = |name: &str, text: String| {
        let path = Path::new("/proc/self").join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    write("uid_map", own.uids[0].to_string())?;
    write("setgroups", "deny".to_owned())?;
    write("gid_map", own.gids[0].to_string())?;
    Ok(owners)
}

/// The two programs, each waiting in a process of its own on the host.
struct Prepared {
    maps: Maps,
    programs: [(&'static str, Held); 2],
}

impl Prepared {
    /// The error says why there are no further ids.
    fn new(uid: u32, own: &Maps) -> Result<Self, String> {
        let user = maps::user_name(uid);
        let further = |file: &str| maps::ranges(Path::new(file), uid, user.as_deref());
        let maps = Maps {
            uids: maps::lay_out(own.uids[0], &further("/etc/subuid")?),
            gids: maps::lay_out(own.gids[0], &further("/etc/subgid")?),
        };
        let hold = |name: &'static str, map: &[Range]| {
            let path = find(name).ok_or_else(|| {
                format!("{name} is not in PATH: install the package uidmap or shadow-utils")
            })?;
            let words = map.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let pid = std::process::id().to_string();
            let words: Vec<CString> = [name, pid.as_str()]
                .into_iter()
                .chain(words.split(' '))
                .map(CString::new)
                .collect::<Result<_, _>>()
                .map_err(|error| format!("words for {name}: {error}"))?;
            let held = Held::start(&path, &words).map_err(|e| format!("start {name}: {e}"))?;
            Ok::<_, String>((name, held))
        };
        let programs = [hold("newuidmap", &maps.uids)?, hold("newgidmap", &maps.gids)?];
        Ok(Self { maps, programs })
    }

    fn write(self) -> Result<Maps, String> {
        let Self { maps, programs } = self;
        for (name, held) in programs {
            held.release().map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(maps)
    }
}

/// Where execvp would find it.
fn find(program: &str) -> Option<CString> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let found: PathBuf =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| {
            rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
        })?;
    CString::new(found.into_os_string().into_vec()).ok()
}
