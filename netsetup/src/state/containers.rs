//! Attached containers: where their namespace is and what they were given.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Store;
use super::files::{entries, read_json, read_link, remove, remove_tree, write_json, write_link};
use crate::netlink::shape::Limits;
use crate::netns::{self, Identity};
use crate::subnet::{Family, Subnet};

/// Where a namespace is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Pid(u32),
    /// A process of another PID namespace than ours, which has this number; here it has another.
    Elsewhere(u32, u64),
    Path(PathBuf),
}

impl Source {
    /// The path that opens the namespace.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            // Whoever opens it compares the identity: a process of ours that has the number by
            // chance is not taken for it.
            Source::Pid(pid) | Source::Elsewhere(pid, _) => netns::path_of(*pid),
            Source::Path(path) => path.clone(),
        }
    }

    /// Reads `PID in NAMESPACE`, or `PID` as earlier versions wrote it.
    fn parse_process(text: &str) -> Option<Source> {
        let Some((pid, namespace)) = text.split_once(" in ") else {
            return Some(Source::Pid(text.parse().ok()?));
        };
        let (pid, namespace) = (pid.parse().ok()?, namespace.parse().ok()?);
        let is_ours = netns::process_ids() == namespace;
        Some(if is_ours { Source::Pid(pid) } else { Source::Elsewhere(pid, namespace) })
    }
}

/// Where a container's namespace was found, and which one it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: Source,
    pub(crate) identity: Identity,
}

impl Place {
    /// Whether that namespace is still there, as far as it can be found from here.
    pub(crate) fn is_alive(&self) -> bool {
        netns::identity_at(&self.source.path()) == Some(self.identity)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Place> {
        let (device, rest) = text.split_once(' ')?;
        let (inode, rest) = rest.split_once(' ')?;
        let (kind, value) = rest.split_once(' ')?;
        let source = match kind {
            "pid" => Source::parse_process(value)?,
            "path" => Source::Path(PathBuf::from(value)),
            _ => return None,
        };
        let identity = Identity { device: device.parse().ok()?, inode: inode.parse().ok()? };
        Some(Place { source, identity })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} ", self.identity.device, self.identity.inode)?;
        match &self.source {
            Source::Pid(pid) => write!(formatter, "pid {pid} in {}", netns::process_ids()),
            Source::Elsewhere(pid, namespace) => write!(formatter, "pid {pid} in {namespace}"),
            Source::Path(path) => write!(formatter, "path {}", path.display()),
        }
    }
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) id: String,
    /// Name of the bridge, or of the link that a macvlan or ipvlan is on.
    pub(crate) network: String,
    #[serde(default)]
    pub(crate) kind: Kind,
    /// Name of the link in the container.
    pub(crate) interface: String,
    /// Name of the other end, a port of the bridge; empty for links that have no other end.
    pub(crate) host_interface: String,
    pub(crate) mac: String,
    pub(crate) addresses: Vec<Address>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<StaticRoute>,
    /// Names by which others on the network find it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) names: Vec<String>,
    /// Whose network it is, where another tool asked: `cni/<name>`, `podman/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// Most that it receives and sends.
    #[serde(default, skip_serializing_if = "Limits::are_none")]
    pub(crate) limits: Limits,
    /// Its link in the container was to stay off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stays_off: bool,
    /// Everything was made: what is not ready is the trace of a command that was killed.
    pub(crate) ready: bool,
}

/// How a container is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// By a pair of links, one end of which is a port of a bridge
    #[default]
    Bridge,
    /// By a link with a hardware address of its own on a link of the host
    Macvlan,
    /// By a link that shares the hardware address of a link of the host
    Ipvlan,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Bridge => "bridge",
            Kind::Macvlan => "macvlan",
            Kind::Ipvlan => "ipvlan",
        })
    }
}

/// An address of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) address: IpAddr,
    pub(crate) subnet: Subnet,
    /// Where the default route leads, for the attachment that has it.
    pub(crate) gateway: Option<IpAddr>,
}

/// A route that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StaticRoute {
    pub(crate) destination: Subnet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
    #[serde(flatten)]
    pub(crate) details: RouteDetails,
    #[serde(default)]
    pub(crate) kind: RouteKind,
}

