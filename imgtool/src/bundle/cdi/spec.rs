//! A vendor's file, in JSON or YAML, and the names of devices.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

use super::edits::Edits;

const MAX_BYTES: u64 = 4 << 20;
/// Deeper than any specification is.
const MAX_DEPTH: usize = 32;

/// `vendor.com/class=name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// What the file says.
#[derive(Debug, Deserialize)]
pub(super) struct Spec {
    pub(super) kind: String,
    #[serde(default)]
    devices: Vec<Entry>,
    /// Of all its devices.
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    name: String,
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let parts = word.split_once('=').filter(|(kind, name)| is_kind(kind) && is_name(name));
        let (kind, name) = parts.context("want VENDOR/CLASS=NAME")?;
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

fn is_kind(word: &str) -> bool {
    let letters = |word: &str, more: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.ends_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    word.split_once('/')
        .is_some_and(|(vendor, class)| letters(vendor, "-_.") && letters(class, "-_"))
}

pub(super) fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.ends_with(|c: char| c.is_ascii_alphanumeric())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

impl Spec {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        let file = fs::File::open(path).context("open it")?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).context("read it")?;
        ensure!(text.len() as u64 <= MAX_BYTES, "it is larger than {MAX_BYTES} bytes");
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let value = if is_json { serde_json::from_str(&text)? } else { of_yaml(&text)? };
        Self::parse(value)
    }

    fn parse(value: Value) -> Result<Self> {
        let version = value["cdiVersion"].as_str().context("it has no cdiVersion")?;
        // What a later one may say and we don't know would silently be left out.
        let known = ["0.3.", "0.4.", "0.5.", "0.6.", "0.7.", "0.8.", "1.0.", "1.1."];
        ensure!(
            known.iter().any(|start| version.starts_with(start)),
            "cdiVersion {version} is unknown"
        );
        let spec: Self = serde_json::from_value(value)?;
        ensure!(is_kind(&spec.kind), "its kind {:?} is not VENDOR/CLASS", spec.kind);
        if let Some(entry) = spec.devices.iter().find(|entry| !is_name(&entry.name)) {
            bail!("bad name of a device: {:?}", entry.name);
        }
        Ok(spec)
    }

    pub(super) fn device(&self, name: &str) -> Option<&Entry> {
        self.devices.iter().find(|entry| entry.name == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|entry| entry.name.as_str())
    }
}

fn of_yaml(text: &str) -> Result<Value> {
    let documents = YamlLoader::load_from_str(text)?;
    json(documents.first().context("it is empty")?, 0)
}

fn json(yaml: &Yaml, depth: usize) -> Result<Value> {
    ensure!(depth < MAX_DEPTH, "it is nested too deeply");
    Ok(match yaml {
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::Boolean(truth) => Value::from(*truth),
        Yaml::Array(list) => list.iter().map(|one| json(one, depth + 1)).collect::<Result<_>>()?,
        Yaml::Hash(pairs) => {
            let mut object = Map::new();
            for (key, value) in pairs {
                let key = key.as_str().context("a key is no string")?;
                object.insert(key.to_owned(), json(value, depth + 1)?);
            }
            Value::Object(object)
        }
        Yaml::Null => Value::Null,
        Yaml::Real(_) | Yaml::Alias(_) | Yaml::BadValue => bail!("a value of no use: {yaml:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_a_vendor_a_class_and_a_name() {
        for good in ["nvidia.com/gpu=all", "a.b/c-d=0:1", "v/c=x.y_z-1"] {
            assert_eq!(good.parse::<Device>().unwrap().to_string(), good);
        }
        for bad in
            ["", "gpu=0", "v/c", "v/c=", "/c=x", "v/=x", "1v/c=x", "v/c/d=x", "v/c=x=y", "/dev/x"]
        {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "cdiVersion: 0.6.0\nkind: v.com/c\ndevices:\n- name: \"0\"\n  containerEdits:\n    \
                    env: [A=b]\n    deviceNodes:\n    - path: /dev/x\n      major: 1\n      fileMode: 0o660\n";
        let json = r#"{"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": [{"name": "0",
            "containerEdits": {"env": ["A=b"], "deviceNodes": [{"path": "/dev/x", "major": 1, "fileMode": 432}]}}]}"#;
        let of_json = Spec::parse(serde_json::from_str(json).unwrap()).unwrap();
        let of_yaml = Spec::parse(of_yaml(yaml).unwrap()).unwrap();
        assert_eq!(format!("{of_json:?}"), format!("{of_yaml:?}"));
        for bad in ["", "kind: v/c", "cdiVersion: 9.0.0\nkind: v/c", "cdiVersion: 0.6.0\nkind: c"] {
            assert!(super::of_yaml(bad).and_then(Spec::parse).is_err(), "{bad}");
        }
        let unknown = "cdiVersion: 0.6.0\nkind: v/c\ncontainerEdits: {magic: true}";
        assert!(super::of_yaml(unknown).and_then(Spec::parse).is_err());
    }
}
