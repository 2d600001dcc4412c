//! Bridges, their persistent definitions and their leases.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Store;
use super::files::{
    entries, read_json, read_link, read_text, remove, remove_directory, remove_tree, write,
    write_json, write_json_through, write_link,
};
use crate::ipam::Pool;
use crate::subnet::{Family, Subnet};

/// What a bridge is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) subnets: Vec<BridgeSubnet>,
    /// `None`: that of the default route's link when the bridge is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    pub(crate) masquerade: bool,
    pub(crate) internal: bool,
    #[serde(default)]
    pub(crate) isolation: Isolation,
    /// Other hosts and bridges may begin connections to its containers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) routed: bool,
    /// Links alone: no part of the table, no forwarding, no settings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) bare: bool,
    /// The routing domain that its link is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vrf: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vlan: Option<Vlan>,
    /// The host hears whatever is sent on the bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) promiscuous: bool,
    /// Source addresses of packets that leave, at most one of each family, instead of that of the
    /// link that they leave by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) outbound: Vec<IpAddr>,
    /// What people note about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// The VLAN of a bridge's containers, and of the host's own end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vlan {
    pub(crate) id: u16,
    /// What is sent in the bridge's default VLAN reaches the containers too, as it does with CNI's
    /// plugin and with netavark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hears_default: bool,
}

impl Vlan {
    /// The highest of their numbers.
    pub(crate) const LAST: u16 = 4094;
}

/// Addresses of a bridge's containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BridgeSubnet {
    pub(crate) subnet: Subnet,
    /// The host's address on the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
    /// First and last of the addresses given out to those who ask for none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<(IpAddr, IpAddr)>,
    /// Addresses of others on the bridge, which are given to nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reserved: Vec<IpAddr>,
}

impl BridgeSubnet {
    /// A subnet with its first address as gateway.
    pub(crate) fn new(subnet: Subnet) -> BridgeSubnet {
        BridgeSubnet::with_gateway(subnet, Some(subnet.first_host()))
    }

    /// A subnet with this gateway or none.
    pub(crate) fn with_gateway(subnet: Subnet, gateway: Option<IpAddr>) -> BridgeSubnet {
        BridgeSubnet { subnet, gateway, range: None, reserved: Vec::new() }
    }

    /// Which of its addresses may be given out.
    pub(crate) fn pool(&self) -> Pool<'_> {
        let BridgeSubnet { subnet, gateway, range, ref reserved } = *self;
        Pool { subnet, gateway, range, reserved }
    }
}

/// From whom the containers of a bridge are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Isolation {
    /// From nobody: other bridges without isolation are reached.
    None,
    /// From the containers of other bridges
    #[default]
    Bridges,
    /// From each other too
    Containers,
}

impl Bridge {
    /// A bridge with nothing out of the ordinary.
    pub(crate) fn new(name: &str, subnets: Vec<BridgeSubnet>) -> Bridge {
        Bridge {
            name: name.to_owned(),
            subnets,
            mtu: None,
            masquerade: true,
            internal: false,
            isolation: Isolation::default(),
            routed: false,
            bare: false,
            vrf: None,
            vlan: None,
            promiscuous: false,
            outbound: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    /// The host's addresses on the bridge, each with its subnet.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = (IpAddr, Subnet)> {
        self.subnets.iter().filter_map(|it| it.gateway.map(|gateway| (gateway, it.subnet)))
    }

    /// Whether it has subnets of this family.
    pub(crate) fn has(&self, family: Family) -> bool {
        self.subnets.iter().any(|it| it.subnet.family() == family)
    }

    /// Whether packets of its containers can come and go only through a host that forwards.
    pub(crate) fn needs_forwarding(&self, family: Family) -> bool {
        !self.internal && !self.bare && self.has(family)
    }

    /// The source address of packets of a family that leave, where it is one in particular.
    pub(crate) fn outbound(&self, family: Family) -> Option<IpAddr> {
        self.outbound.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Its subnets, as people read them.
    pub(crate) fn subnets_text(&self) -> String {
        let texts: Vec<String> = self.subnets.iter().map(|it| it.subnet.to_string()).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(",") }
    }
}

/// A bridge that we made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BridgeRecord {
    #[serde(flatten)]
    pub(crate) bridge: Bridge,
    /// Made because an attachment needed it: it goes with its last container.
    pub(crate) automatic: bool,
    /// Its link was there before us: it stays, with the addresses that it had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) found: bool,
    /// Everything was made, its part of the table too.
    pub(crate) ready: bool,
}

impl Store {
    fn bridge_directory(&self, name: &str) -> PathBuf {
        self.root.join("bridges").join(name)
    }

    fn definition_path(&self, name: &str) -> PathBuf {
        self.config.join("bridges").join(format!("{name}.json"))
    }

    fn lease_path(&self, bridge: &str, address: IpAddr) -> PathBuf {
        self.bridge_directory(bridge).join("leases").join(address.to_string())
    }

    /// The bridge of this name that we made.
    pub(crate) fn bridge(&self, name: &str) -> Result<Option<BridgeRecord>> {
        read_json(&self.bridge_directory(name).join("bridge.json"))
    }

    /// Every bridge that we made.
    pub(crate) fn bridges(&self) -> Result<Vec<BridgeRecord>> {
        self.names("bridges")?.iter().filter_map(|name| self.bridge(name).transpose()).collect()
    }

    /// Records a bridge that is about to be made.
    pub(crate) fn save_bridge(&self, record: &BridgeRecord) -> Result<()> {
        write_json(&self.bridge_directory(&record.bridge.name).join("bridge.json"), record)
    }

