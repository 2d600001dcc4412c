//! What an image's layers show together, one line a file, read from `imgtool save`.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value;

use super::Scene;

/// Files by path: kind, mode, owner, and contents or target.
pub(crate) type Tree = BTreeMap<String, String>;

/// An image's configuration and its layers, bottom first, each with its entries in order.
pub(crate) struct Saved {
    pub(crate) config: Value,
    pub(crate) layers: Vec<Vec<(String, String)>>,
}

/// Saves an image and reads it.
pub(crate) fn saved(scene: &Scene, name: &str) -> Saved {
    let archive = scene.path("tree.tar");
    scene
        .imgtool()
        .args(["save", "--uncompressed", name, "--output"])
        .arg(&archive)
        .run()
        .success();
    let read = read_archive(&std::fs::read(&archive).unwrap());
    std::fs::remove_file(&archive).unwrap();
    read
}

/// Reads an archive of `docker save`.
pub(crate) fn read_archive(bytes: &[u8]) -> Saved {
    let mut members: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        if let Ok(Some(target)) = entry.link_name() {
            // Docker links equal layers to the first one.
            let target = target.to_string_lossy().trim_start_matches("../").to_owned();
            contents = members.get(&target).cloned().unwrap_or_default();
        }
        members.insert(name, contents);
    }
    let manifest: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap().iter();
    Saved {
        config: serde_json::from_slice(&members[config]).unwrap(),
        layers: layers.map(|name| entries(&members[name.as_str().unwrap()])).collect(),
    }
}

fn entries(layer: &[u8]) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for entry in tar::Archive::new(layer).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        let header = entry.header().clone();
        let owner = format!("{}:{}", header.uid().unwrap(), header.gid().unwrap());
        let mode = header.mode().unwrap() & 0o7777;
        let link = entry.link_name().unwrap().map(|link| link.to_string_lossy().into_owned());
        let text = match header.entry_type() {
            tar::EntryType::Directory => format!("dir {mode:o} {owner}"),
            tar::EntryType::Symlink => format!("link {owner} {}", link.unwrap_or_default()),
            tar::EntryType::Link => format!("= {}", link.unwrap_or_default()),
            tar::EntryType::Regular => {
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                let shown = match String::from_utf8(contents) {
                    Ok(text) if text.len() < 200 => format!("{text:?}"),
                    Ok(text) => format!("{} bytes", text.len()),
                    Err(error) => format!("{} bytes", error.as_bytes().len()),
                };
                format!("file {mode:o} {owner} {shown}")
            }
            other => format!("{other:?} {mode:o} {owner}"),
        };
        list.push((path, text));
    }
    list
}

impl Saved {
    /// The tree of all layers from the one with this number on.
    pub(crate) fn tree(&self, from: usize) -> Tree {
        let mut tree = Tree::new();
        for layer in &self.layers[from..] {
            let whiteouts = layer.iter().filter_map(|(path, _)| {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                Some((parent, name.strip_prefix(".wh.")?))
            });
            for (parent, name) in whiteouts {
                let gone =
                    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
                let opaque = name == ".wh..opq";
                tree.retain(|path, _| match opaque {
                    true => !path.starts_with(&format!("{parent}/")),
                    false => *path != gone && !path.starts_with(&format!("{gone}/")),
                });
            }
            for (path, text) in layer {
                let name = path.rsplit('/').next().unwrap_or_default();
                if !path.is_empty() && path != "." && !name.starts_with(".wh.") {
                    let linked = text.strip_prefix("= ").and_then(|first| tree.get(first).cloned());
                    if !text.starts_with("dir ") {
                        tree.retain(|other, _| !other.starts_with(&format!("{path}/")));
                    }
                    tree.insert(path.clone(), linked.unwrap_or_else(|| text.clone()));
                }
            }
        }
        tree
    }
}
