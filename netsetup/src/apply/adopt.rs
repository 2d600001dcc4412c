//! Containers that somebody else attached, and whose ports are ours: they are recorded as if we had
//! attached them, without the links.

use anyhow::{Context, Result};

use super::Host;
use crate::netlink::{bridge_port, link};
use crate::nft::{Contents, foreign};
use crate::state::{Attachment, Bridge, BridgeRecord, BridgeSubnet, Isolation, Place};

impl Host<'_> {
    /// The record of a container's interface; makes it as `attachment` says if there is none.
    pub(crate) fn adopt(&mut self, attachment: &Attachment, place: &Place) -> Result<Attachment> {
        let Attachment { id, network, interface, .. } = attachment;
        if self.store.place(id)?.is_some_and(|known| known.identity != place.identity) {
            self.detach(id, None)?;
        }
        let known = self.store.attachments(id)?;
        if let Some(known) = known.into_iter().find(|it| it.interface == *interface && it.ready) {
            return Ok(known);
        }
        self.store.save_place(id, place)?;
        self.store.save_attachment(attachment)?;
        if network.is_empty() {
            return Ok(attachment.clone());
        }
        let subnets = attachment.addresses.iter();
        let subnets = subnets.map(|it| BridgeSubnet::with_gateway(it.subnet, None)).collect();
        let mut bridge = Bridge::new(network, subnets);
        bridge.masquerade = false;
        bridge.routed = true;
        bridge.isolation = Isolation::None;
        let record = self.adopt_bridge(&bridge)?;
        if self.store.bridge(network)?.is_none() {
            self.store.save_bridge(&record)?;
        }
        self.store.join(network, id, interface)?;
        self.make_bridge(&record)?;
        if !record.ready {
            let bridges = vec![record.bridge.clone()];
            self.add_to_table(&Contents { bridges, ports: Vec::new() })?;
            self.store.save_bridge(&BridgeRecord { ready: true, ..record })?;
        }
        foreign::open_way(&mut self.netfilter, network)?;
        Ok(attachment.clone())
    }

    /// Withdraws the ports of one attachment, and forgets it if its links are not ours.
    pub(crate) fn withdraw_from(&mut self, attachment: &Attachment) -> Result<()> {
        let Attachment { id, interface, host_interface, .. } = attachment;
        if host_interface.is_empty() {
            return self.detach_interface(id, interface);
        }
        let mut bindings = self.store.bindings(id)?;
        bindings.retain(|binding| attachment.has_address(binding.target.ip()));
        self.withdraw(id, &bindings)
    }

    /// Changes what may pass to and from a bridge.
    pub(crate) fn amend_bridge(
        &mut self,
        name: &str,
        amend: impl FnOnce(&mut Bridge),
    ) -> Result<()> {
        let Some(record) = self.store.bridge(name)? else { return Ok(()) };
        let mut bridge = record.bridge.clone();
        amend(&mut bridge);
        if bridge == record.bridge {
            return Ok(());
        }
        let contents = |bridge| Contents { bridges: vec![bridge], ports: Vec::new() };
        self.store.save_bridge(&BridgeRecord { bridge: bridge.clone(), ..record.clone() })?;
        self.remove_from_table(&contents(record.bridge))?;
        self.add_to_table(&contents(bridge))
    }

    /// Keeps a container's port from other isolated ones if its bridge is to isolate them.
    pub(crate) fn isolate_port(&mut self, attachment: &Attachment) -> Result<()> {
        let Attachment { network, host_interface, .. } = attachment;
        let record = self.store.bridge(network)?;
        let isolates = record.is_some_and(|it| it.bridge.isolation == Isolation::Containers);
        if !isolates || host_interface.is_empty() {
            return Ok(());
        }
        let outer = link::find(&mut self.route, host_interface)?;
        let outer = outer.with_context(|| format!("the link {host_interface} vanished"))?;
        self.route
            .transact(vec![bridge_port::isolate(outer.index)])
            .with_context(|| format!("isolate {host_interface}"))
    }
}
