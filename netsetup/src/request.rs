//! From words to a request: which container is meant and where its network namespace is.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::args::Wishes;
use crate::netlink::link::Mac;
use crate::netlink::shape::Limits;
use crate::netns::{self, NetworkNamespace};
use crate::plan;
use crate::port::PortSpec;
use crate::state::{
    Address, Attachment, Bridge, Kind, Place, RouteDetails, Source, StaticRoute, Store,
    run_directory,
};

/// What runtimes call the directory of their containers.
const RUNTIMES: [&str; 2] = ["runtime", "runc"];
const NAMED: &str = "/run/netns";

/// An attachment to be made.
pub(crate) struct AttachRequest {
    pub(crate) id: String,
    pub(crate) netns: NetworkNamespace,
    pub(crate) place: Place,
    pub(crate) network: String,
    pub(crate) kind: Kind,
    /// Of a macvlan or ipvlan.
    pub(crate) mode: Option<String>,
    /// The bridge, where whoever asks defines it; otherwise it is looked up by its name.
    pub(crate) bridge: Option<Bridge>,
    /// Name of the link in the container; `None` for the next free `eth<n>`.
    pub(crate) interface: Option<String>,
    /// Name of the other end; `None` leaves the choice to us.
    pub(crate) host_interface: Option<String>,
    pub(crate) addresses: Addresses,
    pub(crate) mac: Option<Mac>,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) routes: Vec<StaticRoute>,
    /// Names by which others on the network find it.
    pub(crate) names: Vec<String>,
    /// Whether the default route may lead this way.
    pub(crate) default_route: bool,
    /// Of the default route.
    pub(crate) default_details: RouteDetails,
    pub(crate) mtu: Option<u32>,
    pub(crate) port: PortWishes,
    /// Most that it receives and sends.
    pub(crate) limits: Limits,
    /// A hosts file to keep the names of its networks in.
    pub(crate) hosts: Option<PathBuf>,
    /// Whose network it is, where another tool asks.
    pub(crate) origin: Option<String>,
}

/// What is asked of a bridge's port, and of the container's end behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortWishes {
    /// Only packets from the container's own hardware address pass.
    pub(crate) own_mac_only: bool,
    pub(crate) trunk: Option<Trunk>,
    /// The container's end stays off.
    pub(crate) stays_off: bool,
    /// The container has its IPv6 addresses when no neighbour turns out to have them.
    pub(crate) asks_neighbours: bool,
}

/// VLANs whose packets reach the container with their tags.
#[derive(Clone, Debug)]
pub(crate) struct Trunk {
    /// The first and the last of each row of them.
    pub(crate) ranges: Vec<(u16, u16)>,
    /// What is sent in the bridge's default VLAN reaches the container too.
    pub(crate) hears_default: bool,
}

/// Where a container's addresses come from.
#[derive(Clone, Debug)]
pub(crate) enum Addresses {
    /// From us: these, and the next free one of every subnet of which there is none among them.
    Wishes(Vec<IpAddr>),
    /// From somebody who keeps the leases himself.
    Given(Vec<Address>),
}

impl Addresses {
    /// Those that were asked for by name.
    pub(crate) fn wishes(&self) -> Vec<IpAddr> {
        match self {
            Addresses::Wishes(wishes) => wishes.clone(),
            Addresses::Given(given) => given.iter().map(|it| it.address).collect(),
        }
    }
}

impl AttachRequest {
    /// The attachment that this comes to, not made yet.
    pub(crate) fn attachment(
        &self,
        interface: String,
        host_interface: String,
        mac: Mac,
        addresses: Vec<Address>,
    ) -> Attachment {
        Attachment {
            id: self.id.clone(),
            network: self.network.clone(),
            kind: self.kind,
            interface,
            host_interface,
            mac: plan::mac_text(mac),
            addresses,
            routes: self.routes.clone(),
            names: self.names.clone(),
            origin: self.origin.clone(),
            limits: self.limits,
            stays_off: self.port.stays_off,
            ready: false,
        }
    }

