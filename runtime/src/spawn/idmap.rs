//! The id maps of a new user namespace, which only a process outside may write.

use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::plan::namespaces::Namespaces;
use crate::spec::{IdMapping, Spec};

/// Writes both maps of the process, or has it done by those who may.
pub(super) fn write(pid: i32, namespaces: &Namespaces, host: &Host) -> Result<()> {
    if host.euid != 0 {
        return write_rootless(pid, namespaces);
    }
    write_maps(pid, &namespaces.uid_map, &namespaces.gid_map)
}

/// Writes both maps, as root may.
pub(super) fn write_maps(pid: i32, uids: &str, gids: &str) -> Result<()> {
    write_file(pid, "uid_map", uids)?;
    write_file(pid, "gid_map", gids)
}

/// Without privilege one may map oneself, and give up setting groups for that; for more there are
/// two programs, which look into /etc/subuid and /etc/subgid.
fn write_rootless(pid: i32, namespaces: &Namespaces) -> Result<()> {
    let only_self = |map: &str| map.lines().count() == 1 && map.trim_end().ends_with(" 1");
    if only_self(&namespaces.uid_map) {
        write_file(pid, "uid_map", &namespaces.uid_map)?;
    } else {
        run("newuidmap", pid, &namespaces.uid_map)?;
    }
    if only_self(&namespaces.gid_map) {
        write_file(pid, "setgroups", "deny")?;
        write_file(pid, "gid_map", &namespaces.gid_map)
    } else {
        run("newgidmap", pid, &namespaces.gid_map)
    }
}

fn write_file(pid: i32, name: &str, content: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{name}");
    std::fs::write(&path, content).with_context(|| format!("write {path}"))
}

fn run(program: &str, pid: i32, map: &str) -> Result<()> {
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(map.split_ascii_whitespace())
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                anyhow::anyhow!(
                    "{program} is needed to map more than one id, and is not in PATH (Debian and \
                     Fedora have it in the packages uidmap and shadow-utils)"
                )
            }
            _ => anyhow::Error::from(error).context(format!("run {program}")),
        })?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The host's ids of the container's root.
pub(crate) fn container_root(spec: &Spec) -> (u32, u32) {
    let Some(linux) = &spec.linux else { return (0, 0) };
    let root = |mappings| on_host(mappings, 0).unwrap_or(0);
    (root(&linux.uid_mappings), root(&linux.gid_mappings))
}

/// The user of the container's process as the host sees it; `None` if nobody.
pub(crate) fn process_user(spec: &Spec) -> Option<u32> {
    let uid = spec.process.as_ref().map_or(0, |process| process.user.uid);
    on_host(spec.linux.as_ref().map_or(&[], |linux| linux.uid_mappings.as_slice()), uid)
}

fn on_host(mappings: &[IdMapping], id: u32) -> Option<u32> {
    if mappings.is_empty() {
        return Some(id);
    }
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then(|| mapping.host_id().checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_its_range_or_not_at_all() {
        let map = serde_json::from_str(
            r#"[{"containerID":0,"hostID":1000,"size":1},
            {"containerID":5,"hostID":2000,"size":10}]"#,
        );
        let map: Vec<IdMapping> = map.unwrap();
        assert_eq!(on_host(&map, 0), Some(1000));
        assert_eq!(on_host(&map, 14), Some(2009));
        assert_eq!(on_host(&map, 15), None);
        assert_eq!(on_host(&[], 7), Some(7));
    }
}
