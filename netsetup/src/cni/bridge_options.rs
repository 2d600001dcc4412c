//! What a configuration of the plugin `bridge` asks for, in our words.

use anyhow::Result;
use serde::Deserialize;

use super::config::Config;
use super::failure::{Code, Failure};
use super::ipam::{self, Keeper};
use crate::plan;
use crate::request::{PortWishes, Trunk};
use crate::state::{Bridge, Isolation, Vlan};

fn yes() -> bool {
    true
}

/// How much of a network one call sets up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// All of it, as `netsetup`.
    Everything,
    /// What the reference plugin `bridge` does.
    BridgeAlone,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Options {
    bridge: Option<String>,
    pub(super) is_gateway: Option<bool>,
    is_default_gateway: Option<bool>,
    ip_masq: Option<bool>,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    port_isolation: bool,
    isolation: Option<Isolation>,
    routed: Option<bool>,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    vlan: u16,
    #[serde(default = "yes")]
    preserve_default_vlan: bool,
    #[serde(default)]
    vlan_trunk: Vec<TrunkConfig>,
    #[serde(default)]
    hairpin_mode: bool,
    #[serde(default)]
    promisc_mode: bool,
    #[serde(default)]
    macspoofchk: bool,
    #[serde(default)]
    disable_container_interface: bool,
    #[serde(default)]
    enabledad: bool,
}

/// One VLAN, a row of them, or both.
#[derive(Clone, Debug, Deserialize)]
struct TrunkConfig {
    id: Option<u16>,
    #[serde(rename = "minID")]
    min_id: Option<u16>,
    #[serde(rename = "maxID")]
    max_id: Option<u16>,
}

impl TrunkConfig {
    fn ranges(&self) -> Result<Vec<(u16, u16)>, String> {
        let row = match (self.min_id, self.max_id) {
            (Some(first), Some(last)) if first <= last => Some((first, last)),
            (Some(first), Some(last)) => {
                return Err(format!("vlanTrunk: minID {first} is more than maxID {last}"));
            }
            (None, None) => None,
            _ => return Err("vlanTrunk: minID and maxID go together".to_owned()),
        };
        let ranges: Vec<_> = self.id.map(|id| (id, id)).into_iter().chain(row).collect();
        let is_vlan = |id: &u16| (1..=Vlan::LAST).contains(id);
        if let Some(id) =
            ranges.iter().flat_map(|(first, last)| [first, last]).find(|id| !is_vlan(id))
        {
            return Err(format!("vlanTrunk: {id} is none of 1 to {}", Vlan::LAST));
        }
        Ok(ranges)
    }
}

impl Options {
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        let bad = |text: String| Err(Failure::new(Code::Config, text).into());
        if self.vlan > Vlan::LAST {
            return bad(format!("vlan {} is none of 0 to {}", self.vlan, Vlan::LAST));
        }
        if self.promisc_mode && self.hairpin_mode {
            return bad("hairpinMode and promiscMode exclude each other".to_owned());
        }
        if self.disable_container_interface && ipam::keeper(config)? != Keeper::Nobody {
            let text = "disableContainerInterface leaves the link off, which gets no addresses: \
                        leave ipam out";
            return bad(text.to_owned());
        }
        Ok(())
    }

    pub(super) fn port(&self) -> Result<PortWishes> {
        let ranges = self.vlan_trunk.iter().map(TrunkConfig::ranges);
        let ranges = ranges
            .collect::<Result<Vec<_>, _>>()
            .map_err(|text| Failure::new(Code::Config, text))?
            .concat();
        let hears_default = self.preserve_default_vlan;
        Ok(PortWishes {
            own_mac_only: self.macspoofchk,
            trunk: (!ranges.is_empty()).then_some(Trunk { ranges, hears_default }),
            stays_off: self.disable_container_interface,
            asks_neighbours: self.enabledad,
        })
    }

    pub(super) fn is_default_gateway(&self, whole: Whole) -> bool {
        self.is_default_gateway.unwrap_or(whole == Whole::Everything)
    }

    fn isolation(&self, whole: Whole) -> Isolation {
        let default = if whole == Whole::Everything { Isolation::Bridges } else { Isolation::None };
        let asked = self.port_isolation.then_some(Isolation::Containers);
        asked.or(self.isolation).unwrap_or(default)
    }

    /// The bridge that a network is on.
    pub(super) fn bridge(&self, config: &Config, whole: Whole) -> Result<Bridge> {
        let name = match (&self.bridge, whole) {
            (Some(name), _) => name.as_str(),
            (None, Whole::BridgeAlone) => "cni0",
            (None, Whole::Everything) => &config.name,
        };
        plan::check_bridge_name(name)
            .map_err(|error| Failure::new(Code::Config, format!("{error:#}")))?;
        let is_classic = whole == Whole::BridgeAlone;
        let mut bridge = Bridge::new(name, Vec::new());
        bridge.mtu = (self.mtu != 0).then_some(self.mtu);
        bridge.masquerade = self.ip_masq.unwrap_or(!is_classic);
        bridge.internal = self.internal;
        bridge.isolation = self.isolation(whole);
        // The reference plugin leaves it to others to keep anybody out.
        bridge.routed = self.routed.unwrap_or(is_classic);
        let vlan = Vlan { id: self.vlan, hears_default: self.preserve_default_vlan };
        bridge.vlan = (self.vlan != 0).then_some(vlan);
        bridge.promiscuous = self.promisc_mode;
        Ok(bridge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Result<Vec<(u16, u16)>, String> {
        serde_json::from_str::<TrunkConfig>(text).unwrap().ranges()
    }

    #[test]
    fn a_trunk_is_of_single_vlans_and_of_rows() {
        assert_eq!(ranges(r#"{"id":7}"#), Ok(vec![(7, 7)]));
        assert_eq!(ranges(r#"{"minID":7,"maxID":9,"id":2}"#), Ok(vec![(2, 2), (7, 9)]));
        for bad in [r#"{"minID":7}"#, r#"{"minID":9,"maxID":7}"#, r#"{"id":0}"#, r#"{"id":4095}"#] {
            assert!(ranges(bad).is_err(), "{bad}");
        }
    }
}