/// What a route has beside where it leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteDetails {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metric: Option<u32>,
    /// Largest packet that it takes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// Largest TCP segment to ask neighbours for, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advmss: Option<u32>,
    /// The table that it is in; `None`: the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
    /// How far it leads, in the kernel's numbers; `None`: what follows from the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<u8>,
}

/// What becomes of packets that take a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RouteKind {
    #[default]
    Unicast,
    Blackhole,
    Unreachable,
    Prohibit,
}

impl RouteKind {
    /// The kind of a route that leads nowhere, by its name.
    pub(crate) fn of_refusal(word: &str) -> Option<RouteKind> {
        match word {
            "blackhole" => Some(RouteKind::Blackhole),
            "unreachable" => Some(RouteKind::Unreachable),
            "prohibit" => Some(RouteKind::Prohibit),
            _ => None,
        }
    }
}

impl Attachment {
    /// Its first address of a family.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().map(|it| it.address).find(|it| Family::of(*it) == family)
    }

    /// Whether a route leads over its link, and goes with it.
    pub(crate) fn carries(&self, route: &StaticRoute) -> bool {
        let is_near = |gateway| self.addresses.iter().any(|it| it.subnet.contains(gateway));
        route.kind == RouteKind::Unicast && route.gateway.is_none_or(is_near)
    }

    /// Whether one of its addresses is this.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|it| it.address == address)
    }
}

impl Store {
    pub(super) fn container_directory(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    fn attachment_path(&self, id: &str, interface: &str) -> PathBuf {
        self.container_directory(id).join("on").join(format!("{interface}.json"))
    }

    /// Ids of all attached containers.
    pub(crate) fn container_ids(&self) -> Result<Vec<String>> {
        self.names("containers")
    }

    /// Whether there is a record of this container.
    pub(crate) fn has_container(&self, id: &str) -> bool {
        self.container_directory(id).is_dir()
    }

    /// Where the container's namespace was; `None` also where the record was cut short.
    pub(crate) fn place(&self, id: &str) -> Result<Option<Place>> {
        Ok(read_link(&self.container_directory(id).join("netns"))?
            .as_deref()
            .and_then(Place::parse))
    }

    /// Records where the container's namespace is.
    pub(crate) fn save_place(&self, id: &str, place: &Place) -> Result<()> {
        write_link(&self.container_directory(id).join("netns"), &place.to_string())
    }

    /// A container's attachments, in the order of their interfaces.
    pub(crate) fn attachments(&self, id: &str) -> Result<Vec<Attachment>> {
        let names = entries(&self.container_directory(id).join("on"))?;
        let interfaces = names.iter().filter_map(|name| name.strip_suffix(".json"));
        let mut attachments: Vec<Attachment> = interfaces
            .filter_map(|interface| read_json(&self.attachment_path(id, interface)).transpose())
            .collect::<Result<_>>()
            .with_context(|| format!("read attachments of {id}"))?;
        attachments.sort_by(|one, other| one.interface.cmp(&other.interface));
        Ok(attachments)
    }

    /// Records an attachment.
    pub(crate) fn save_attachment(&self, attachment: &Attachment) -> Result<()> {
        write_json(&self.attachment_path(&attachment.id, &attachment.interface), attachment)
    }

    /// Forgets an attachment.
    pub(crate) fn forget_attachment(&self, id: &str, interface: &str) -> Result<()> {
        remove(&self.attachment_path(id, interface))
    }

    /// Forgets a container that has no attachment left.
    pub(crate) fn forget_container(&self, id: &str) -> Result<()> {
        if self.attachments(id)?.is_empty() {
            remove_tree(&self.container_directory(id))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let identity = Identity { device: 4, inode: 4_026_532_000 };
        let path = Source::Path(PathBuf::from("/run/netns/with space"));
        for source in [Source::Pid(71), Source::Elsewhere(2, 7), path] {
            let place = Place { source, identity };
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
        let earlier = Place::parse("4 5 pid 71").map(|place| place.source);
        assert_eq!(earlier, Some(Source::Pid(71)));
        assert_eq!(Place::parse("4 5 pid x"), None);
        assert_eq!(Place::parse("4 5 pid 71 in x"), None);
        assert_eq!(Place::parse(""), None);
    }
}
