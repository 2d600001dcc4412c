//! `netsetup forward`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::args::{Directories, Forward, Switch};
use crate::output;
use crate::state::{Store, files};
use crate::sysctl;

const PERSISTENT: &str = "/etc/sysctl.d/99-netsetup.conf";
/// Where settings of the boot come from, in systemd's order of precedence.
const SOURCES: [&str; 3] = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/lib/sysctl.d"];

/// Shows or switches IPv4 forwarding.
pub(crate) fn run(forward: &Forward, directories: &Directories) -> Result<()> {
    if let Some(state) = forward.state {
        let store = Store::open(directories)?;
        let value = match state {
            Switch::On => "1",
            Switch::Off => {
                let needs_it = store.bridges()?.into_iter().find(|record| !record.bridge.internal);
                if let Some(record) = needs_it {
                    anyhow::bail!(
                        "bridge {} needs forwarding: delete it first",
                        record.bridge.name
                    );
                }
                "0"
            }
        };
        sysctl::set(sysctl::FORWARDING, value)?;
        // The administrator decided: the last detach must not undo it.
        store.disown_forwarding()?;
        if forward.persist {
            persist(value)?;
        }
    }
    let present =
        sysctl::read(sysctl::FORWARDING)?.context("this kernel has no IPv4 forwarding")?;
    output::lines([format!("net.ipv4.ip_forward = {present}")])
}

fn persist(value: &str) -> Result<()> {
    let path = Path::new(PERSISTENT);
    files::write_through(path, format!("net.ipv4.ip_forward = {value}\n").as_bytes())?;
    let overriding = overriding(path, value)?;
    ensure!(
        overriding.is_empty(),
        "{} is written, but at boot {} decides otherwise after it",
        path.display(),
        overriding.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// Files that are read after ours, by the order of their names, and set another value.
fn overriding(ours: &Path, value: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in SOURCES {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("list {directory}"))?.path();
            let is_later = path.extension().is_some_and(|extension| extension == "conf")
                && path.file_name() > ours.file_name();
            if is_later && fs::read_to_string(&path).is_ok_and(|text| sets_otherwise(&text, value))
            {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn sets_otherwise(text: &str, value: &str) -> bool {
    text.lines().filter_map(|line| line.split_once('=')).any(|(name, other)| {
        let name = name.trim().trim_start_matches('-').replace('/', ".");
        name == "net.ipv4.ip_forward" && other.trim() != value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_either_spelling() {
        assert!(sets_otherwise("# x\nnet.ipv4.ip_forward=0\n", "1"));
        assert!(sets_otherwise("-net/ipv4/ip_forward = 0", "1"));
        assert!(!sets_otherwise("#net.ipv4.ip_forward=0\nnet.ipv4.ip_forward = 1", "1"));
    }
}
