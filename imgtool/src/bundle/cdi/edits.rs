//! `containerEdits`: what a file wants changed in config.json.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A field that is not known would be left out silently, so there must be none.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Edits {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    device_nodes: Vec<Node>,
    #[serde(default)]
    net_devices: Vec<NetDevice>,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    hooks: Vec<Hook>,
    #[serde(default, rename = "additionalGids")]
    additional_gids: Vec<u32>,
    #[serde(default)]
    intel_rdt: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: String,
    host_path: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetDevice {
    host_interface_name: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    hook_name: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<u32>,
}

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Carries them out.
pub(super) fn apply(edits: &Edits, config: &mut Value) -> Result<()> {
    for word in &edits.env {
        let (key, _) = word.split_once('=').with_context(|| format!("env {word:?} has no ="))?;
        let list = list(&mut config["process"], "env")?;
        let prefix = format!("{key}=");
        list.retain(|known| !known.as_str().is_some_and(|known| known.starts_with(&prefix)));
        list.push(json!(word));
    }
    for node in &edits.device_nodes {
        add_node(node, config).with_context(|| format!("deviceNodes: {}", node.path))?;
    }
    for device in &edits.net_devices {
        let devices = &mut config["linux"]["netDevices"];
        devices[&device.host_interface_name] = json!({ "name": device.name });
    }
    add_mounts(&edits.mounts, config)?;
    for hook in &edits.hooks {
        ensure!(HOOKS.contains(&hook.hook_name.as_str()), "unknown hook {:?}", hook.hook_name);
        ensure!(hook.path.starts_with('/'), "the path of hook {:?} is not absolute", hook.path);
        let mut document = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
        if let Some(timeout) = hook.timeout {
            document["timeout"] = json!(timeout);
        }
        list(&mut config["hooks"], &hook.hook_name)?.push(document);
    }
    for gid in &edits.additional_gids {
        let list = list(&mut config["process"]["user"], "additionalGids")?;
        if !list.contains(&json!(gid)) {
            list.push(json!(gid));
        }
    }
    if let Some(rdt) = &edits.intel_rdt {
        config["linux"]["intelRdt"] = rdt.clone();
    }
    Ok(())
}

/// The array of this name, made if there is none.
fn list<'a>(parent: &'a mut Value, name: &str) -> Result<&'a mut Vec<Value>> {
    if parent.is_null() {
        *parent = Value::Object(Map::new());
    }
    let parent = parent.as_object_mut().context("config.json is not of its form")?;
    let list = parent.entry(name).or_insert_with(|| json!([]));
    list.as_array_mut().with_context(|| format!("{name} is no array"))
}

/// What the file leaves open is as it is on the host.
fn add_node(node: &Node, config: &mut Value) -> Result<()> {
    ensure!(node.path.starts_with('/'), "not an absolute path");
    let permissions = node.permissions.as_deref().unwrap_or("rwm");
    ensure!(permissions.bytes().all(|byte| b"rwm".contains(&byte)), "permissions {permissions:?}");
    let (kind, major, minor, mode) = match (node.kind.as_deref(), node.major, node.minor) {
        (Some(kind @ ("b" | "c" | "u")), Some(major), Some(minor)) => (kind, major, minor, None),
        (Some("p"), ..) => ("p", 0, 0, None),
        (None | Some("b" | "c" | "u"), ..) => {
            let host = node.host_path.as_deref().unwrap_or(&node.path);
            let (kind, major, minor, mode) = of_host(host)?;
            if let Some(wanted) = node.kind.as_deref().filter(|wanted| *wanted != kind) {
                ensure!(wanted == "u" && kind == "c", "{host} is of type {kind}, not {wanted}");
            }
            (kind, node.major.unwrap_or(major), node.minor.unwrap_or(minor), Some(mode))
        }
        (Some(kind), ..) => bail!("unknown type {kind:?}"),
    };
    let user = &config["process"]["user"];
    let owner = |given: Option<u32>, own: &Value| given.map_or_else(|| own.clone(), Value::from);
    let mut document = json!({
        "path": node.path, "type": kind,
        "uid": owner(node.uid, &user["uid"]), "gid": owner(node.gid, &user["gid"]),
    });
    if kind != "p" {
        document["major"] = json!(major);
        document["minor"] = json!(minor);
    }
    if let Some(mode) = node.file_mode.or(mode) {
        document["fileMode"] = json!(mode & 0o7777);
    }
    let devices = list(&mut config["linux"], "devices")?;
    devices.retain(|other| other["path"] != document["path"]);
    devices.push(document);
    // Without root there is no such list, since nobody is kept from a device that is there.
    let rules = config["linux"]["resources"].get_mut("devices").and_then(Value::as_array_mut);
    if let (Some(rules), true) = (rules, kind != "p") {
        let kind = if kind == "u" { "c" } else { kind };
        rules.push(json!({
            "allow": true, "type": kind, "major": major, "minor": minor, "access": permissions,
        }));
    }
    Ok(())
}

