//! Attachments without a bridge: a link of the container's own on a link of the host's. The host
//! takes no part in its packets, so there is nothing to publish and no table to change.

use anyhow::{Context, Result, bail};

use super::Host;
use super::link::equip;
use crate::netlink::link::{self, IpVlanMode, MacVlanMode, Sublink, VethEnd};
use crate::netlink::{Connection, removal, route};
use crate::netns::NetworkNamespace;
use crate::plan::{self, Seed};
use crate::request::{Addresses, AttachRequest};
use crate::state::{Attachment, Kind, Place};
use crate::subnet::Family;

/// Reads the mode of a macvlan or ipvlan; each kind has its own.
pub(crate) fn parse_mode(kind: Kind, word: Option<&str>) -> Result<Sublink> {
    Ok(match (kind, word) {
        (Kind::Macvlan, None | Some("bridge")) => Sublink::Macvlan(MacVlanMode::Bridge),
        (Kind::Macvlan, Some("private")) => Sublink::Macvlan(MacVlanMode::Private),
        (Kind::Macvlan, Some("vepa")) => Sublink::Macvlan(MacVlanMode::Vepa),
        (Kind::Macvlan, Some("passthru")) => Sublink::Macvlan(MacVlanMode::Passthrough),
        (Kind::Macvlan, Some("source")) => Sublink::Macvlan(MacVlanMode::Source),
        (Kind::Macvlan, Some(other)) => {
            bail!("macvlan has no mode {other:?}: bridge, private, vepa, passthru or source")
        }
        (Kind::Ipvlan, None | Some("l2")) => Sublink::Ipvlan(IpVlanMode::L2),
        (Kind::Ipvlan, Some("l3")) => Sublink::Ipvlan(IpVlanMode::L3),
        (Kind::Ipvlan, Some("l3s")) => Sublink::Ipvlan(IpVlanMode::L3S),
        (Kind::Ipvlan, Some(other)) => bail!("ipvlan has no mode {other:?}: l2, l3 or l3s"),
        (Kind::Bridge, _) => bail!("a bridge's links have no mode"),
    })
}

impl Host<'_> {
    /// Decides what the attachment comes to.
    pub(super) fn plan_sublink(
        &mut self,
        request: &AttachRequest,
        present: &[Attachment],
    ) -> Result<Attachment> {
        if request.limits.ingress.is_some() {
            bail!("what a {} receives does not pass the host: limit what it sends", request.kind);
        }
        if !request.ports.is_empty() {
            bail!("no port of a {} is published: it is reached directly", request.kind);
        }
        if link::find(&mut self.route, &request.network)?.is_none() {
            bail!("the host has no link {}", request.network);
        }
        parse_mode(request.kind, request.mode.as_deref())?;
        let taken: Vec<String> = present.iter().map(|other| other.interface.clone()).collect();
        let interface = match &request.interface {
            Some(name) => name.clone(),
            None => plan::next_interface(&taken),
        };
        let mut addresses = match &request.addresses {
            Addresses::Given(given) => given.clone(),
            Addresses::Wishes(_) => Vec::new(),
        };
        // One default route per family.
        let mut led = Vec::new();
        for address in &mut addresses {
            let family = Family::of(address.address);
            let leads = request.default_route && !led.contains(&family);
            address.gateway = address.gateway.filter(|_| leads);
            led.extend(address.gateway.map(|_| family));
        }
        let words = [request.id.as_str(), &interface, &request.network];
        let made = plan::mac(Seed::of_words(&words), plan::End::Container);
        let mac = request.mac.unwrap_or(made);
        Ok(request.attachment(interface, String::new(), mac, addresses))
    }

    /// Makes the link.
    pub(super) fn make_sublink(
        &mut self,
        request: &AttachRequest,
        attachment: &mut Attachment,
    ) -> Result<()> {
        let parent = link::find(&mut self.route, &attachment.network)?;
        let parent = parent.with_context(|| format!("link {} vanished", attachment.network))?;
        let mac = plan::parse_mac(&attachment.mac).map_err(anyhow::Error::msg)?;
        let kind = parse_mode(request.kind, request.mode.as_deref())?;
        let mtu = request.mtu.unwrap_or(parent.mtu);
        let end = VethEnd { name: &attachment.interface, mac, mtu };
        // An ipvlan has the hardware address of its parent.
        let own = (request.kind == Kind::Macvlan).then_some(mac);
        let create = link::create_sublink(&end, own, kind, parent.index, request.netns.as_fd());
        self.route.transact(vec![create]).with_context(|| {
            format!("create {} {} on {}", request.kind, attachment.interface, parent.name)
        })?;
        if let (Kind::Ipvlan, Some(mac)) = (request.kind, parent.mac) {
            attachment.mac = plan::mac_text(mac);
        }
        equip(request, attachment)
    }

    /// Takes away what is in the container alone: a link without another end, routes that are on
    /// no link of the attachment's. With the namespace all of it is gone.
    pub(super) fn clear_inside(&mut self, attachment: &Attachment) -> Result<()> {
        let is_sublink = attachment.kind != Kind::Bridge;
        let loose: Vec<_> =
            attachment.routes.iter().filter(|route| !attachment.carries(route)).collect();
        if !is_sublink && loose.is_empty() {
            return Ok(());
        }
        let Some(netns) = self.namespace(&attachment.id)? else { return Ok(()) };
        netns.enter(|| {
            if is_sublink {
                removal::remove(&attachment.interface, None)?;
            }
            let mut inside = Connection::route()?;
            loose.into_iter().try_for_each(|route| route::delete(&mut inside, route))
        })
    }

    /// A container's namespace, if that is still there.
    fn namespace(&self, id: &str) -> Result<Option<NetworkNamespace>> {
        let place = self.store.place(id)?.filter(Place::is_alive);
        let Some(place) = place else { return Ok(None) };
        match NetworkNamespace::open(&place.source.path()) {
            Ok(netns) if netns.identity() == place.identity => Ok(Some(netns)),
            // It vanished, or is another one by now.
            _ => Ok(None),
        }
    }
}
