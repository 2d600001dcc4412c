//! Attaching: every decision first, then the record of what is about to be, then the changes.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};

use super::ports::published;
use super::{Host, undone};
use crate::conntrack;
use crate::ipam::AddressError;
use crate::nft::{Contents, foreign};
use crate::plan::{self, Seed};
use crate::port::Binding;
use crate::request::{Addresses, AttachRequest};
use crate::state::{Address, Attachment, Bridge, BridgeRecord, BridgeSubnet, Kind};
use crate::subnet::Family;

/// Everything that an attachment comes down to, decided before the first change.
pub(super) struct Plan {
    /// `None` for a link without one.
    pub(super) bridge: Option<BridgeRecord>,
    pub(super) attachment: Attachment,
    pub(super) ports: Vec<Binding>,
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
        if let Some(attachment) = present.iter().find(|it| request.means(it)) {
            self.check_kept(request, attachment)?;
            self.publish(&request.id, &request.ports)?;
            return Ok(attachment.clone());
        }
        let plan = match self.plan(request, &present) {
            // What is in the way may be a dead container's.
            Err(error) if !self.collect()? => return Err(error),
            Err(_) => self.plan(request, &present)?,
            Ok(plan) => plan,
        };
        match self.carry_out(request, &plan) {
            Ok(attachment) => Ok(attachment),
            Err(error) => {
                // Settings are undone in the namespace that the process is in.
                let undoing = self.home.come_home();
                let interface = &plan.attachment.interface;
                let undoing = undoing.and_then(|()| self.detach_interface(&request.id, interface));
                Err(undone(error, undoing))
            }
        }
    }

    /// Removes what an earlier container of the same id left, or an attach that was killed.
    fn clear_remains(&mut self, request: &AttachRequest) -> Result<()> {
        match self.store.place(&request.id)? {
            Some(place) if place.identity == request.place.identity => {
                for attachment in self.store.attachments(&request.id)? {
                    if !attachment.ready {
                        self.detach_interface(&request.id, &attachment.interface)?;
                    }
                }
                Ok(())
            }
            Some(_) => self.detach(&request.id, None),
            None => Ok(()),
        }
    }

    /// An attachment that is there already must be the one that is asked for.
    pub(super) fn check_kept(
        &self,
        request: &AttachRequest,
        attachment: &Attachment,
    ) -> Result<()> {
        let Attachment { id, addresses, .. } = attachment;
        for wish in request.addresses.wishes() {
            if !attachment.has_address(wish) {
                let texts: Vec<_> = addresses.iter().map(|it| it.address.to_string()).collect();
                bail!("container {id} is attached with address {}", texts.join(", "));
            }
        }
        if let Some(mac) = request.mac.map(plan::mac_text).filter(|mac| *mac != attachment.mac) {
            bail!("container {id} is attached with MAC address {}, not {mac}", attachment.mac);
        }
        Ok(())
    }

    pub(super) fn plan(&mut self, request: &AttachRequest, present: &[Attachment]) -> Result<Plan> {
        if request.kind != Kind::Bridge {
            let attachment = self.plan_sublink(request, present)?;
            return Ok(Plan { bridge: None, attachment, ports: Vec::new() });
        }
        let bridge = match &request.bridge {
            Some(bridge) => self.adopt_bridge(bridge)?,
            None => self.find_bridge(&request.network)?,
        };
        let interfaces: Vec<String> = present.iter().map(|other| other.interface.clone()).collect();
        let interface = match &request.interface {
            Some(name) if interfaces.contains(name) => {
                bail!("container {} has an interface {name} already", request.id)
            }
            Some(name) => name.clone(),
            None => plan::next_interface(&interfaces),
        };
        let mut addresses = self.choose_addresses(&bridge.bridge, &request.addresses)?;
        for family in Family::BOTH {
            let leads = |it: &Address| Family::of(it.address) == family && it.gateway.is_some();
            let mut led = !request.default_route
                || bridge.bridge.internal
                || present.iter().any(|other| other.addresses.iter().any(leads));
            // One default route per family.
            for address in addresses.iter_mut().filter(|it| leads(it)) {
                if led {
                    address.gateway = None;
                }
                led = true;
            }
        }
        let own: Vec<IpAddr> = addresses.iter().map(|it| it.address).collect();
        let words = [request.id.as_str(), &interface, &request.network];
        let seed = match &request.addresses {
            Addresses::Wishes(_) => Seed::of_addresses(&own),
            Addresses::Given(_) => None,
        };
        let seed = seed.unwrap_or_else(|| Seed::of_words(&words));
        let mac = request.mac.unwrap_or_else(|| plan::mac(seed, plan::End::Container));
        let host_interface =
            request.host_interface.clone().unwrap_or_else(|| plan::host_interface(seed));
        let attachment = request.attachment(interface, host_interface, mac, addresses);
        let ports = self.choose_ports(&request.id, &request.ports, &own)?;
        Ok(Plan { bridge: Some(bridge), attachment, ports })
    }

    /// The addresses, each with the gateway of its subnet.
    fn choose_addresses(&self, bridge: &Bridge, addresses: &Addresses) -> Result<Vec<Address>> {
        let wishes = match addresses {
            Addresses::Given(given) => return Ok(given.clone()),
            Addresses::Wishes(wishes) => wishes,
        };
        for wish in wishes {
            let inside = bridge.subnets.iter().any(|it| it.subnet.contains(*wish));
            if let Some(first) = bridge.subnets.first().filter(|_| !inside) {
                return Err(AddressError::Outside(*wish, first.subnet).into());
            }
        }
        let mut chosen = Vec::new();
        for subnet in &bridge.subnets {
            let mut own: Vec<IpAddr> =
                wishes.iter().copied().filter(|it| subnet.subnet.contains(*it)).collect();
            for wish in &own {
                self.check_wish(bridge, subnet, *wish)?;
            }
            if own.is_empty() {
                own.push(self.next_address(bridge, subnet)?);
            }
            chosen.extend(own.into_iter().map(|address| Address {
                address,
                subnet: subnet.subnet,
                gateway: subnet.gateway,
            }));
        }
        Ok(chosen)
    }

    fn check_wish(&self, bridge: &Bridge, subnet: &BridgeSubnet, wish: IpAddr) -> Result<()> {
        subnet.pool().check(wish)?;
        match self.store.lease_owner(&bridge.name, wish)? {
            Some(owner) => Err(AddressError::Taken(wish, owner).into()),
            None => Ok(()),
        }
    }

    fn next_address(&self, bridge: &Bridge, subnet: &BridgeSubnet) -> Result<IpAddr> {
        let last = self.store.last_address(&bridge.name, subnet.subnet.family())?;
        let is_taken =
            |address| self.store.lease_owner(&bridge.name, address).map(|owner| owner.is_some());
        let free = subnet.pool().next(last, is_taken)?;
        free.ok_or_else(|| AddressError::Exhausted(subnet.subnet).into())
    }

    fn carry_out(&mut self, request: &AttachRequest, plan: &Plan) -> Result<Attachment> {
        let Plan { bridge, attachment, ports } = plan;
        let Attachment { id, interface, .. } = attachment;
        // Intent first: whoever finds the record finds all that may exist.
        self.store.save_place(id, &request.place)?;
        self.store.save_attachment(attachment)?;
        let mut made = Attachment { ready: true, ..attachment.clone() };
        let Some(bridge) = bridge else {
            self.make_sublink(request, &mut made)?;
            return self.conclude(made);
        };
        let name = &bridge.bridge.name;
        if self.store.bridge(name)?.is_none() {
            self.store.save_bridge(bridge)?;
        }
        self.store.join(name, id, interface)?;
        if let Some(path) = &request.hosts {
            self.store.save_hosts(name, id, path)?;
        }
        if let Addresses::Wishes(_) = request.addresses {
            for address in &attachment.addresses {
                self.store.take_lease(name, address.address, id)?;
            }
        }
        self.reserve(id, ports)?;
        let link = self.make_bridge(bridge)?;
        self.make_link(request, attachment, &bridge.bridge, &link)?;
        let bridges = if bridge.ready { Vec::new() } else { vec![bridge.bridge.clone()] };
        self.add_to_table(&Contents { bridges, ports: published(id, ports) })?;
        if !bridge.bridge.bare {
            foreign::open_way(&mut self.netfilter, name)?;
        }
        if !bridge.ready {
            self.store.save_bridge(&BridgeRecord { ready: true, ..bridge.clone() })?;
        }
        conntrack::forget(&mut self.netfilter, ports.iter())?;
        self.conclude(made)
    }

    /// Records that everything was made.
    fn conclude(&mut self, made: Attachment) -> Result<Attachment> {
        self.spread_names(&made.network, &made.id)?;
        self.store.save_attachment(&made).context("record that the container is attached")?;
        Ok(made)
    }
}
