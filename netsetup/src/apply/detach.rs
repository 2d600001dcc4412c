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
        if let Some(record) = &bridge {
            failures.note(self.close_bridge(record));
        }
        let made = bridge.as_ref().filter(|record| !record.found).map(|record| &record.bridge);
        failures.note(self.delete_links(made, host_interface));
        failures.into_result()?;
        for address in &attachment.addresses {
            self.store.release_lease(network, address.address, id)?;
        }
        self.store.leave(network, id, interface)?;
        self.store.forget_attachment(id, interface)?;
        self.withdraw_names(network, id)?;
        bridge.map_or(Ok(()), |record| self.store.forget_bridge(&record.bridge.name))
    }

    /// Whether nobody else is on its network.
    fn is_alone(&self, attachment: &Attachment) -> Result<bool> {
        let members = self.store.members(&attachment.network)?;
        let is_it = |(id, interface): &(String, String)| {
            *id == attachment.id && *interface == attachment.interface
        };
        Ok(members.iter().all(is_it))
    }

    /// Removes a container's link, and its bridge's if that is to go with it.
    fn delete_links(&mut self, bridge: Option<&Bridge>, host_interface: &str) -> Result<()> {
        let mut rest = vec![host_interface];
        if let Some(bridge) = bridge {
            // Together: each alone takes the kernel tens of milliseconds.
            let group = plan::link_group(bridge);
            let mut of_group = |name: &str| -> Result<Option<u32>> {
                let link = if name.is_empty() { None } else { link::find(&mut self.route, name)? };
                Ok(link.filter(|link| link.group == group).map(|link| link.index))
            };
            let (own, port) = (of_group(&bridge.name)?, of_group(host_interface)?);
            rest.push(&bridge.name);
            if let Some(own) = own {
                let links: Vec<u32> = [own].into_iter().chain(port).collect();
                removal::remove_group(group, &links, Some(&self.netfilter))?;
                rest.clear();
                rest.extend(port.is_none().then_some(host_interface));
            }
        }
        let mut failures = Failures::default();
        for name in rest.into_iter().filter(|name| !name.is_empty()) {
            failures.note(removal::remove(name, Some(&self.netfilter)));
        }
        failures.into_result()
    }
}
