//! The plugin `bridge`, and `netsetup`, which does in the same call what `portmap`, `firewall` and
//! `bandwidth` do for it.

use anyhow::{Context, Result};
use serde_json::Value;

use super::bridge_options::{Options, Whole};
use super::config::{Config, RouteConfig, RouteMore};
use super::failure::{Code, Failure};
use super::host_local::pool;
use super::ipam::{self, Keeper, Leased, prefixed};
use super::outcome::{Interface, Ip, Outcome, Route};
use super::{Call, bandwidth, open_store, portmap};
use crate::apply::Host;
use crate::netlink::link;
use crate::plan;
use crate::request::{Addresses, AttachRequest, PortWishes};
use crate::state::{Attachment, BridgeSubnet, RouteDetails, RouteKind, StaticRoute};
use crate::subnet::Family;

/// RT_SCOPE_LINK: a route to neighbours.
const SCOPE_LINK: u8 = 253;

/// Attaches the container.
pub(super) fn add(call: &Call, config: &Config, whole: Whole) -> Result<Value> {
    let options: Options = config.options()?;
    options.check(config)?;
    let port = options.port()?;
    call.open_netns()?;
    let leased = ipam::lease(call, config)?;
    attach(call, config, whole, &options, port, &leased).map_err(|error| {
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
    port: PortWishes,
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
            let plain = BridgeSubnet::with_gateway(pool.subnet, gateway);
            bridge.subnets.push(BridgeSubnet { range: pool.range, ..plain });
        }
        request.addresses = Addresses::Wishes(config.wished_ips(call.argument("IP"))?);
    } else {
        routes.clone_from(&leased.routes);
        bridge.subnets = gateways(leased, is_gateway);
        request.addresses = Addresses::Given(leased.addresses.clone());
    }
    request.default_route = options.is_default_gateway(whole) || routes.iter().any(is_default);
    request.default_details = routes
        .iter()
        .find(|route| is_default(route))
        .map_or_else(RouteDetails::default, |it| it.more.details());
    request.routes = static_routes(&routes, leased)?;
    request.mtu = bridge.mtu;
    request.port = port;
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
            subnets.push(BridgeSubnet::with_gateway(subnet, gateway));
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
            let details = route.more.details();
            // What leads no farther than the link has no gateway to lead to.
            let is_near = details.scope.is_some_and(|scope| scope >= SCOPE_LINK);
            let usual = of_family.filter(|_| !is_near).and_then(|it| it.gateway);
            let gateway = route.gw.or(usual);
            Ok(StaticRoute { destination, gateway, details, kind: RouteKind::Unicast })
        })
        .collect()
}

/// The routes that the container has.
fn shown_routes(routes: &[RouteConfig], attachment: &Attachment) -> Vec<Route> {
    let listed = routes.iter();
    let mut shown: Vec<Route> =
        listed.map(|it| Route { dst: it.dst.clone(), gw: it.gw, more: it.more }).collect();
    for address in attachment.addresses.iter().filter(|it| it.gateway.is_some()) {
        let dst = format!("{}/0", address.subnet.family().unspecified());
        if !shown.iter().any(|route| route.dst == dst) {
            shown.push(Route { dst, gw: address.gateway, more: RouteMore::default() });
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
