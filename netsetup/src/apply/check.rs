//! What is missing of what the records say there is, and bringing it back.

use anyhow::{Context, Result, bail};

use super::Host;
use super::ports::published;
use crate::netlink::link::{self, Link};
use crate::netlink::{Connection, address};
use crate::netns::NetworkNamespace;
use crate::nft::{self, Contents, foreign};
use crate::state::{Attachment, Bridge, BridgeRecord, Source};
use crate::subnet::Family;
use crate::sysctl;

impl Host<'_> {
    /// A line for everything that is missing or in the way.
    pub(crate) fn problems(&mut self) -> Result<Vec<String>> {
        let bridges = self.recorded_bridges()?;
        let mut problems = self.missing_forwarding(&bridges)?;
        let contents = self.whole_contents()?;
        if !contents.is_empty() {
            problems.extend(nft::missing(&mut self.netfilter, &contents)?);
        }
        problems.extend(self.missing_links(&bridges)?);
        for bridge in self.store.definitions()? {
            if !bridges.iter().any(|made| made.name == bridge.name) {
                problems.push(format!("bridge {} is defined and does not exist", bridge.name));
            }
        }
        problems.extend(self.dropping_chains(&bridges)?);
        Ok(problems)
    }

    /// Whether a container's namespace is still there. That of a process whose number means nothing
    /// here, since a hook wrote it in another PID namespace, is there as long as our end of its
    /// link: both ends go with it.
    pub(super) fn is_there(&mut self, id: &str) -> Result<bool> {
        let Some(place) = self.store.place(id)? else { return Ok(false) };
        if place.is_alive() || !matches!(place.source, Source::Elsewhere(..)) {
            return Ok(place.is_alive());
        }
        for attachment in self.store.attachments(id)? {
            let outer = &attachment.host_interface;
            if !outer.is_empty() && link::find(&mut self.route, outer)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an attachment is whole: both links, the addresses, the published ports.
    pub(crate) fn check_attachment(
        &mut self,
        attachment: &Attachment,
        netns: &NetworkNamespace,
    ) -> Result<()> {
        let Attachment { id, interface, host_interface, .. } = attachment;
        if !host_interface.is_empty() {
            let outer = link::find(&mut self.route, host_interface)?;
            if !outer.is_some_and(|link| link.is_up()) {
                bail!("the link {host_interface} of container {id} is gone or off");
            }
        }
        let mut inside = netns.enter(Connection::route)?;
        let inner = link::find(&mut inside, interface)?;
        let inner = inner.filter(|link| link.is_up() || attachment.stays_off);
        let inner =
            inner.with_context(|| format!("{interface} of container {id} is gone or off"))?;
        let present = address::list(&mut inside)?;
        for address in attachment.addresses.iter().map(|it| it.address) {
            if !present.contains(&(inner.index, address)) {
                bail!("{interface} of container {id} lacks its address {address}");
            }
        }
        self.check_ports(id)
    }

    /// Whether the table holds all published ports of a container.
    pub(crate) fn check_ports(&mut self, id: &str) -> Result<()> {
        let ports = published(id, &self.store.bindings(id)?);
        let contents = Contents { bridges: Vec::new(), ports };
        if contents.is_empty() {
            return Ok(());
        }
        let missing = nft::missing(&mut self.netfilter, &contents)?;
        if missing.is_empty() { Ok(()) } else { bail!("{}", missing.join("; ")) }
    }

    /// Brings back bridges, settings and the whole table; packets never see the table empty.
    pub(crate) fn restore(&mut self) -> Result<()> {
        for bridge in self.store.definitions()? {
            if self.store.bridge(&bridge.name)?.is_none() {
                self.create_bridge(bridge)?;
            }
        }
        for record in self.store.bridges()? {
            self.make_bridge(&BridgeRecord { ready: false, ..record.clone() })?;
            foreign::open_way(&mut self.netfilter, &record.bridge.name)?;
        }
        let contents = self.whole_contents()?;
        if !contents.is_empty() {
            nft::replace(&mut self.netfilter, &contents)?;
        }
        for record in self.store.bridges()? {
            self.store.save_bridge(&BridgeRecord { ready: true, ..record })?;
        }
        Ok(())
    }

    fn missing_forwarding(&self, bridges: &[Bridge]) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for family in Family::BOTH {
            let needed = bridges.iter().any(|bridge| !bridge.internal && bridge.has(family));
            let value = sysctl::read(sysctl::forwarding(family))?;
            if needed && value.as_deref() != Some("1") {
                problems.push(format!(
                    "forwarding of {family} is off: 'netsetup forward on' lets packets through again"
                ));
            }
        }
        Ok(problems)
    }

    fn missing_links(&mut self, bridges: &[Bridge]) -> Result<Vec<String>> {
        let links = link::list(&mut self.route)?;
        let addresses = address::list(&mut self.route)?;
        let mut problems = Vec::new();
        for bridge in bridges {
            let Some(link) = links.iter().find(|link| link.name == bridge.name) else {
                problems.push(format!("the link of bridge {} is gone", bridge.name));
                continue;
            };
            if !link.is_up() {
                problems.push(format!("bridge {} is switched off", bridge.name));
            }
            for (gateway, _) in bridge.gateways() {
                if !addresses.contains(&(link.index, gateway)) {
                    problems.push(format!("bridge {} lacks its address {gateway}", bridge.name));
                }
            }
        }
        problems.extend(self.missing_ports_of_bridges(&links)?);
        Ok(problems)
    }

    fn missing_ports_of_bridges(&self, links: &[Link]) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for id in self.store.container_ids()? {
            for attachment in self.store.attachments(&id)? {
                let name = &attachment.host_interface;
                let link = links.iter().find(|link| link.name == *name);
                if !name.is_empty() && !link.is_some_and(Link::is_up) {
                    problems.push(format!(
                        "the link {name} of container {id} is gone or off: detach and attach it again"
                    ));
                }
            }
        }
        Ok(problems)
    }

    fn dropping_chains(&mut self, bridges: &[Bridge]) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for chain in foreign::dropping_chains(&mut self.netfilter)? {
            let names = bridges.iter().map(|bridge| bridge.name.as_str());
            if chain.is_opened_by_us() && foreign::is_open(&mut self.netfilter, names)? {
                continue;
            }
            problems.push(format!(
                "chain {} of table {} {} drops forwarded packets: accept those of our bridges there",
                chain.name, chain.family, chain.table
            ));
        }
        Ok(problems)
    }
}