    /// Opens the namespace of a target.
    pub(crate) fn new(target: Target, wishes: &Wishes) -> Result<AttachRequest> {
        wishes.interface.as_deref().map(plan::check_interface).transpose()?;
        let network = wishes.network.clone().unwrap_or_else(|| plan::DEFAULT_BRIDGE.to_owned());
        let kind = wishes.kind.unwrap_or_default();
        Ok(AttachRequest {
            kind,
            mode: wishes.mode.clone(),
            interface: wishes.interface.clone(),
            addresses: addresses(kind, wishes)?,
            limits: Limits { ingress: wishes.ingress, egress: wishes.egress },
            hosts: wishes.hosts.as_deref().map(std::path::absolute).transpose()?,
            mac: wishes.mac,
            ports: wishes.publish.clone(),
            routes: wishes.route.iter().map(|wish| wish.0.clone()).collect(),
            names: wishes.alias.clone(),
            default_route: !wishes.no_default_route,
            default_details: RouteDetails { metric: wishes.metric, ..RouteDetails::default() },
            ..AttachRequest::plain(target, network)?
        })
    }

    /// A request for nothing out of the ordinary.
    pub(crate) fn plain(target: Target, network: String) -> Result<AttachRequest> {
        plan::check_id(&target.id)?;
        let netns = NetworkNamespace::open(&target.source.path())?;
        if let Some(init) = target.init {
            init.check()?;
        }
        let place = Place { source: target.source, identity: netns.identity() };
        Ok(AttachRequest {
            id: target.id,
            netns,
            place,
            network,
            kind: Kind::Bridge,
            mode: None,
            bridge: None,
            interface: None,
            host_interface: None,
            addresses: Addresses::Wishes(Vec::new()),
            mac: None,
            ports: Vec::new(),
            routes: Vec::new(),
            names: Vec::new(),
            default_route: true,
            default_details: RouteDetails::default(),
            mtu: None,
            port: PortWishes::default(),
            limits: Limits::default(),
            hosts: None,
            origin: None,
        })
    }

    /// Whether an attachment is the one that is asked for.
    pub(crate) fn means(&self, attachment: &Attachment) -> bool {
        attachment.network == self.network
            && self.interface.as_ref().is_none_or(|name| *name == attachment.interface)
    }

    /// Whether the wish is for no network of ours.
    pub(crate) fn wants_nothing(&self) -> bool {
        ["none", "host"].contains(&self.network.as_str())
    }

    /// Whether the container shares the network namespace of the host.
    pub(crate) fn is_host(&self) -> Result<bool> {
        Ok(self.netns.identity() == NetworkNamespace::own()?.identity())
    }
}

/// On a bridge addresses are leased; on a link of the host's somebody else knows who has which.
fn addresses(kind: Kind, wishes: &Wishes) -> Result<Addresses> {
    if kind == Kind::Bridge {
        if !wishes.address.is_empty() || !wishes.gateway.is_empty() {
            bail!(
                "--address and --gateway are for macvlan and ipvlan: a bridge has subnets (--ip)"
            );
        }
        return Ok(Addresses::Wishes(wishes.ip.clone()));
    }
    if wishes.network.is_none() {
        bail!("a {kind} needs the link that it is on: --network LINK");
    }
    if !wishes.ip.is_empty() {
        bail!("a {kind} takes --address with a prefix length, as 10.1.0.7/24, not --ip");
    }
    let given = wishes.address.iter().map(|it| Address {
        address: it.address,
        subnet: it.subnet,
        gateway: wishes.gateway.iter().copied().find(|gateway| it.subnet.contains(*gateway)),
    });
    let given: Vec<Address> = given.collect();
    let is_used = |gateway: &&IpAddr| given.iter().any(|it| it.gateway == Some(**gateway));
    if let Some(astray) = wishes.gateway.iter().find(|gateway| !is_used(gateway)) {
        bail!("gateway {astray} is in none of the addresses' subnets");
    }
    Ok(Addresses::Given(given))
}

/// What a target's words mean.
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) source: Source,
    init: Option<Init>,
}

/// A container's first process, told apart from a later one with its number.
#[derive(Clone, Copy)]
struct Init {
    pid: u32,
    start: u64,
}

