//! The plugin `tuning`: kernel settings of a container's namespace, and properties of its link.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::config::{Config, ValidAttachment};
use super::failure::{Code, Failure};
use super::pattern;
use super::{Call, open_store};
use crate::netlink::Connection;
use crate::netlink::link::{self, Change};
use crate::netns::NetworkNamespace;
use crate::plan;
use crate::state::files::read_text;
use crate::state::{Place, Source, Tuned};
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
    let mut inside = netns.enter(Connection::route)?;
    let link = link::find(&mut inside, &call.interface)?;
    if change != Change::default() {
        link.as_ref().with_context(|| format!("no link {}", call.interface))?;
    }
    let mut before = Vec::new();
    netns.enter(|| {
        for (name, _) in &settings {
            let present = sysctl::read(name)?;
            let present = present.with_context(|| format!("this kernel has no setting {name}"))?;
            before.push((name.clone(), present));
        }
        Ok(())
    })?;
    let source = Source::Path(call.netns_path().to_owned());
    let place = Place { source, identity: netns.identity() };
    let tuned = Tuned {
        origin: config.origin(),
        place: place.to_string(),
        link: link.as_ref().map(|link| change.back(link)).unwrap_or_default(),
        settings: before,
    };
    let store = open_store()?;
    store.save_tuned(&call.container, &call.interface, &tuned)?;
    let wanted = settings.iter().map(|(name, value)| (name.as_str(), *value));
    apply(&netns, &call.interface, wanted, &change)?;
    if let (Some(mac), Some(interfaces)) =
        (change.mac, result.get_mut("interfaces").and_then(Value::as_array_mut))
    {
        for interface in interfaces.iter_mut().filter(|it| it["name"] == call.interface.as_str()) {
            interface["mac"] = Value::String(plan::mac_text(mac));
        }
    }
    Ok(result)
}

/// Gives a namespace its settings, and a link in it its properties.
fn apply<'a>(
    netns: &NetworkNamespace,
    interface: &str,
    settings: impl Iterator<Item = (&'a str, &'a str)>,
    change: &Change,
) -> Result<()> {
    let mut inside = netns.enter(|| {
        for (name, value) in settings {
            sysctl::set(name, value)?;
        }
        Connection::route()
    })?;
    if *change == Change::default() {
        return Ok(());
    }
    let Some(link) = link::find(&mut inside, interface)? else { return Ok(()) };
    inside
        .transact(vec![link::change(link.index, change)])
        .with_context(|| format!("change link {interface}"))
}

/// Gives back what was there before, where it still is.
pub(super) fn del(call: &Call) -> Result<()> {
    let store = open_store()?;
    if let Some(tuned) = store.tuned(&call.container, &call.interface)?
        && let Some(place) = Place::parse(&tuned.place)
        && let Ok(netns) = NetworkNamespace::open(&place.source.path())
        && netns.identity() == place.identity
    {
        let settings = tuned.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        apply(&netns, &call.interface, settings, &tuned.link)?;
    }
    store.forget_tuned(&call.container, &call.interface)
}

/// Forgets what was changed of containers that the network has no longer.
pub(super) fn collect(config: &Config, valid: &[ValidAttachment]) -> Result<()> {
    let store = open_store()?;
    for (id, interface) in store.tuned_ones()? {
        let is_ours = store.tuned(&id, &interface)?.is_some_and(|it| it.origin == config.origin());
        let is_valid = valid.iter().any(|it| it.container_id == id && it.ifname == interface);
        if is_ours && !is_valid {
            store.forget_tuned(&id, &interface)?;
        }
    }
    Ok(())
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
