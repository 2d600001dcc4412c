//! The VLAN of a bridge: of the host's end when the bridge is made, of each port when a container
//! comes.

use anyhow::{Context, Result, bail};

use super::Host;
use crate::netlink::link::{self, Link};
use crate::netlink::vlan::{self, End, Vlans};
use crate::request::{AttachRequest, Trunk};
use crate::state::{Bridge, BridgeRecord, Vlan};

impl Host<'_> {
    /// Readies a bridge that is there for its VLAN.
    pub(super) fn equip_vlan(&mut self, record: &BridgeRecord, index: u32) -> Result<()> {
        let BridgeRecord { bridge, found, .. } = record;
        let Some(wanted) = bridge.vlan else { return Ok(()) };
        let vlans = self.vlans(&bridge.name)?;
        let has_addresses = bridge.gateways().next().is_some();
        if *found && has_addresses {
            bail!(
                "bridge {} is not ours, and which VLAN its own end is in stays as it is: give the \
                 network no gateway, or a bridge of its own",
                bridge.name
            );
        }
        let mut requests = Vec::new();
        if !vlans.is_on {
            requests.push(vlan::switch_on(index));
        }
        if has_addresses && vlans.default != wanted.id {
            requests.push(vlan::join(End::Host(index), wanted.id));
        }
        self.route
            .transact(requests)
            .with_context(|| format!("put bridge {} into VLAN {}", bridge.name, wanted.id))
    }

    /// The VLAN that an attachment asks for; without a wish of its own, its bridge's.
    pub(super) fn choose_vlan(request: &AttachRequest, bridge: &Bridge) -> Result<Option<Vlan>> {
        let Some(wished) = &request.bridge else { return Ok(bridge.vlan) };
        let has_addresses = wished.gateways().next().is_some();
        if wished.vlan != bridge.vlan && has_addresses {
            let text = |vlan: Option<Vlan>| {
                vlan.map_or_else(|| "no VLAN".to_owned(), |it| format!("VLAN {}", it.id))
            };
            bail!(
                "the host's end of bridge {} is in {}, so that a network in {} can't have it as \
                 gateway: give the network no gateway, or a bridge of its own",
                bridge.name,
                text(bridge.vlan),
                text(wished.vlan)
            );
        }
        Ok(wished.vlan)
    }

    /// Puts a port into the VLANs that it is to be in, and into no other.
    pub(super) fn enter_vlans(
        &mut self,
        own: Option<Vlan>,
        trunk: Option<&Trunk>,
        bridge: &Link,
        port: &Link,
    ) -> Result<()> {
        if own.is_none() && trunk.is_none() {
            return Ok(());
        }
        let vlans = self.vlans(&bridge.name)?;
        let end = End::Port(port.index);
        let mut requests = Vec::new();
        if !vlans.is_on {
            requests.push(vlan::switch_on(bridge.index));
        }
        if let Some(own) = own.filter(|own| own.id != vlans.default) {
            requests.push(vlan::join(end, own.id));
        }
        let hears_default = match (own, trunk) {
            (Some(own), _) => own.hears_default || own.id == vlans.default,
            (None, trunk) => trunk.is_none_or(|trunk| trunk.hears_default),
        };
        if vlans.default != 0 && !hears_default {
            requests.push(vlan::leave(end, vlans.default));
        }
        let ranges = trunk.into_iter().flat_map(|trunk| &trunk.ranges);
        requests.extend(ranges.map(|range| vlan::join_tagged(end, *range)));
        self.route.transact(requests).with_context(|| format!("put {} into its VLANs", port.name))
    }

    fn vlans(&mut self, bridge: &str) -> Result<Vlans> {
        let link = link::find(&mut self.route, bridge)?;
        link.and_then(|link| link.vlans).with_context(|| no_vlans(bridge))
    }
}

/// Old kernels pass over what they do not know of a bridge that they make, others refuse it.
pub(super) fn no_vlans(bridge: &str) -> String {
    format!(
        "this kernel has no VLANs on bridges (CONFIG_BRIDGE_VLAN_FILTERING): bridge {bridge} \
         can't be in one"
    )
}
