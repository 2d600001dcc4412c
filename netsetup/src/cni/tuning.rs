//! The plugin `tuning`: kernel settings of a container's namespace, and properties of its link.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::Call;
use super::config::Config;
use super::failure::{Code, Failure};
use super::pattern;
use crate::netlink::Connection;
use crate::netlink::link::{self, Change};
use crate::plan;
use crate::state::files::read_text;
use crate::sysctl;

/// Which settings may be set: a pattern per line. Without the file all of the network's may.
const ALLOWED: &str = "/etc/cni/tuning/allowlist.conf";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    #[serde(default)]
    sysctl: BTreeMap<String, String>,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    promisc: Option<bool>,
    #[serde(default)]
    allmulti: Option<bool>,
    #[serde(default, rename = "txQLen")]
    queue_length: Option<u32>,
}

impl Options {
    fn change(&self, call: &Call, config: &Config) -> Result<Change> {
        let wished = config.wished_mac(call.argument("MAC")).or(self.mac.as_deref());
        let mac = wished.map(plan::parse_mac).transpose();
        Ok(Change {
            mac: mac.map_err(|text| Failure::new(Code::Config, text))?,
            mtu: self.mtu,
            promiscuous: self.promisc,
            all_multicast: self.allmulti,
            queue_length: self.queue_length,
        })
    }

    /// The settings by the names of their files.
    fn settings(&self, interface: &str) -> Result<Vec<(String, &str)>> {
        let allowed = read_text(Path::new(ALLOWED))?;
        let names = self.sysctl.iter().map(|(key, value)| {
            let key = key.replace("IFNAME", interface);
            let bad = |text: String| Failure::new(Code::Config, text);
            // As sysctl has it: slashes separate where a part has dots of its own.
            let name = if key.contains('/') { key.clone() } else { key.replace('.', "/") };
            if !name.starts_with("net/")
                || name.split('/').any(|part| part == ".." || part.is_empty())
            {
                return Err(bad(format!("{key:?} is no setting of the network's")).into());
            }
            let is_allowed = |text: &String| {
                let lines = text.lines().map(str::trim);
                lines.filter(|line| !line.is_empty()).any(|line| pattern::matches(line, &key))
            };
            if !allowed.as_ref().is_none_or(is_allowed) {
                return Err(bad(format!("setting {key:?} is not allowed by {ALLOWED}")).into());
            }
            Ok((name, value.as_str()))
        });
        names.collect()
    }
}

pub(super) fn add(call: &Call, config: &Config) -> Result<Value> {
    let options: Options = config.options()?;
    let settings = options.settings(&call.interface)?;
    let change = options.change(call, config)?;
    let mut result = config.passed_on()?;
    let netns = call.open_netns()?;
    let mut inside = netns.enter(|| {
        for (name, value) in &settings {
            sysctl::read(name)?.with_context(|| format!("this kernel has no setting {name}"))?;
            sysctl::set(name, value)?;
        }
        Connection::route()
    })?;
    if change != Change::default() {
        let link = link::find(&mut inside, &call.interface)?;
        let link = link.with_context(|| format!("no link {}", call.interface))?;
        inside
            .transact(vec![link::change(link.index, &change)])
            .with_context(|| format!("change link {}", call.interface))?;
    }
    if let (Some(mac), Some(interfaces)) =
        (change.mac, result.get_mut("interfaces").and_then(Value::as_array_mut))
    {
        for interface in interfaces.iter_mut().filter(|it| it["name"] == call.interface.as_str()) {
            interface["mac"] = Value::String(plan::mac_text(mac));
        }
    }
    Ok(result)
}

pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    config.previous()?;
    let options: Options = config.options()?;
    let settings = options.settings(&call.interface)?;
    let change = options.change(call, config)?;
    let wrong = |text: String| Failure::new(Code::Internal, text);
    let mut inside = call.open_netns()?.enter(|| {
        for (name, value) in &settings {
            let present = sysctl::read(name)?.unwrap_or_default();
            if present != *value {
                return Err(wrong(format!("setting {name} is {present:?}, not {value:?}")).into());
            }
        }
        Connection::route()
    })?;
    let link = link::find(&mut inside, &call.interface)?;
    let link = link.with_context(|| format!("no link {}", call.interface))?;
    if change.mtu.is_some_and(|mtu| mtu != link.mtu) {
        return Err(wrong(format!("the MTU of {} is {}", call.interface, link.mtu)).into());
    }
    if change.mac.is_some() && change.mac != link.mac {
        return Err(wrong(format!("the hardware address of {} is another", call.interface)).into());
    }
    Ok(())
}