    /// Forgets a bridge that is gone: its record last, by which it is known.
    pub(crate) fn forget_bridge(&self, name: &str) -> Result<()> {
        let directory = self.bridge_directory(name);
        remove_tree(&directory.join("leases"))?;
        remove_tree(&directory.join("members"))?;
        remove_tree(&directory.join("hosts"))?;
        for file in ["last-4", "last-4.new", "last-6", "last-6.new", "bridge.new", "bridge.json"] {
            remove(&directory.join(file))?;
        }
        remove_directory(&directory)
    }

    /// Removes directories without a record, which comes first and goes last of all that is in one.
    pub(super) fn forget_nameless_bridges(&self) -> Result<()> {
        for name in self.names("bridges")? {
            if self.bridge(&name)?.is_none() {
                self.forget_bridge(&name)?;
            }
        }
        Ok(())
    }

    /// The persistent definition of a bridge.
    pub(crate) fn definition(&self, name: &str) -> Result<Option<Bridge>> {
        read_json(&self.definition_path(name))
    }

    /// Every persistent definition.
    pub(crate) fn definitions(&self) -> Result<Vec<Bridge>> {
        let names = entries(&self.config.join("bridges"))?;
        let names = names.iter().filter_map(|name| name.strip_suffix(".json"));
        names.filter_map(|name| self.definition(name).transpose()).collect()
    }

    /// Keeps a definition over reboots.
    pub(crate) fn save_definition(&self, bridge: &Bridge) -> Result<()> {
        write_json_through(&self.definition_path(&bridge.name), bridge)
    }

    /// Removes a definition, and the directories that held only it.
    pub(crate) fn remove_definition(&self, name: &str) -> Result<()> {
        let path = self.definition_path(name);
        remove(&path.with_extension("new"))?;
        remove(&path)?;
        remove_directory(&self.config.join("bridges"))?;
        remove_directory(&self.config)
    }

    /// Which container has an address.
    pub(crate) fn lease_owner(&self, bridge: &str, address: IpAddr) -> Result<Option<String>> {
        read_link(&self.lease_path(bridge, address))
    }

    /// Removes what a command left that was killed while it wrote a definition: where /etc is
    /// read-only by now it stays, and is in nobody's way.
    pub(super) fn forget_half_definitions(&self) -> Result<()> {
        let directory = self.config.join("bridges");
        for name in entries(&directory)?.iter().filter(|name| name.ends_with(".new")) {
            drop(remove(&directory.join(name)));
        }
        drop(remove_directory(&directory).and_then(|()| remove_directory(&self.config)));
        Ok(())
    }

    /// Gives an address to a container.
    pub(crate) fn take_lease(&self, bridge: &str, address: IpAddr, id: &str) -> Result<()> {
        write_link(&self.lease_path(bridge, address), id)?;
        let last = self.last_path(bridge, Family::of(address));
        write(&last, address.to_string().as_bytes())
    }

    /// Takes an address back, unless it is another container's by now.
    pub(crate) fn release_lease(&self, bridge: &str, address: IpAddr, id: &str) -> Result<()> {
        match self.lease_owner(bridge, address)? {
            Some(owner) if owner == id => remove(&self.lease_path(bridge, address)),
            _ => Ok(()),
        }
    }

    /// The address of a family given out most recently.
    pub(crate) fn last_address(&self, bridge: &str, family: Family) -> Result<Option<IpAddr>> {
        let text = read_text(&self.last_path(bridge, family))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    fn last_path(&self, bridge: &str, family: Family) -> PathBuf {
        let name = if family == Family::V4 { "last-4" } else { "last-6" };
        self.bridge_directory(bridge).join(name)
    }

    fn member_path(&self, bridge: &str, id: &str, interface: &str) -> PathBuf {
        self.bridge_directory(bridge).join("members").join(format!("{id},{interface}"))
    }

    /// Notes that a container is on a bridge.
    pub(crate) fn join(&self, bridge: &str, id: &str, interface: &str) -> Result<()> {
        write_link(&self.member_path(bridge, id, interface), id)
    }

    /// Notes that a file has the names of a bridge's containers: a container's on it.
    pub(crate) fn save_hosts(&self, bridge: &str, id: &str, path: &Path) -> Result<()> {
        let link = self.bridge_directory(bridge).join("hosts").join(id);
        write_link(&link, &path.to_string_lossy())
    }

    /// Notes that the file of a container has them no longer.
    pub(crate) fn forget_hosts(&self, bridge: &str, id: &str) -> Result<()> {
        remove(&self.bridge_directory(bridge).join("hosts").join(id))
    }

    /// Whether a container has a file with them.
    pub(crate) fn has_hosts(&self, bridge: &str, id: &str) -> bool {
        self.bridge_directory(bridge).join("hosts").join(id).is_symlink()
    }

    /// The files with names of a bridge's containers: (id, path).
    pub(crate) fn hosts(&self, bridge: &str) -> Result<Vec<(String, PathBuf)>> {
        let directory = self.bridge_directory(bridge).join("hosts");
        let mut files = Vec::new();
        for id in entries(&directory)? {
            let path = read_link(&directory.join(&id))?;
            files.extend(path.map(|path| (id, PathBuf::from(path))));
        }
        Ok(files)
    }

    /// Notes that a container is no longer on a bridge.
    pub(crate) fn leave(&self, bridge: &str, id: &str, interface: &str) -> Result<()> {
        remove(&self.member_path(bridge, id, interface))
    }

    /// Who is on a bridge: (id, interface).
    pub(crate) fn members(&self, bridge: &str) -> Result<Vec<(String, String)>> {
        let names = entries(&self.bridge_directory(bridge).join("members"))?;
        let pairs = names.iter().filter_map(|name| name.split_once(','));
        Ok(pairs.map(|(id, interface)| (id.to_owned(), interface.to_owned())).collect())
    }
}
