//! Network devices that move from the host into the container.

use anyhow::{Result, bail};

use crate::spec::Linux;

/// `IFNAMSIZ`, of which one byte is the end.
const NAME_MAX: usize = 15;

/// A device to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetDevicePlan {
    pub(crate) name: String,
    /// What it is called in the container.
    pub(crate) new_name: String,
}

/// Decides what moves; names are those of devices, and no two come to be the same.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<NetDevicePlan>> {
    let mut planned: Vec<NetDevicePlan> = Vec::with_capacity(linux.net_devices.len());
    for (name, device) in &linux.net_devices {
        let new_name = if device.name.is_empty() { name } else { &device.name };
        for name in [name, new_name] {
            if !is_name(name) {
                bail!("linux.netDevices: invalid network device name {name:?}");
            }
        }
        if let Some(other) = planned.iter().find(|other| other.new_name == *new_name) {
            bail!("linux.netDevices: {} and {name} can't both be {new_name:?}", other.name);
        }
        planned.push(NetDevicePlan { name: name.clone(), new_name: new_name.clone() });
    }
    Ok(planned)
}

/// As the kernel judges.
fn is_name(name: &str) -> bool {
    let forbidden = |c: char| matches!(c, '/' | ':' | '\0') || c.is_ascii_whitespace();
    (1..=NAME_MAX).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Vec<NetDevicePlan>> {
        plan(&serde_json::from_str(&format!(r#"{{"netDevices":{json}}}"#)).unwrap())
    }

    #[test]
    fn a_device_keeps_its_name_unless_it_gets_another() {
        let devices = planned(r#"{"a":{},"b":{"name":"c"}}"#).unwrap();
        let names: Vec<_> = devices.iter().map(|it| (&*it.name, &*it.new_name)).collect();
        assert_eq!(names, [("a", "a"), ("b", "c")]);
    }

    #[test]
    fn what_can_be_no_device_is_refused() {
        for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx"] {
            let error = planned(&format!(r#"{{"{name}":{{}}}}"#)).unwrap_err().to_string();
            assert!(error.contains("invalid network device name"), "{error}");
        }
        assert!(planned(r#"{"a":{"name":"b/c"}}"#).is_err());
        assert!(planned(r#"{"a":{"name":"b"},"b":{}}"#).unwrap_err().to_string().contains("both"));
    }
}