fn of_host(path: &str) -> Result<(&'static str, i64, i64, u32)> {
    let metadata = fs::metadata(path).with_context(|| format!("look at {path}"))?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => bail!("{path} is no device"),
    };
    let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
    Ok((kind, major.into(), minor.into(), metadata.mode() & 0o7777))
}

fn add_mounts(mounts: &[Mount], config: &mut Value) -> Result<()> {
    let list = list(config, "mounts")?;
    let mut added = Vec::new();
    for mount in mounts {
        ensure!(mount.container_path.starts_with('/'), "mount on {:?}", mount.container_path);
        let mut options = mount.options.clone();
        let binds = options.iter().any(|word| word == "bind" || word == "rbind");
        let kind = mount.kind.as_deref().unwrap_or("bind");
        if kind == "bind" && !binds {
            options.insert(0, "rbind".to_owned());
        }
        list.retain(|other| other["destination"] != json!(mount.container_path));
        added.push(json!({
            "destination": mount.container_path, "source": mount.host_path, "type": kind,
            "options": options,
        }));
    }
    // A mount must not hide one made before it.
    added.sort_by_key(|mount| {
        mount["destination"].as_str().unwrap_or_default().matches('/').count()
    });
    list.extend(added);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_add_and_replace() {
        let mut config = json!({
            "process": { "env": ["A=1", "B=2"], "user": { "uid": 7, "gid": 8 } },
            "mounts": [{ "destination": "/lib/x" }],
            "linux": { "resources": { "devices": [{ "allow": false }] } },
        });
        let edits: Edits = serde_json::from_value(json!({
            "env": ["A=9"],
            "deviceNodes": [{ "path": "/dev/gpu", "type": "c", "major": 195, "minor": 3, "permissions": "rw" },
                            { "path": "/dev/none", "hostPath": "/dev/null" }],
            "netDevices": [{ "hostInterfaceName": "eth7", "name": "net7" }],
            "mounts": [{ "hostPath": "/a/b", "containerPath": "/lib/x/y", "options": ["ro", "nosuid"] },
                       { "hostPath": "/a", "containerPath": "/lib/x", "options": ["bind"] }],
            "hooks": [{ "hookName": "createContainer", "path": "/bin/h", "args": ["h", "x"], "timeout": 3 }],
            "additionalGids": [44],
        }))
        .unwrap();
        apply(&edits, &mut config).unwrap();
        assert_eq!(config["process"]["env"], json!(["B=2", "A=9"]));
        assert_eq!(config["process"]["user"]["additionalGids"], json!([44]));
        let nodes = &config["linux"]["devices"];
        assert_eq!(
            nodes[0],
            json!({ "path": "/dev/gpu", "type": "c", "major": 195, "minor": 3, "uid": 7, "gid": 8 })
        );
        assert_eq!((&nodes[1]["major"], &nodes[1]["minor"]), (&json!(1), &json!(3)));
        let rules = config["linux"]["resources"]["devices"].as_array().unwrap();
        assert_eq!(rules[1]["access"], "rw");
        assert_eq!(rules.len(), 3);
        assert_eq!(config["linux"]["netDevices"], json!({ "eth7": { "name": "net7" } }));
        let targets: Vec<_> =
            config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].clone()).collect();
        assert_eq!(json!(targets), json!(["/lib/x", "/lib/x/y"]));
        assert_eq!(config["mounts"][1]["options"], json!(["rbind", "ro", "nosuid"]));
        assert_eq!(config["hooks"]["createContainer"][0]["timeout"], 3);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            json!({ "env": ["A"] }),
            json!({ "deviceNodes": [{ "path": "dev/x" }] }),
            json!({ "deviceNodes": [{ "path": "/dev/none-at-all" }] }),
            json!({ "deviceNodes": [{ "path": "/dev/null", "type": "z" }] }),
            json!({ "deviceNodes": [{ "path": "/dev/null", "type": "b" }] }),
            json!({ "deviceNodes": [{ "path": "/dev/null", "permissions": "x" }] }),
            json!({ "hooks": [{ "hookName": "never", "path": "/x" }] }),
            json!({ "hooks": [{ "hookName": "poststop", "path": "x" }] }),
            json!({ "mounts": [{ "hostPath": "/a", "containerPath": "b" }] }),
        ] {
            let edits: Edits = serde_json::from_value(bad.clone()).unwrap();
            assert!(apply(&edits, &mut json!({})).is_err(), "{bad}");
        }
    }
}
