//! Kernel settings under /proc/sys/net; they are those of the caller's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};

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
    match read(name)? {
        None => Ok(()),
        Some(present) if present == value => Ok(()),
        Some(_) => fs::write(path(name), value).with_context(|| format!("set {name} to {value}")),
    }
}

/// Shuts IPv6 on a link of ours: no address was asked for, and a neighbour's router
/// advertisement must not give it one.
pub(crate) fn close_ipv6(link: &str) -> Result<()> {
    set(&format!("net/ipv6/conf/{link}/accept_ra"), "0")?;
    set(&format!("net/ipv6/conf/{link}/autoconf"), "0")?;
    set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")
}

/// Readies a link of ours for the IPv6 addresses that it is given: no others come by a
/// neighbour's advertisements, and none waits for an answer that it is somebody else's.
pub(crate) fn open_ipv6(link: &str) -> Result<()> {
    set(&format!("net/ipv6/conf/{link}/accept_ra"), "0")?;
    set(&format!("net/ipv6/conf/{link}/autoconf"), "0")?;
    set(&format!("net/ipv6/conf/{link}/accept_dad"), "0")?;
    set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0")
}

/// Takes packets that would be answered by another link, as those of a container with several
/// networks are, where the host is strict about that.
pub(crate) fn loosen_reverse_path(link: &str) -> Result<()> {
    let own = format!("net/ipv4/conf/{link}/rp_filter");
    for name in ["net/ipv4/conf/all/rp_filter", &own] {
        if read(name)?.as_deref() == Some("1") {
            return set(&own, "2");
        }
    }
    Ok(())
}
