//! Bridges, their persistent definitions and their leases.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Store;
use super::files::{
    entries, read_json, read_link, read_text, remove, remove_directory, remove_tree, write,
    write_json, write_json_through, write_link,
};
use crate::subnet::Subnet;

/// What a bridge is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) subnet: Subnet,
    pub(crate) gateway: Ipv4Addr,
    /// `None`: that of the default route's link when the bridge is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    pub(crate) masquerade: bool,
    pub(crate) internal: bool,
}

impl Bridge {
    /// A bridge with the first address of the subnet as gateway and nothing out of the ordinary.
    pub(crate) fn new(name: &str, subnet: Subnet) -> Bridge {
        let gateway = Ipv4Addr::from(*subnet.hosts().start());
        Bridge {
            name: name.to_owned(),
            subnet,
            gateway,
            mtu: None,
            masquerade: true,
            internal: false,
        }
    }
}

/// A bridge that we made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BridgeRecord {
    #[serde(flatten)]
    pub(crate) bridge: Bridge,
    /// Made because an attachment needed it: it goes with its last container.
    pub(crate) automatic: bool,
}

impl Store {
    fn bridge_directory(&self, name: &str) -> PathBuf {
        self.root.join("bridges").join(name)
    }

    fn definition_path(&self, name: &str) -> PathBuf {
        self.config.join("bridges").join(format!("{name}.json"))
    }

    fn lease_path(&self, bridge: &str, address: Ipv4Addr) -> PathBuf {
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
        for file in ["last", "last.new", "bridge.new", "bridge.json"] {
            remove(&directory.join(file))?;
        }
        remove_directory(&directory)
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
    pub(crate) fn lease_owner(&self, bridge: &str, address: Ipv4Addr) -> Result<Option<String>> {
        read_link(&self.lease_path(bridge, address))
    }

    /// Gives an address to a container.
    pub(crate) fn take_lease(&self, bridge: &str, address: Ipv4Addr, id: &str) -> Result<()> {
        write_link(&self.lease_path(bridge, address), id)?;
        write(&self.bridge_directory(bridge).join("last"), address.to_string().as_bytes())
    }

    /// Takes an address back, unless it is another container's by now.
    pub(crate) fn release_lease(&self, bridge: &str, address: Ipv4Addr, id: &str) -> Result<()> {
        match self.lease_owner(bridge, address)? {
            Some(owner) if owner == id => remove(&self.lease_path(bridge, address)),
            _ => Ok(()),
        }
    }

    /// Whether any address but this one is in use on a bridge.
    pub(crate) fn has_other_leases(&self, bridge: &str, address: Ipv4Addr) -> Result<bool> {
        let ours = address.to_string();
        let leases = entries(&self.bridge_directory(bridge).join("leases"))?;
        Ok(leases.into_iter().any(|lease| lease != ours))
    }

    /// Addresses in use on a bridge and who has them.
    pub(crate) fn leases(&self, bridge: &str) -> Result<Vec<(String, String)>> {
        let mut leases = Vec::new();
        for address in entries(&self.bridge_directory(bridge).join("leases"))? {
            let owner = read_link(&self.bridge_directory(bridge).join("leases").join(&address))?;
            leases.extend(owner.map(|owner| (address, owner)));
        }
        Ok(leases)
    }

    /// The address given out most recently.
    pub(crate) fn last_address(&self, bridge: &str) -> Result<Option<Ipv4Addr>> {
        let text = read_text(&self.bridge_directory(bridge).join("last"))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }
}
