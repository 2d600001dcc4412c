//! Bridges: link, address, settings, their part of the table, forwarding.

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::vlan::no_vlans;
use super::{Failures, Host, undone};
use crate::netlink::link::{self, Link};
use crate::netlink::{address, is_errno, removal, route};
use crate::nft::{self, Contents, foreign};
use crate::plan::{self, DEFAULT_BRIDGE};
use crate::state::{Bridge, BridgeRecord, BridgeSubnet};
use crate::subnet::{Family, Subnet};
use crate::sysctl;

const USUAL_MTU: u32 = 1500;

impl Host<'_> {
    /// Defines a bridge for good and makes it.
    pub(crate) fn create_bridge(&mut self, bridge: Bridge) -> Result<()> {
        let made_before = self.store.bridge(&bridge.name)?;
        let defined_before = self.store.definition(&bridge.name)?;
        self.check_definition(&bridge)?;
        let record = BridgeRecord { bridge, automatic: false, found: false, ready: false };
        self.store.save_definition(&record.bridge)?;
        self.complete_bridge(&record).map_err(|error| {
            // What was there before this command is not this command's to take away.
            let mut failures = Failures::default();
            if made_before.is_none() {
                failures.note(self.unmake_bridge(&record));
            }
            if defined_before.is_none() {
                failures.note(self.store.remove_definition(&record.bridge.name));
            }
            undone(error, failures.into_result().and_then(|()| self.store.tidy()))
        })
    }

    /// Checks that a bridge can be defined as this one: it is new, or is so already.
    pub(super) fn check_definition(&mut self, bridge: &Bridge) -> Result<()> {
        let made = self.store.bridge(&bridge.name)?.map(|record| record.bridge);
        let defined = self.store.definition(&bridge.name)?;
        if let Some(existing) = made.or(defined).filter(|existing| existing != bridge) {
            bail!(
                "bridge {} exists already, with subnet {} and other settings",
                bridge.name,
                existing.subnets_text()
            );
        }
        self.check_bridge(bridge)
    }

    /// Makes whatever is missing of a bridge, its part of the table too.
    pub(super) fn complete_bridge(&mut self, record: &BridgeRecord) -> Result<()> {
        self.make_bridge(record)?;
        let bridges = vec![record.bridge.clone()];
        self.add_to_table(&Contents { bridges, ports: Vec::new() })?;
        foreign::open_way(&mut self.netfilter, &record.bridge.name)?;
        self.store.save_bridge(&BridgeRecord { ready: true, ..record.clone() })
    }

    /// Removes a bridge that no container uses, and its definition.
    pub(crate) fn delete_bridge(&mut self, name: &str) -> Result<()> {
        plan::check_bridge_name(name)?;
        let record = self.store.bridge(name)?;
        if record.is_none() && self.store.definition(name)?.is_none() {
            bail!("no bridge named {name}");
        }
        if let Some((id, _)) = self.store.members(name)?.first() {
            bail!("bridge {name} is in use by container {id}: detach it first");
        }
        self.store.remove_definition(name)?;
        record.map_or(Ok(()), |record| self.unmake_bridge(&record))?;
        self.store.tidy()
    }

    /// The bridge of this name, as recorded, as defined, or as it is to be made for those who
    /// name none.
    pub(super) fn find_bridge(&mut self, name: &str) -> Result<BridgeRecord> {
        plan::check_bridge_name(name)?;
        if let Some(record) = self.store.bridge(name)? {
            return Ok(record);
        }
        let made =
            |bridge, automatic| BridgeRecord { bridge, automatic, found: false, ready: false };
        if let Some(bridge) = self.store.definition(name)? {
            self.check_bridge(&bridge)?;
            return Ok(made(bridge, false));
        }
        if name != DEFAULT_BRIDGE {
            bail!("no bridge named {name}: create it with 'netsetup bridge create {name}'");
        }
        let subnet = BridgeSubnet::new(self.free_subnet()?);
        let bridge = Bridge::new(name, vec![subnet]);
        self.check_bridge(&bridge)?;
        Ok(made(bridge, true))
    }

    /// The record of a bridge that somebody else defines: a CNI configuration or podman. Its
    /// link may be there already, and it may get further subnets later.
    pub(super) fn adopt_bridge(&mut self, wanted: &Bridge) -> Result<BridgeRecord> {
        plan::check_bridge_name(&wanted.name)?;
        if let Some(mut record) = self.store.bridge(&wanted.name)? {
            for subnet in &wanted.subnets {
                let known = &mut record.bridge.subnets;
                if !known.iter().any(|other| other.subnet == subnet.subnet) {
                    known.push(subnet.clone());
                    record.ready = false;
                }
            }
            if wanted.promiscuous && !record.bridge.promiscuous {
                record.bridge.promiscuous = true;
                record.ready = false;
            }
            return Ok(record);
        }
        for subnet in &wanted.subnets {
            for other in self.recorded_bridges()? {
                if let Some(clash) =
                    other.subnets.iter().find(|it| it.subnet.overlaps(subnet.subnet))
                {
                    bail!(
                        "subnet {} of bridge {} overlaps subnet {} of bridge {}",
                        subnet.subnet,
                        wanted.name,
                        clash.subnet,
                        other.name
                    );
                }
            }
        }
        let found = link::find(&mut self.route, &wanted.name)?.is_some();
        Ok(BridgeRecord { bridge: wanted.clone(), automatic: true, found, ready: false })
    }

    /// A subnet that is nobody's.
    pub(crate) fn free_subnet(&mut self) -> Result<Subnet> {
        let promised = self.promised_subnets()?;
        plan::choose_subnet(&route::list(&mut self.route)?, &promised)
    }

    /// An IPv6 subnet that is nobody's.
    pub(crate) fn free_subnet6(&mut self) -> Result<Subnet> {
        let promised = self.promised_subnets()?;
        let mut random = [0; 7];
        fill_random(&mut random)?;
        plan::choose_subnet6(random, &route::list(&mut self.route)?, &promised)
    }

    fn promised_subnets(&self) -> Result<Vec<Subnet>> {
        let bridges = self.recorded_bridges()?.into_iter().chain(self.store.definitions()?);
        Ok(bridges.flat_map(|bridge| bridge.subnets).map(|it| it.subnet).collect())
    }

    /// Checks a bridge that does not exist yet against the host: its link's name and its subnet
    /// must be nobody else's.
    fn check_bridge(&mut self, bridge: &Bridge) -> Result<()> {
        if self.store.bridge(&bridge.name)?.is_some() {
            return Ok(());
        }
        if link::find(&mut self.route, &bridge.name)?.is_some() {
            bail!("the host has a link {} that is not ours: choose another name", bridge.name);
        }
        for subnet in bridge.subnets.iter().map(|it| it.subnet) {
            self.check_free(&bridge.name, subnet)?;
        }
        Ok(())
    }

    fn check_free(&mut self, name: &str, subnet: Subnet) -> Result<()> {
        for other in self.store.definitions()?.into_iter().chain(self.recorded_bridges()?) {
            let overlapping = other.subnets.iter().find(|it| it.subnet.overlaps(subnet));
            if let Some(overlapping) = overlapping.filter(|_| other.name != name) {
                bail!(
                    "subnet {subnet} overlaps subnet {} of bridge {}: choose another with --subnet",
                    overlapping.subnet,
                    other.name
                );
            }
        }
        let routes = route::list(&mut self.route)?;
        if let Some(route) = plan::route_in_the_way(subnet, &routes) {
            let links = link::list(&mut self.route)?;
            let through = links.iter().find(|link| Some(link.index) == route.link);
            bail!(
                "subnet {subnet} overlaps the host's route {route}{}: choose another with --subnet, or remove the route",
                through.map(|link| format!(" dev {}", link.name)).unwrap_or_default()
            );
        }
        Ok(())
    }

    pub(super) fn recorded_bridges(&self) -> Result<Vec<Bridge>> {
        Ok(self.store.bridges()?.into_iter().map(|record| record.bridge).collect())
    }

    /// Makes what is missing of a bridge, but for its part of the table.
    pub(super) fn make_bridge(&mut self, record: &BridgeRecord) -> Result<Link> {
        let bridge = &record.bridge;
        if self.store.bridge(&bridge.name)?.as_ref() != Some(record) {
            self.store.save_bridge(record)?;
        }
        for family in Family::BOTH {
            if bridge.needs_forwarding(family) {
                self.switch_forwarding_on(family)?;
            }
        }
        if let Some(link) = link::find(&mut self.route, &bridge.name)? {
            // A found one without addresses of ours is the host's end of some other link.
            let may_be_other = record.found && bridge.gateways().next().is_none();
            if !link.is_bridge && !may_be_other {
                bail!("link {} is no bridge", bridge.name);
            }
            if !record.ready {
                self.equip_bridge(record, link.index)?;
            }
            return Ok(link);
        }
        let mtu = match bridge.mtu {
            Some(mtu) => mtu,
            None => self.default_mtu()?,
        };
        let group = plan::link_group(bridge);
        let domain = match &bridge.vrf {
            Some(name) => {
                let link = link::find(&mut self.route, name)?;
                Some(link.with_context(|| format!("no routing domain {name}"))?.index)
            }
            None => None,
        };
        let mac = plan::bridge_mac(bridge);
        let create = link::create_bridge(&bridge.name, mac, mtu, group, domain, bridge.vlan);
        self.route.transact(vec![create]).map_err(|error| {
            if bridge.vlan.is_some() && is_errno(&error, Errno::EOPNOTSUPP) {
                return anyhow!(no_vlans(&bridge.name));
            }
            error.context(format!("create bridge {}", bridge.name))
        })?;
        let link = link::find(&mut self.route, &bridge.name)?
            .with_context(|| format!("bridge {} vanished while it was made", bridge.name))?;
        self.equip_bridge(record, link.index)?;
        Ok(link)
    }

    /// The settings and addresses of a bridge; what it has already is no error.
    fn equip_bridge(&mut self, record: &BridgeRecord, index: u32) -> Result<()> {
        let BridgeRecord { bridge, found, .. } = record;
        let has_v6 = bridge.gateways().any(|(gateway, _)| gateway.is_ipv6());
        if has_v6 || (bridge.has(Family::V6) && !found) {
            sysctl::open_ipv6(&bridge.name)?;
        } else if !found {
            sysctl::close_ipv6(&bridge.name)?;
        }
        if !bridge.bare {
            // Without it the kernel takes answers to 127.0.0.1 for forged. The table guards it.
            sysctl::set_of_link(&bridge.name, Family::V4, "route_localnet", "1")?;
            sysctl::loosen_reverse_path(&bridge.name)?;
        }
        self.equip_vlan(record, index)?;
        for (gateway, subnet) in bridge.gateways() {
            match self.route.transact(vec![address::add(index, gateway, subnet, true)]) {
                Err(error) if !is_errno(&error, Errno::EEXIST) => {
                    let text = format!("give bridge {} the address {gateway}", bridge.name);
                    return Err(error.context(text));
                }
                _ => {}
            }
        }
        let mut requests = vec![link::set_up(index)];
        if bridge.promiscuous {
            let change = link::Change { promiscuous: Some(true), ..link::Change::default() };
            requests.push(link::change(index, &change));
        }
        self.route.transact(requests).with_context(|| format!("switch bridge {} on", bridge.name))
    }

    /// Takes a bridge away that has no containers; with the last one goes all else that is ours.
    pub(super) fn unmake_bridge(&mut self, record: &BridgeRecord) -> Result<()> {
        let name = &record.bridge.name;
        let mut failures = Failures::default();
        failures.note(self.close_bridge(record));
        if !record.found {
            failures.note(removal::remove(name, Some(&self.netfilter)));
        }
        failures.into_result()?;
        // The record goes last: as long as it is there, the next attempt does all of this again.
        self.store.forget_bridge(name)
    }

    /// Takes everything of a bridge away but its link.
    pub(super) fn close_bridge(&mut self, record: &BridgeRecord) -> Result<()> {
        let name = &record.bridge.name;
        let is_last = self.store.bridges()?.iter().all(|other| other.bridge.name == *name);
        let mut failures = Failures::default();
        failures.note(foreign::close_way(&mut self.netfilter, name));
        let contents = Contents { bridges: vec![record.bridge.clone()], ports: Vec::new() };
        failures.note(if is_last {
            nft::delete(&mut self.netfilter)
        } else {
            self.remove_from_table(&contents)
        });
        if is_last {
            // While a link is being removed, this would wait for it.
            failures.note(self.restore_forwarding());
        }
        failures.into_result()
    }

    /// Takes away automatic bridges that no container is on: the command that took the last one
    /// off was killed.
    pub(super) fn collect_bridges(&mut self) -> Result<bool> {
        let mut found = false;
        for record in self.store.bridges()? {
            let name = &record.bridge.name;
            if record.automatic && self.store.members(name)?.is_empty() {
                found = true;
                self.unmake_bridge(&record)
                    .with_context(|| format!("collect the unused bridge {name}"))?;
            }
        }
        Ok(found)
    }

    fn switch_forwarding_on(&mut self, family: Family) -> Result<()> {
        let name = sysctl::forwarding(family);
        // A kernel without this setting is without the family.
        if sysctl::read(name)?.is_none_or(|value| value == "1") {
            return Ok(());
        }
        self.store.own_forwarding(family)?;
        if family == Family::V6 {
            self.keep_router_advertisements()?;
        }
        sysctl::set(name, "1")
    }

    /// A host that forwards IPv6 no longer listens to routers, unless it is told to: it would
    /// lose the default route that it has from one.
    fn keep_router_advertisements(&mut self) -> Result<()> {
        let routes = route::list(&mut self.route)?;
        let links = link::list(&mut self.route)?;
        for index in routes.iter().filter(|route| route.from_router).filter_map(|it| it.link) {
            let Some(link) = links.iter().find(|link| link.index == index) else { continue };
            let name = format!("net/ipv6/conf/{}/accept_ra", link.name);
            if sysctl::read(&name)?.as_deref() == Some("1") {
                sysctl::set(&name, "2")?;
            }
        }
        Ok(())
    }

    fn restore_forwarding(&self) -> Result<()> {
        for family in Family::BOTH {
            if self.store.owns_forwarding(family)? {
                sysctl::set(sysctl::forwarding(family), "0")?;
                self.store.disown_forwarding(family)?;
            }
        }
        Ok(())
    }

    /// What fits through the link of the default route: larger packets would vanish in VPNs and
    /// clouds that lose the kernel's complaint.
    pub(super) fn default_mtu(&mut self) -> Result<u32> {
        let routes = route::list(&mut self.route)?;
        let defaults =
            routes.iter().filter(|route| route.is_main && route.destination.length() == 0);
        let Some(index) = defaults.min_by_key(|route| route.metric).and_then(|route| route.link)
        else {
            return Ok(USUAL_MTU);
        };
        let links = link::list(&mut self.route)?;
        Ok(links.iter().find(|link| link.index == index).map_or(USUAL_MTU, |link| link.mtu))
    }
}

fn fill_random(buffer: &mut [u8]) -> Result<()> {
    let filled = getrandom(&mut *buffer, GetRandomFlags::empty()).context("get random bytes")?;
    anyhow::ensure!(filled == buffer.len(), "the kernel gave {filled} random bytes");
    Ok(())
}
