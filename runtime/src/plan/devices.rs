//! The device nodes and links of a container's /dev.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::rooted::clean;
use crate::spec::{Device, Linux, Mount};

/// A node to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Relative to the root.
    pub(crate) path: PathBuf,
    pub(crate) kind: NodeKind,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Character,
    Block,
    Fifo,
}

/// Nodes that every container has.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links that every container has, beneath /dev.
pub(crate) const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// True unless /dev is somebody else's directory, bound there with all that is in it.
pub(crate) fn is_ours(mounts: &[Mount]) -> bool {
    !mounts.iter().any(|mount| {
        let bind = |word: &String| word == "bind" || word == "rbind";
        clean(mount.destination()) == Path::new("dev")
            && (mount.typ().as_deref() == Some("bind")
                || mount.options().as_deref().unwrap_or_default().iter().any(bind))
    })
}

/// The nodes of config.json, after the default ones that it does not replace.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<Node>> {
    let wanted = linux
        .devices
        .iter()
        .enumerate()
        .map(|(index, device)| node(device).with_context(|| format!("linux.devices[{index}]")))
        .collect::<Result<Vec<Node>>>()?;
    let mut nodes: Vec<Node> = DEFAULTS
        .into_iter()
        .map(|(name, major, minor)| Node {
            path: Path::new("dev").join(name),
            kind: NodeKind::Character,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .filter(|default| wanted.iter().all(|node| node.path != default.path))
        .collect();
    nodes.extend(wanted);
    Ok(nodes)
}

fn node(device: &Device) -> Result<Node> {
    let kind = match device.kind.as_str() {
        "c" | "u" => NodeKind::Character,
        "b" => NodeKind::Block,
        "p" => NodeKind::Fifo,
        other => bail!("invalid device type {other:?} of {}", device.path),
    };
    let number = |value: i64, name: &str| {
        u32::try_from(value).or_else(|_| bail!("invalid {name} {value} of device {}", device.path))
    };
    let path = clean(Path::new(&device.path));
    if path.as_os_str().is_empty() {
        bail!("path {:?} names no device", device.path);
    }
    Ok(Node {
        path,
        kind,
        major: number(device.major, "major")?,
        minor: number(device.minor, "minor")?,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_the_same_path_replaces_the_default() {
        let linux: Linux = serde_json::from_str(
            r#"{"devices":[{"type":"c","path":"/dev/null","major":1,"minor":3,"fileMode":384},
                {"type":"b","path":"/dev/x/y","major":7,"minor":0,"uid":5}]}"#,
        )
        .unwrap();
        let nodes = plan(&linux).unwrap();
        assert_eq!(nodes.len(), 7);
        assert_eq!(nodes.iter().find(|node| node.path.ends_with("null")).unwrap().mode, 0o600);
        assert_eq!(nodes[6].uid, 5);
    }

    #[test]
    fn a_bound_dev_is_left_alone() {
        let mounts: Vec<Mount> = serde_json::from_str(
            r#"[{"destination":"/dev/","type":"bind","source":"/dev","options":["rbind"]}]"#,
        )
        .unwrap();
        assert!(!is_ours(&mounts));
        assert!(is_ours(&[]));
    }
}
