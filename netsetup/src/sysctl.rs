//! Kernel settings under /proc/sys/net; they are those of the caller's network namespace.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::subnet::Family;

/// The setting that lets the host forward packets of a family.
pub(crate) fn forwarding(family: Family) -> &'static str {
    match family {
        Family::V4 => "net/ipv4/ip_forward",
        Family::V6 => "net/ipv6/conf/all/forwarding",
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// The value of a setting, `None` where this kernel has no such setting.
pub(crate) fn read(name: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(name)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read setting {name}")),
    }
}

/// Sets a setting, unless it has the value already (then /proc may be read-only) or this kernel
/// does not have it: without IPv6 there is nothing to switch off.
pub(crate) fn set(name: &str, value: &str) -> Result<()> {
    set_by(name, value, |name, value| fs::write(path(name), value))
}

/// Sets a setting of one link, which is ours: also where somebody keeps /proc read-only so that
/// the host's own settings stay as they are.
pub(crate) fn set_of_link(link: &str, family: Family, name: &str, value: &str) -> Result<()> {
    let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
    let name = format!("net/{family}/conf/{link}/{name}");
    set_by(&name, value, |name, value| match fs::write(path(name), value) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            // Who may mount nothing is told of the first failure, which is the one to mend.
            write_aside(name, value).map_err(|_| error)
        }
        outcome => outcome,
    })
}

fn set_by(name: &str, value: &str, write: impl FnOnce(&str, &str) -> io::Result<()>) -> Result<()> {
    match read(name)? {
        None => Ok(()),
        Some(present) if present == value => Ok(()),
        Some(_) => write(name, value).with_context(|| format!("set sysctl {name}")),
    }
}

/// Writes by a procfs of our own, which is mounted nowhere.
fn write_aside(name: &str, value: &str) -> io::Result<()> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&root, format!("sys/{name}"), flags, Mode::empty())?;
    File::from(file).write_all(value.as_bytes())
}

/// Shuts IPv6 on a link of ours: no address was asked for, and a neighbour's router
/// advertisement must not give it one.
pub(crate) fn close_ipv6(link: &str) -> Result<()> {
    for (name, value) in [("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "1")] {
        set_of_link(link, Family::V6, name, value)?;
    }
    Ok(())
}

/// Readies a link of ours for the IPv6 addresses that it is given: no others come by a
/// neighbour's advertisements, and none waits for an answer that it is somebody else's.
pub(crate) fn open_ipv6(link: &str) -> Result<()> {
    set_of_link(link, Family::V6, "accept_dad", "0")?;
    open_ipv6_beside_others(link)
}

/// The same where neighbours are asked whether an address is theirs.
pub(crate) fn open_ipv6_beside_others(link: &str) -> Result<()> {
    for name in ["accept_ra", "autoconf", "disable_ipv6"] {
        set_of_link(link, Family::V6, name, "0")?;
    }
    Ok(())
}

/// Takes packets that would be answered by another link, as those of a container with several
/// networks are, where the host is strict about that.
pub(crate) fn loosen_reverse_path(link: &str) -> Result<()> {
    for name in ["all", link] {
        if read(&format!("net/ipv4/conf/{name}/rp_filter"))?.as_deref() == Some("1") {
            return set_of_link(link, Family::V4, "rp_filter", "2");
        }
    }
    Ok(())
}
