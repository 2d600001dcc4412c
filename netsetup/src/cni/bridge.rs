//! The plugin `bridge`, and `netsetup`, which does in the same call what `portmap`, `firewall` and
//! `bandwidth` do for it.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::config::{Config, RouteConfig};
use super::failure::{Code, Failure};
use super::host_local::pool;
use super::ipam::{self, Keeper, Leased, prefixed};
use super::outcome::{Interface, Ip, Outcome, Route};
use super::{Call, bandwidth, open_store, portmap};
use crate::apply::Host;
use crate::netlink::link;
use crate::plan;
use crate::request::{Addresses, AttachRequest};
use crate::state::{Attachment, Bridge, BridgeSubnet, Isolation, RouteKind, StaticRoute, Vlan};
use crate::subnet::Family;

fn yes() -> bool {
    true
}

/// How much of a network one call sets up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// All of it, as `netsetup`.
    Everything,
    /// What the reference plugin `bridge` does.
    BridgeAlone,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    bridge: Option<String>,
    is_gateway: Option<bool>,
    is_default_gateway: Option<bool>,
    ip_masq: Option<bool>,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    port_isolation: bool,
    isolation: Option<Isolation>,
    routed: Option<bool>,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    vlan: u16,
    #[serde(default = "yes")]
    preserve_default_vlan: bool,
    #[serde(default)]
    vlan_trunk: Option<Value>,
    #[serde(default)]
    promisc_mode: bool,
    #[serde(default)]
    macspoofchk: bool,
    #[serde(default)]
    disable_container_interface: bool,
    #[serde(default)]
    enabledad: bool,
}

impl Options {
    fn check(&self) -> Result<()> {
        if self.vlan > Vlan::LAST {
            let text = format!("vlan {} is none of 0 to {}", self.vlan, Vlan::LAST);
            return Err(Failure::new(Code::Config, text).into());
        }
        let asked = [
            ("vlanTrunk", self.vlan_trunk.is_some()),
            ("promiscMode", self.promisc_mode),
            ("macspoofchk", self.macspoofchk),
            ("disableContainerInterface", self.disable_container_interface),
            ("enabledad", self.enabledad),
        ];
        match asked.iter().find(|(_, is_asked)| *is_asked) {
            Some((key, _)) => Err(Failure::unsupported(key).into()),
            None => Ok(()),
        }
    }

    fn is_default_gateway(&self, whole: Whole) -> bool {
        self.is_default_gateway.unwrap_or(whole == Whole::Everything)
    }

    fn isolation(&self, whole: Whole) -> Isolation {
        let default = if whole == Whole::Everything { Isolation::Bridges } else { Isolation::None };
        let asked = self.port_isolation.then_some(Isolation::Containers);
        asked.or(self.isolation).unwrap_or(default)
    }

    /// The bridge that a network is on.
    fn bridge(&self, config: &Config, whole: Whole) -> Result<Bridge> {
        let name = match (&self.bridge, whole) {
            (Some(name), _) => name.as_str(),
            (None, Whole::BridgeAlone) => "cni0",
            (None, Whole::Everything) => &config.name,
        };
        plan::check_bridge_name(name)
            .map_err(|error| Failure::new(Code::Config, format!("{error:#}")))?;
        let is_classic = whole == Whole::BridgeAlone;
        let mut bridge = Bridge::new(name, Vec::new());
        bridge.mtu = (self.mtu != 0).then_some(self.mtu);
        bridge.masquerade = self.ip_masq.unwrap_or(!is_classic);
        bridge.internal = self.internal;
        bridge.isolation = self.isolation(whole);
        // The reference plugin leaves it to others to keep anybody out.
        bridge.routed = self.routed.unwrap_or(is_classic);
        let vlan = Vlan { id: self.vlan, hears_default: self.preserve_default_vlan };
        bridge.vlan = (self.vlan != 0).then_some(vlan);
        Ok(bridge)
    }
}

