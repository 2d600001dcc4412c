//! Attaching and detaching.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

use super::ports::published;
use super::{Failures, Host, undone};
use crate::conntrack;
use crate::ipam::{AddressError, Pool};
use crate::netlink::link::{self, VethEnd};
use crate::netlink::{Connection, address, route};
use crate::nft::{Contents, foreign};
use crate::plan::{self, End};
use crate::port::Binding;
use crate::request::AttachRequest;
use crate::state::{Attachment, Bridge, BridgeRecord};
use crate::sysctl;

/// Everything that an attachment comes down to, decided before the first change.
struct Plan {
    bridge: BridgeRecord,
    attachment: Attachment,
    ports: Vec<Binding>,
}

impl Host<'_> {
    /// Attaches a container. One that is attached already keeps what it has and gets the ports
    /// that it lacks.
    pub(crate) fn attach(&mut self, request: &AttachRequest) -> Result<Attachment> {
        if request.is_host()? {
            bail!("container {} is in the network namespace of the host", request.id);
        }
        self.clear_remains(request)?;
        let present = self.store.attachments(&request.id)?;
        if let Some(attachment) =
            present.iter().find(|attachment| attachment.network == request.network)
        {
            if request.address.is_some_and(|address| address != attachment.address) {
                bail!("container {} is attached with address {}", request.id, attachment.address);
            }
            self.publish(&request.id, &request.ports)?;
            return Ok(attachment.clone());
        }
        let plan = self.plan(request, &present)?;
        match self.carry_out(request, &plan) {
            Ok(()) => Ok(plan.attachment),
            Err(error) => {
                // Settings are undone in the namespace that the process is in.
                let undoing = self.home.come_home();
                let undoing =
                    undoing.and_then(|()| self.detach(&request.id, Some(&request.network)));
                Err(undone(error, undoing))
            }
        }
    }

    /// Detaches a container from one bridge or from all. One that is not attached is no error.
    pub(crate) fn detach(&mut self, id: &str, network: Option<&str>) -> Result<()> {
        let mut failures = Failures::default();
        let attachments = self.store.attachments(id)?;
        for attachment in &attachments {
            if network.is_none_or(|network| network == attachment.network) {
                failures.note(self.take_away(attachment));
            }
        }
        failures.into_result()?;
        self.store.forget_container(id)?;
        self.store.tidy()
    }

    /// Removes what an earlier container of the same id left, or an attach that was killed.
    fn clear_remains(&mut self, request: &AttachRequest) -> Result<()> {
        match self.store.place(&request.id)? {
            Some(place) if place.identity == request.place.identity => {
                for attachment in self.store.attachments(&request.id)? {
                    if !attachment.ready {
                        self.detach(&request.id, Some(&attachment.network))?;
                    }
                }
                Ok(())
            }
            Some(_) => self.detach(&request.id, None),
            None => Ok(()),
        }
    }

    fn plan(&mut self, request: &AttachRequest, present: &[Attachment]) -> Result<Plan> {
        let bridge = self.find_bridge(&request.network)?;
        let address = self.choose_address(&bridge.bridge, request.address)?;
        let ports = self.choose_ports(&request.id, &request.ports, address)?;
        let interfaces: Vec<String> = present.iter().map(|other| other.interface.clone()).collect();
        let leads_out =
            !bridge.bridge.internal && present.iter().all(|other| other.gateway.is_none());
        let mac = plan::mac(address, End::Container).map(|byte| format!("{byte:02x}")).join(":");
        let attachment = Attachment {
            id: request.id.clone(),
            network: request.network.clone(),
            interface: plan::next_interface(&interfaces),
            host_interface: plan::host_interface(address),
            mac,
            address,
            subnet: bridge.bridge.subnet,
            gateway: leads_out.then_some(bridge.bridge.gateway),
            ready: false,
        };
        Ok(Plan { bridge, attachment, ports })
    }

    fn choose_address(&self, bridge: &Bridge, wish: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        let pool = Pool { subnet: bridge.subnet, gateway: bridge.gateway };
        let owner = |address| self.store.lease_owner(&bridge.name, address);
        match wish {
            Some(address) => {
                pool.check(address)?;
                if let Some(owner) = owner(address)? {
                    return Err(AddressError::Taken(address, owner).into());
                }
                Ok(address)
            }
            None => {
                let last = self.store.last_address(&bridge.name)?;
                let free =
                    pool.next(last, |address| owner(address).map(|owner| owner.is_some()))?;
                free.ok_or_else(|| AddressError::Exhausted(bridge.subnet).into())
            }
        }
    }

    fn carry_out(&mut self, request: &AttachRequest, plan: &Plan) -> Result<()> {
        let Plan { bridge, attachment, ports } = plan;
        let Attachment { id, network, .. } = attachment;
        // Intent first: whoever finds the record finds all that may exist.
        self.store.save_place(id, &request.place)?;
        self.store.save_attachment(attachment)?;
        self.store.take_lease(network, attachment.address, id)?;
        self.reserve(id, ports)?;
        let (link, is_new) = self.make_bridge(bridge)?;
        self.make_link(request, attachment, &link)?;
        let bridges = if is_new { vec![bridge.bridge.clone()] } else { Vec::new() };
        self.add_to_table(&Contents { bridges, ports: published(id, ports) })?;
        foreign::open_way(&mut self.netfilter, network)?;
        conntrack::forget(&mut self.netfilter, ports.iter())?;
        self.store.save_attachment(&Attachment { ready: true, ..attachment.clone() })
    }

    /// The pair of links and what the container's end needs.
    fn make_link(
        &mut self,
        request: &AttachRequest,
        attachment: &Attachment,
        bridge: &link::Link,
    ) -> Result<()> {
        let Attachment { interface, host_interface, address: own, .. } = attachment;
        let host = VethEnd { name: host_interface, mac: plan::mac(*own, End::Host) };
        let inside = VethEnd { name: interface, mac: plan::mac(*own, End::Container) };
        let create = link::create_veth(&host, bridge, &inside, request.netns.as_fd());
        self.route
            .transact(vec![create])
            .with_context(|| format!("create link {interface} in the container"))?;
        sysctl::close_ipv6(host_interface)?;
        let mut container = request.netns.enter(|| {
            sysctl::close_ipv6(interface)?;
            Connection::route()
        })?;
        let inner =
            link::find(&mut container, interface)?.context("the container's link vanished")?;
        let lo = link::find(&mut container, "lo")?.context("the container has no loopback link")?;
        let mut requests = vec![
            link::set_up(lo.index),
            address::add(inner.index, *own, attachment.subnet),
            link::set_up(inner.index),
        ];
        requests.extend(attachment.gateway.map(|gateway| route::add_default(inner.index, gateway)));
        container
            .transact(requests)
            .with_context(|| format!("set up {interface} in the container"))?;
        let outer =
            link::find(&mut self.route, host_interface)?.context("the host's link vanished")?;
        self.route
            .transact(vec![link::set_port_up(outer.index)])
            .with_context(|| format!("set up {host_interface}"))
    }

    /// Takes an attachment away, whatever of it exists, and a bridge that was made for it alone.
    fn take_away(&mut self, attachment: &Attachment) -> Result<()> {
        let Attachment { id, network, address, host_interface, .. } = attachment;
        // From here on it is no attachment to rely on, whenever this is killed.
        self.store.save_attachment(&Attachment { ready: false, ..attachment.clone() })?;
        let mut bindings = self.store.bindings(id)?;
        bindings.retain(|binding| binding.target.ip() == address);
        let others = self.store.has_other_leases(network, *address)?;
        let bridge = self.store.bridge(network)?.filter(|record| record.automatic && !others);
        let mut failures = Failures::default();
        failures.note(self.withdraw(id, &bindings));
        if let Some(record) = &bridge {
            failures.note(self.delete_with_bridge(&record.bridge));
        }
        failures.note(link::delete(&mut self.route, host_interface));
        failures.into_result()?;
        self.store.release_lease(network, *address, id)?;
        self.store.forget_attachment(id, network)?;
        bridge.map_or(Ok(()), |record| self.unmake_bridge(&record))
    }

    /// Removes a bridge's link and its last container's together: each alone takes the kernel
    /// tens of milliseconds.
    fn delete_with_bridge(&mut self, bridge: &Bridge) -> Result<()> {
        let group = plan::link_group(bridge.gateway);
        match link::find(&mut self.route, &bridge.name)? {
            Some(link) if link.group == group => link::delete_group(&mut self.route, group),
            _ => Ok(()),
        }
    }
}
