//! Detaching, from whatever state of being attached.

use anyhow::Result;

use super::{Failures, Host};
use crate::netlink::{link, removal};
use crate::plan;
use crate::state::{Attachment, Bridge};

impl Host<'_> {
    /// Detaches a container from one network or from all. One that is not attached is no error.
    pub(crate) fn detach(&mut self, id: &str, network: Option<&str>) -> Result<()> {
        self.detach_where(id, |it| network.is_none_or(|network| network == it.network))
    }

    /// Takes one of a container's interfaces away. One that it does not have is no error.
    pub(crate) fn detach_interface(&mut self, id: &str, interface: &str) -> Result<()> {
        self.detach_where(id, |it| it.interface == interface)
    }

    fn detach_where(&mut self, id: &str, wanted: impl Fn(&Attachment) -> bool) -> Result<()> {
        let mut failures = Failures::default();
        let (leaving, staying): (Vec<_>, Vec<_>) =
            self.store.attachments(id)?.into_iter().partition(wanted);
        if leaving.is_empty() {
            // One that was killed may have left a bridge without containers.
            self.collect_bridges()?;
        }
        for attachment in &leaving {
            failures.note(self.take_away(attachment));
        }
        if staying.is_empty() {
            // Ports of addresses that others gave the container go with its last attachment.
            failures.note(self.store.bindings(id).and_then(|left| self.withdraw(id, &left)));
        }
        failures.into_result()?;
        self.store.forget_container(id)?;
        self.store.tidy()
    }

    /// Takes an attachment away, whatever of it exists, and a bridge that was made for it alone.
    fn take_away(&mut self, attachment: &Attachment) -> Result<()> {
        let Attachment { id, network, interface, host_interface, .. } = attachment;
        // From here on it is no attachment to rely on, whenever this is killed.
        self.store.save_attachment(&Attachment { ready: false, ..attachment.clone() })?;
        let mut bindings = self.store.bindings(id)?;
        bindings.retain(|binding| attachment.has_address(binding.target.ip()));
        let is_alone = self.is_alone(attachment)?;
        let bridge = self.store.bridge(network)?.filter(|record| record.automatic && is_alone);
        let mut failures = Failures::default();
        failures.note(self.withdraw(id, &bindings));
        failures.note(self.clear_inside(attachment));
        if let Some(record) = bridge.as_ref().filter(|record| !record.found) {
            failures.note(self.delete_with_bridge(&record.bridge, host_interface));
        }
        if !host_interface.is_empty() {
            failures.note(removal::remove(host_interface));
        }
        failures.into_result()?;
        for address in &attachment.addresses {
            self.store.release_lease(network, address.address, id)?;
        }
        self.store.leave(network, id, interface)?;
        self.store.forget_attachment(id, interface)?;
        self.withdraw_names(network, id)?;
        bridge.map_or(Ok(()), |record| self.unmake_bridge(&record))
    }

    /// Whether nobody else is on its network.
    fn is_alone(&self, attachment: &Attachment) -> Result<bool> {
        let members = self.store.members(&attachment.network)?;
        let is_it = |(id, interface): &(String, String)| {
            *id == attachment.id && *interface == attachment.interface
        };
        Ok(members.iter().all(is_it))
    }

    /// Removes a bridge's link and its last container's together: each alone takes the kernel
    /// tens of milliseconds.
    fn delete_with_bridge(&mut self, bridge: &Bridge, host_interface: &str) -> Result<()> {
        let group = plan::link_group(bridge);
        let Some(link) = link::find(&mut self.route, &bridge.name)? else { return Ok(()) };
        if link.group != group {
            return Ok(());
        }
        let mut links = vec![link.index];
        let port = link::find(&mut self.route, host_interface)?;
        links.extend(port.filter(|it| it.group == group).map(|it| it.index));
        removal::remove_group(group, &links)
    }
}