/// Attaches the container.
pub(super) fn add(call: &Call, config: &Config, whole: Whole) -> Result<Value> {
    let options: Options = config.options()?;
    options.check()?;
    call.open_netns()?;
    let leased = ipam::lease(call, config)?;
    attach(call, config, whole, &options, &leased).map_err(|error| {
        let released = ipam::release(call, config);
        released.err().map_or(error, |second| {
            anyhow::anyhow!("{second:#}").context("release the addresses again")
        })
    })
}

fn attach(
    call: &Call,
    config: &Config,
    whole: Whole,
    options: &Options,
    leased: &Leased,
) -> Result<Value> {
    let mut bridge = options.bridge(config, whole)?;
    let mut request = AttachRequest::plain(call.target(), bridge.name.clone())?;
    let keeper = ipam::keeper(config)?;
    let is_defined_by_us = keeper == Keeper::Nobody && whole == Whole::Everything;
    let is_gateway = options.is_gateway.unwrap_or(whole == Whole::Everything)
        || options.is_default_gateway(whole);
    let ipam = config.ipam.clone().unwrap_or_default();
    let mut routes = ipam.routes.clone();
    if keeper == Keeper::Ourselves || is_defined_by_us {
        let single = ipam.range.subnet.is_some().then_some(&ipam.range);
        for range in ipam.ranges.iter().flatten().chain(single) {
            let pool = pool(range)?;
            let gateway = pool.gateway.filter(|_| is_gateway);
            bridge.subnets.push(BridgeSubnet { subnet: pool.subnet, gateway, range: pool.range });
        }
        request.addresses = Addresses::Wishes(config.wished_ips(call.argument("IP"))?);
    } else {
        routes.clone_from(&leased.routes);
        bridge.subnets = gateways(leased, is_gateway);
        request.addresses = Addresses::Given(leased.addresses.clone());
    }
    request.default_route = options.is_default_gateway(whole) || routes.iter().any(is_default);
    request.metric = routes.iter().find(|route| is_default(route)).and_then(|it| it.priority);
    request.routes = static_routes(&routes, leased)?;
    request.mtu = bridge.mtu;
    request.interface = Some(call.interface.clone());
    request.mac = wished_mac(call, config)?;
    request.origin = Some(config.origin());
    request.names = config.aliases();
    if whole == Whole::Everything {
        request.ports = portmap::specs(config)?;
        request.limits = bandwidth::limits(config)?;
    }
    // A network without addresses of its own is one that 'netsetup bridge create' defined.
    request.bridge = (!is_defined_by_us || !bridge.subnets.is_empty()).then_some(bridge);
    let store = open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let attachment = host.attach(&request)?;
    let dns = config.dns.clone().or(leased.dns.clone()).unwrap_or_default();
    let routes = shown_routes(&routes, &attachment);
    outcome(&mut host, &attachment, call, leased, routes, dns)?.shaped(&config.cni_version)
}

/// The subnets of leased addresses; the host gets the gateways if it is to be one.
fn gateways(leased: &Leased, is_gateway: bool) -> Vec<BridgeSubnet> {
    let mut subnets: Vec<BridgeSubnet> = Vec::new();
    for address in &leased.addresses {
        let subnet = address.subnet;
        let gateway = address.gateway.unwrap_or_else(|| subnet.first_host());
        let gateway = is_gateway.then_some(gateway);
        if !subnets.iter().any(|other| other.subnet == subnet) {
            subnets.push(BridgeSubnet { subnet, gateway, range: None });
        }
    }
    subnets
}

fn wished_mac(call: &Call, config: &Config) -> Result<Option<link::Mac>> {
    let mac = config.wished_mac(call.argument("MAC")).map(plan::parse_mac).transpose();
    mac.map_err(|text| Failure::new(Code::Config, text).into())
}

