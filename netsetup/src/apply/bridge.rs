//! Bridges: link, address, settings, their part of the table, forwarding.

use anyhow::{Context, Result, bail};

use super::{Failures, Host, undone};
use crate::netlink::link::{self, Link};
use crate::netlink::{address, route};
use crate::nft::{self, Contents, foreign};
use crate::plan::{self, DEFAULT_BRIDGE, End};
use crate::state::{Bridge, BridgeRecord};
use crate::subnet::Subnet;
use crate::sysctl;

const USUAL_MTU: u32 = 1500;

impl Host<'_> {
    /// Defines a bridge for good and makes it.
    pub(crate) fn create_bridge(&mut self, bridge: Bridge) -> Result<()> {
        let made_before = self.store.bridge(&bridge.name)?;
        let defined_before = self.store.definition(&bridge.name)?;
        let existing = made_before.as_ref().map(|record| &record.bridge);
        if let Some(existing) = existing.or(defined_before.as_ref())
            && *existing != bridge
        {
            bail!(
                "bridge {} exists already, with subnet {} and other settings",
                bridge.name,
                existing.subnet
            );
        }
        self.check_bridge(&bridge)?;
        let record = BridgeRecord { bridge, automatic: false };
        self.store.save_definition(&record.bridge)?;
        let made = self.make_bridge(&record).and_then(|(_, is_new)| {
            let bridges = if is_new { vec![record.bridge.clone()] } else { Vec::new() };
            self.add_to_table(&Contents { bridges, ports: Vec::new() })?;
            foreign::open_way(&mut self.netfilter, &record.bridge.name)
        });
        made.map_err(|error| {
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

    /// Removes a bridge that no container uses, and its definition.
    pub(crate) fn delete_bridge(&mut self, name: &str) -> Result<()> {
        plan::check_bridge_name(name)?;
        let record = self.store.bridge(name)?;
        if record.is_none() && self.store.definition(name)?.is_none() {
            bail!("no bridge named {name}");
        }
        if let Some((_, id)) = self.store.leases(name)?.first() {
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
        if let Some(bridge) = self.store.definition(name)? {
            self.check_bridge(&bridge)?;
            return Ok(BridgeRecord { bridge, automatic: false });
        }
        if name != DEFAULT_BRIDGE {
            bail!("no bridge named {name}: create it with 'netsetup bridge create {name}'");
        }
        let bridge = Bridge::new(name, self.free_subnet()?);
        self.check_bridge(&bridge)?;
        Ok(BridgeRecord { bridge, automatic: true })
    }

    /// A subnet that is nobody's.
    pub(crate) fn free_subnet(&mut self) -> Result<Subnet> {
        let mut promised: Vec<Subnet> = Vec::new();
        promised.extend(self.store.bridges()?.iter().map(|record| record.bridge.subnet));
        promised.extend(self.store.definitions()?.iter().map(|bridge| bridge.subnet));
        plan::choose_subnet(&route::list(&mut self.route)?, &promised)
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
        for other in self.store.definitions()?.into_iter().chain(self.recorded_bridges()?) {
            if other.name != bridge.name && other.subnet.overlaps(bridge.subnet) {
                bail!(
                    "subnet {} overlaps subnet {} of bridge {}: choose another with --subnet",
                    bridge.subnet,
                    other.subnet,
                    other.name
                );
            }
        }
        let routes = route::list(&mut self.route)?;
        if let Some(route) = plan::route_in_the_way(bridge.subnet, &routes) {
            let links = link::list(&mut self.route)?;
            let through = links.iter().find(|link| Some(link.index) == route.link);
            bail!(
                "subnet {} overlaps the host's route {route}{}: choose another with --subnet, or remove the route",
                bridge.subnet,
                through.map(|link| format!(" dev {}", link.name)).unwrap_or_default()
            );
        }
        Ok(())
    }

    fn recorded_bridges(&self) -> Result<Vec<Bridge>> {
        Ok(self.store.bridges()?.into_iter().map(|record| record.bridge).collect())
    }

    /// Makes what is missing of a bridge, but for its part of the table. Says whether it is new.
    pub(super) fn make_bridge(&mut self, record: &BridgeRecord) -> Result<(Link, bool)> {
        let bridge = &record.bridge;
        if self.store.bridge(&bridge.name)?.as_ref() != Some(record) {
            self.store.save_bridge(record)?;
        }
        if !bridge.internal {
            self.switch_forwarding_on()?;
        }
        if let Some(link) = link::find(&mut self.route, &bridge.name)? {
            if !link.is_bridge {
                bail!("link {} is no bridge", bridge.name);
            }
            return Ok((link, false));
        }
        let mtu = match bridge.mtu {
            Some(mtu) => mtu,
            None => self.default_mtu()?,
        };
        let mac = plan::mac(bridge.gateway, End::Bridge);
        let create = link::create_bridge(&bridge.name, mac, mtu, plan::link_group(bridge.gateway));
        self.route
            .transact(vec![create])
            .with_context(|| format!("create bridge {}", bridge.name))?;
        let link = link::find(&mut self.route, &bridge.name)?
            .with_context(|| format!("bridge {} vanished while it was made", bridge.name))?;
        sysctl::close_ipv6(&bridge.name)?;
        // Without it the kernel takes answers to 127.0.0.1 for forged. The table guards it.
        sysctl::set(&format!("net/ipv4/conf/{}/route_localnet", bridge.name), "1")?;
        self.route
            .transact(vec![
                address::add(link.index, bridge.gateway, bridge.subnet),
                link::set_up(link.index),
            ])
            .with_context(|| {
                format!("give bridge {} the address {}", bridge.name, bridge.gateway)
            })?;
        Ok((link, true))
    }

    /// Takes a bridge away that has no containers; with the last one goes all else that is ours.
    pub(super) fn unmake_bridge(&mut self, record: &BridgeRecord) -> Result<()> {
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
        failures.note(link::delete(&mut self.route, name));
        failures.into_result()?;
        // The record goes last: as long as it is there, the next attempt does all of this again.
        if is_last {
            self.restore_forwarding()?;
        }
        self.store.forget_bridge(name)
    }

    /// Takes away automatic bridges that no container is on: the command that took the last one
    /// off was killed.
    pub(super) fn collect_bridges(&mut self) -> Result<()> {
        for record in self.store.bridges()? {
            let name = &record.bridge.name;
            if record.automatic && self.store.leases(name)?.is_empty() {
                self.unmake_bridge(&record)
                    .with_context(|| format!("collect the unused bridge {name}"))?;
                self.store.tidy()?;
            }
        }
        Ok(())
    }

    fn switch_forwarding_on(&self) -> Result<()> {
        if sysctl::read(sysctl::FORWARDING)?.as_deref() == Some("1") {
            return Ok(());
        }
        self.store.own_forwarding()?;
        sysctl::set(sysctl::FORWARDING, "1")
    }

    fn restore_forwarding(&self) -> Result<()> {
        if !self.store.owns_forwarding()? {
            return Ok(());
        }
        sysctl::set(sysctl::FORWARDING, "0")?;
        self.store.disown_forwarding()
    }

    /// What fits through the link of the default route: larger packets would vanish in VPNs and
    /// clouds that lose the kernel's complaint.
    fn default_mtu(&mut self) -> Result<u32> {
        let routes = route::list(&mut self.route)?;
        let defaults = routes.iter().filter(|route| route.destination.length() == 0);
        let Some(index) = defaults.min_by_key(|route| route.metric).and_then(|route| route.link)
        else {
            return Ok(USUAL_MTU);
        };
        let links = link::list(&mut self.route)?;
        Ok(links.iter().find(|link| link.index == index).map_or(USUAL_MTU, |link| link.mtu))
    }
}
