//! The words of mount options that are not for the file system.

use rustix::mount::{MountAttrFlags as Attr, MountPropagationFlags as Propagation};

/// What a word asks for.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    Bind {
        recursive: bool,
    },
    /// Of this mount.
    Attribute(Attr, bool),
    /// A way to keep access times, or that it is not wanted if asked for earlier.
    AccessTimes(Attr, bool),
    /// Of this mount and those beneath it.
    Recursive(Attr, bool),
    Propagation(Propagation, bool),
    Superblock(&'static str, bool),
    CopyUp,
    Remount,
    /// The owners of files are mapped; of this mount, or of those beneath it too.
    Idmap {
        recursive: bool,
    },
    Nothing,
}

use Effect::{
    AccessTimes, Attribute, Bind, CopyUp, Idmap, Nothing, Recursive, Remount, Superblock,
};

const RO: Attr = Attr::MOUNT_ATTR_RDONLY;
const NOSUID: Attr = Attr::MOUNT_ATTR_NOSUID;
const NODEV: Attr = Attr::MOUNT_ATTR_NODEV;
const NOEXEC: Attr = Attr::MOUNT_ATTR_NOEXEC;
const NOATIME: Attr = Attr::MOUNT_ATTR_NOATIME;
const RELATIME: Attr = Attr::MOUNT_ATTR_RELATIME;
const STRICTATIME: Attr = Attr::MOUNT_ATTR_STRICTATIME;
const NODIRATIME: Attr = Attr::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: Attr = Attr::MOUNT_ATTR_NOSYMFOLLOW;

/// Word, effect, and the `MS_*` name that stands for it in messages.
pub(super) const OPTIONS: &[(&str, Effect, &str)] = &[
    ("acl", Nothing, "MS_POSIXACL"),
    ("async", Superblock("sync", false), ""),
    ("atime", AccessTimes(NOATIME, false), ""),
    ("bind", Bind { recursive: false }, "MS_BIND"),
    ("defaults", Nothing, ""),
    ("dev", Attribute(NODEV, false), ""),
    ("diratime", Attribute(NODIRATIME, false), ""),
    ("dirsync", Superblock("dirsync", true), "MS_DIRSYNC"),
    ("exec", Attribute(NOEXEC, false), ""),
    ("idmap", Idmap { recursive: false }, ""),
    // The VFS dropped i_version as an option of mounts; the file systems decide.
    ("iversion", Nothing, "MS_I_VERSION"),
    ("lazytime", Superblock("lazytime", true), "MS_LAZYTIME"),
    ("loud", Nothing, ""),
    ("mand", Superblock("mand", true), "MS_MANDLOCK"),
    ("noatime", AccessTimes(NOATIME, true), "MS_NOATIME"),
    ("nodev", Attribute(NODEV, true), "MS_NODEV"),
    ("nodiratime", Attribute(NODIRATIME, true), "MS_NODIRATIME"),
    ("noexec", Attribute(NOEXEC, true), "MS_NOEXEC"),
    ("noiversion", Nothing, ""),
    ("nolazytime", Superblock("lazytime", false), ""),
    ("nomand", Superblock("mand", false), ""),
    ("norelatime", AccessTimes(RELATIME, false), ""),
    ("nostrictatime", AccessTimes(STRICTATIME, false), ""),
    ("nosuid", Attribute(NOSUID, true), "MS_NOSUID"),
    ("nosymfollow", Attribute(NOSYMFOLLOW, true), "MS_NOSYMFOLLOW"),
    ("private", Effect::Propagation(Propagation::PRIVATE, false), ""),
    ("ratime", Recursive(RELATIME, true), ""),
    ("rbind", Bind { recursive: true }, "MS_BIND|MS_REC"),
    ("rdev", Recursive(NODEV, false), ""),
    ("rdiratime", Recursive(NODIRATIME, false), ""),
    ("relatime", AccessTimes(RELATIME, true), "MS_RELATIME"),
    ("remount", Remount, "MS_REMOUNT"),
    ("rexec", Recursive(NOEXEC, false), ""),
    ("ridmap", Idmap { recursive: true }, ""),
    ("rnoatime", Recursive(NOATIME, true), ""),
    ("rnodev", Recursive(NODEV, true), ""),
    ("rnodiratime", Recursive(NODIRATIME, true), ""),
    ("rnoexec", Recursive(NOEXEC, true), ""),
    ("rnorelatime", Recursive(RELATIME, true), ""),
    ("rnostrictatime", Recursive(RELATIME, true), ""),
    ("rnosuid", Recursive(NOSUID, true), ""),
    ("rnosymfollow", Recursive(NOSYMFOLLOW, true), ""),
    ("ro", Attribute(RO, true), "MS_RDONLY"),
    ("rprivate", Effect::Propagation(Propagation::PRIVATE, true), ""),
    ("rrelatime", Recursive(RELATIME, true), ""),
    ("rro", Recursive(RO, true), ""),
    ("rrw", Recursive(RO, false), ""),
    ("rshared", Effect::Propagation(Propagation::SHARED, true), ""),
    ("rslave", Effect::Propagation(Propagation::DOWNSTREAM, true), ""),
    ("rstrictatime", Recursive(STRICTATIME, true), ""),
    ("rsuid", Recursive(NOSUID, false), ""),
    ("rsymfollow", Recursive(NOSYMFOLLOW, false), ""),
    ("runbindable", Effect::Propagation(Propagation::UNBINDABLE, true), ""),
    ("rw", Attribute(RO, false), ""),
    ("shared", Effect::Propagation(Propagation::SHARED, false), ""),
    ("silent", Nothing, "MS_SILENT"),
    ("slave", Effect::Propagation(Propagation::DOWNSTREAM, false), ""),
    ("strictatime", AccessTimes(STRICTATIME, true), "MS_STRICTATIME"),
    ("suid", Attribute(NOSUID, false), ""),
    ("symfollow", Attribute(NOSYMFOLLOW, false), ""),
    ("sync", Superblock("sync", true), "MS_SYNCHRONOUS"),
    ("tmpcopyup", CopyUp, ""),
    ("unbindable", Effect::Propagation(Propagation::UNBINDABLE, false), ""),
];