fn is_default(route: &RouteConfig) -> bool {
    ["0.0.0.0/0", "::/0"].contains(&route.dst.as_str())
}

/// All routes but the default ones, which follow from the gateways.
fn static_routes(routes: &[RouteConfig], leased: &Leased) -> Result<Vec<StaticRoute>> {
    let other = routes.iter().filter(|route| !is_default(route));
    other
        .map(|route| {
            let (_, destination) = prefixed(&route.dst)?;
            let family = destination.family();
            let of_family = leased.addresses.iter().find(|it| Family::of(it.address) == family);
            let gateway = route.gw.or_else(|| of_family.and_then(|it| it.gateway));
            let kind = RouteKind::Unicast;
            Ok(StaticRoute { destination, gateway, metric: route.priority, kind })
        })
        .collect()
}

/// The routes that the container has.
fn shown_routes(routes: &[RouteConfig], attachment: &Attachment) -> Vec<Route> {
    let listed = routes.iter();
    let mut shown: Vec<Route> =
        listed.map(|it| Route { dst: it.dst.clone(), gw: it.gw, priority: it.priority }).collect();
    for address in attachment.addresses.iter().filter(|it| it.gateway.is_some()) {
        let dst = format!("{}/0", address.subnet.family().unspecified());
        if !shown.iter().any(|route| route.dst == dst) {
            shown.push(Route { dst, gw: address.gateway, priority: None });
        }
    }
    shown
}

fn outcome(
    host: &mut Host,
    attachment: &Attachment,
    call: &Call,
    leased: &Leased,
    routes: Vec<Route>,
    dns: Value,
) -> Result<Outcome> {
    let record = host.store.bridge(&attachment.network)?.context("the bridge's record vanished")?;
    let sandbox = Some(call.netns_path().display().to_string());
    let interfaces = vec![
        host_interface(host, &attachment.network)?,
        host_interface(host, &attachment.host_interface)?,
        Interface {
            name: attachment.interface.clone(),
            mac: Some(attachment.mac.clone()),
            sandbox,
        },
    ];
    let subnets = &record.bridge.subnets;
    let ips = attachment.addresses.iter().map(|it| {
        let given = leased.addresses.iter().find(|other| other.address == it.address);
        let own = subnets.iter().find(|other| other.subnet == it.subnet);
        Ip {
            address: format!("{}/{}", it.address, it.subnet.length()),
            gateway: own.and_then(|it| it.gateway).or(given.and_then(|it| it.gateway)),
            interface: Some(2),
        }
    });
    Ok(Outcome { interfaces, ips: ips.collect(), routes, dns })
}

fn host_interface(host: &mut Host, name: &str) -> Result<Interface> {
    let mac = link::find(&mut host.route, name)?.and_then(|link| link.mac);
    Ok(Interface { name: name.to_owned(), mac: mac.map(plan::mac_text), sandbox: None })
}

/// Detaches it, whatever is left of it.
pub(super) fn del(call: &Call, config: &Config) -> Result<()> {
    let store = open_store()?;
    let detached = Host::open_at_once(&store)?.detach_interface(&call.container, &call.interface);
    let released = ipam::release(call, config);
    detached.and(released)
}

/// Whether everything is as it was made.
pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    let previous = config.previous()?;
    let netns = call.open_netns()?;
    let store = open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let attachments = store.attachments(&call.container)?;
    let attachment = attachments.iter().find(|it| it.interface == call.interface && it.ready);
    let attachment = attachment.with_context(|| {
        format!("container {} is not attached by {}", call.container, call.interface)
    })?;
    for ip in previous.addresses_of(&call.interface) {
        let ip = ip.ip()?;
        if !attachment.has_address(ip) {
            let text = format!("container {} does not have {ip}", call.container);
            return Err(Failure::new(Code::Internal, text).into());
        }
    }
    host.check_attachment(attachment, &netns)?;
    ipam::check(call, config)
}