impl Init {
    /// To be called when the namespace is open: it was this process's if it is still the same.
    fn check(self) -> Result<()> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .with_context(|| format!("read start time of process {}", self.pid))?;
        // The command name may hold spaces and parentheses; the start time is field 22.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace());
        let start = fields
            .and_then(|mut fields| fields.nth(19))
            .and_then(|field| field.parse::<u64>().ok());
        if start == Some(self.start) {
            Ok(())
        } else {
            bail!("process {} is another one by now", self.pid)
        }
    }
}

/// The parts of a runtime's state file that say where the container is.
#[derive(Deserialize)]
struct RuntimeState {
    #[serde(default)]
    init_process_pid: u32,
    #[serde(default)]
    init_process_start: u64,
}

impl Target {
    /// A namespace at a path, of a container with this id.
    pub(crate) fn at_path(id: &str, path: &Path) -> Target {
        Target { id: id.to_owned(), source: Source::Path(path.to_owned()), init: None }
    }

    /// A process.
    pub(crate) fn of_pid(id: &str, pid: u32) -> Target {
        Target { id: id.to_owned(), source: Source::Pid(pid), init: None }
    }

    /// Finds out what is meant: a path, a container of the runtime's, a named namespace, a pid.
    pub(crate) fn resolve(word: &str, runtime_root: Option<&Path>) -> Result<Target> {
        if word.contains('/') {
            return Ok(Target {
                id: id_of_path(word),
                source: Source::Path(PathBuf::from(word)),
                init: None,
            });
        }
        plan::check_id(word)?;
        if let Some(target) = container(word, runtime_root)? {
            return Ok(target);
        }
        let named = Path::new(NAMED).join(word);
        if named.exists() {
            return Ok(Target { id: word.to_owned(), source: Source::Path(named), init: None });
        }
        match word.parse::<u32>() {
            Ok(pid) if netns::path_of(pid).exists() => {
                Ok(Target::of_pid(&format!("pid-{pid}"), pid))
            }
            _ => bail!("{word} is no container, no named network namespace and no process"),
        }
    }
}

fn container(id: &str, runtime_root: Option<&Path>) -> Result<Option<Target>> {
    let roots = match runtime_root {
        Some(root) => vec![root.to_owned()],
        None => RUNTIMES.map(|name| run_directory().join(name)).into(),
    };
    for root in roots {
        let path = root.join(id).join("state.json");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let state: RuntimeState =
            serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        if state.init_process_pid == 0 {
            bail!("container {id} has no process");
        }
        let init = Init { pid: state.init_process_pid, start: state.init_process_start };
        let init = (init.start != 0).then_some(init);
        return Ok(Some(Target {
            id: id.to_owned(),
            source: Source::Pid(state.init_process_pid),
            init,
        }));
    }
    Ok(None)
}

/// The last part of a path that is a name; `/proc/12/ns/net` is `pid-12`.
fn id_of_path(path: &str) -> String {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    if let Some(pid) = path.strip_prefix("/proc/").and_then(|rest| rest.strip_suffix("/ns/net")) {
        return format!("pid-{pid}");
    }
    parts.next_back().unwrap_or_default().to_owned()
}

/// The id under which a word's container is recorded, whether or not the container still lives.
pub(crate) fn recorded_id(store: &Store, word: &str) -> Result<Option<String>> {
    if !word.contains('/') {
        for id in [word.to_owned(), format!("pid-{word}")] {
            if plan::check_id(&id).is_ok() && store.has_container(&id) {
                return Ok(Some(id));
            }
        }
    }
    let source = match word.parse() {
        Ok(pid) => Source::Pid(pid),
        Err(_) => Source::Path(PathBuf::from(word)),
    };
    for id in store.container_ids()? {
        if store.place(&id)?.is_some_and(|place| place.source == source) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_from_paths() {
        assert_eq!(id_of_path("/run/netns/web"), "web");
        assert_eq!(id_of_path("/proc/12/ns/net"), "pid-12");
    }

    #[test]
    fn words_that_leave_a_directory_are_no_ids() {
        for word in ["..", ".", "", "a b"] {
            assert!(Target::resolve(word, None).is_err(), "{word:?}");
        }
    }
}
