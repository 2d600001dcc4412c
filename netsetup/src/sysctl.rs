//! Kernel settings under /proc/sys/net; they are those of the caller's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// `net/ipv4/ip_forward`
pub(crate) const FORWARDING: &str = "net/ipv4/ip_forward";

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
    set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")
}
