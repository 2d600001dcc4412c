//! `netsetup forward`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::args::{Directories, Forward, Switch};
use crate::output;
use crate::state::{Store, files};
use crate::subnet::Family;
use crate::sysctl;

const PERSISTENT: &str = "/etc/sysctl.d/99-netsetup.conf";
/// Where settings of the boot come from: a file hides those of its name in later directories.
const SOURCES: [&str; 4] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];
/// Read after all of them by `sysctl --system`.
const LAST: &str = "/etc/sysctl.conf";

/// Shows or switches forwarding.
pub(crate) fn run(forward: &Forward, directories: &Directories) -> Result<()> {
    // Both families are shown where neither is named, and IPv4 alone is switched.
    let families: &[Family] = match (forward.ipv4, forward.ipv6, forward.state) {
        (_, true, _) => &[Family::V6],
        (false, false, None) => &Family::BOTH,
        _ => &[Family::V4],
    };
    let names: Vec<String> =
        families.iter().map(|family| setting(*family, forward.interface.as_deref())).collect();
    if let Some(state) = forward.state {
        let value = if state == Switch::On { "1" } else { "0" };
        switch(families, &names, value, forward.interface.is_none(), directories)?;
        if forward.persist {
            persist(&names, value)?;
        }
    }
    let mut lines = Vec::new();
    for (family, name) in families.iter().zip(&names) {
        match (sysctl::read(name)?, &forward.interface) {
            (Some(value), _) => lines.push(format!("{} = {value}", dotted(name))),
            (None, Some(interface)) => bail!("no interface {interface} with {family} settings"),
            (None, None) if *family == Family::V4 || families.len() == 1 => {
                bail!("this kernel has no {family} forwarding")
            }
            (None, None) => {}
        }
    }
    output::lines(lines)
}

fn setting(family: Family, interface: Option<&str>) -> String {
    match (family, interface) {
        (_, None) => sysctl::forwarding(family).to_owned(),
        (Family::V4, Some(name)) => format!("net/ipv4/conf/{name}/forwarding"),
        (Family::V6, Some(name)) => format!("net/ipv6/conf/{name}/forwarding"),
    }
}

/// As sysctl spells it: dots in the name of an interface change places with slashes.
fn dotted(name: &str) -> String {
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    name.chars().map(swap).collect()
}

fn switch(
    families: &[Family],
    names: &[String],
    value: &str,
    of_all: bool,
    directories: &Directories,
) -> Result<()> {
    let store = Store::open(directories)?;
    for (family, name) in families.iter().zip(names) {
        let needs_it = |bridge: &crate::state::Bridge| !bridge.internal && bridge.has(*family);
        let bridges = store.bridges()?.into_iter().map(|record| record.bridge);
        if let Some(bridge) = bridges.into_iter().find(needs_it).filter(|_| of_all && value == "0")
        {
            bail!("bridge {} needs forwarding: delete it first", bridge.name);
        }
        ensure!(sysctl::read(name)?.is_some(), "this kernel has no setting {}", dotted(name));
        sysctl::set(name, value)?;
        if of_all {
            // The administrator decided: the last detach must not undo it.
            store.disown_forwarding(*family)?;
        }
    }
    Ok(())
}

/// Writes the settings beside those that were kept before.
fn persist(names: &[String], value: &str) -> Result<()> {
    let path = Path::new(PERSISTENT);
    let present = files::read_text(path)?.unwrap_or_default();
    let mut settings: BTreeMap<String, String> = assignments(&present).collect();
    settings.extend(names.iter().map(|name| (dotted(name), value.to_owned())));
    let lines = settings.iter().map(|(name, value)| format!("{name} = {value}\n"));
    files::write_through(path, lines.collect::<String>().as_bytes())?;
    for name in names {
        let overriding = overriding(path, &dotted(name), value)?;
        ensure!(
            overriding.is_empty(),
            "{} is written, but at boot {} decides otherwise after it",
            path.display(),
            overriding.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(())
}

/// Files that are read after ours, by the order of their names, and set another value.
fn overriding(ours: &Path, name: &str, value: &str) -> Result<Vec<PathBuf>> {
    let mut by_name: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for directory in SOURCES {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("list {directory}"))?.path();
            if path.extension().is_some_and(|extension| extension == "conf")
                && let Some(name) = path.file_name().filter(|name| Some(*name) > ours.file_name())
            {
                by_name.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    let files = by_name.into_values().chain([PathBuf::from(LAST)]);
    let sets_otherwise = |path: &PathBuf| {
        fs::read_to_string(path).is_ok_and(|text| {
            let last = assignments(&text).filter(|(other, _)| other == name).last();
            last.is_some_and(|(_, other)| other != value)
        })
    };
    Ok(files.filter(sets_otherwise).collect())
}

/// The settings of a file, in either spelling.
fn assignments(text: &str) -> impl Iterator<Item = (String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| {
        let name = name.trim().trim_start_matches('-');
        // Whichever of the two comes first separates.
        let is_slashed = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
        let name = if is_slashed { dotted(name) } else { name.to_owned() };
        (name, value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_either_spelling() {
        let all = |text: &str| assignments(text).collect::<Vec<_>>();
        let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(all("# x\nnet.ipv4.ip_forward=0\n"), one("net.ipv4.ip_forward", "0"));
        assert_eq!(all("-net/ipv4/ip_forward = 0"), one("net.ipv4.ip_forward", "0"));
        assert_eq!(
            all("net/ipv4/conf/eth0.7/forwarding=1"),
            one("net.ipv4.conf.eth0/7.forwarding", "1")
        );
        assert_eq!(all(";a=b\n#net.ipv4.ip_forward=0"), []);
    }

    #[test]
    fn interfaces_have_settings_of_their_own() {
        assert_eq!(setting(Family::V4, Some("eth0")), "net/ipv4/conf/eth0/forwarding");
        assert_eq!(dotted("net/ipv6/conf/eth0.7/forwarding"), "net.ipv6.conf.eth0/7.forwarding");
    }
}
