//! `netsetup bridge`, as the user types it.

use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::Output;
use crate::state::{Isolation, Vlan};
use crate::subnet::{Family, Subnet};

/// `netsetup bridge …`
#[derive(Debug, Subcommand)]
pub(crate) enum BridgeCommand {
    /// Define a bridge, make it, and print its name
    Create(BridgeCreate),
    /// List bridges
    List(BridgeList),
    /// Show bridges and the containers on them
    Inspect(BridgeInspect),
    /// Remove bridges that no container uses
    Delete(BridgeDelete),
    /// Remove all bridges that no container uses, and print their names
    Prune(BridgePrune),
}

#[derive(Debug, Args)]
pub(crate) struct BridgeCreate {
    /// Name of the bridge and of its link
    pub(crate) name: String,
    /// Addresses of the containers, as 10.1.0.0/24 or fd00:1::/64; may be repeated [default: a free one]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Vec<Subnet>,
    /// The host's address in one of the subnets [default: the first of each]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<IpAddr>,
    /// Addresses to give out in one of the subnets, as 10.1.0.16-10.1.0.31 [default: all]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) range: Vec<AddressRange>,
    /// Address in one of the subnets that is given to nobody; may be repeated
    #[arg(long, value_name = "ADDRESS", visible_alias = "aux-address")]
    pub(crate) reserve: Vec<IpAddr>,
    /// A free IPv6 subnet too
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Largest packet [default: that of the default route's link]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// Leave the source address of outgoing packets alone
    #[arg(long)]
    pub(crate) no_masquerade: bool,
    /// No way out of this bridge and none in: no default route, no masquerade, no forwarding
    #[arg(long)]
    pub(crate) internal: bool,
    /// Source address of packets that leave, one of each family [default: that of the link that they leave by]
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["no_masquerade", "internal"])]
    pub(crate) outbound: Vec<IpAddr>,
    /// VLAN that its containers and its gateways are in
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=i64::from(Vlan::LAST)))]
    pub(crate) vlan: Option<u16>,
    /// From whom its containers are kept
    #[arg(long, value_enum, value_name = "WHOM", default_value = "bridges")]
    pub(crate) isolation: Isolation,
    /// Let other hosts and bridges reach its containers by their own addresses
    #[arg(long, conflicts_with = "internal")]
    pub(crate) routed: bool,
    /// Note about the bridge: KEY[=VALUE]; may be repeated
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Vec<Label>,
    /// Print what would be made, and make nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `KEY[=VALUE]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Label, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(format!("{text:?} is no label: KEY or KEY=VALUE"));
        }
        Ok(Label { key: key.to_owned(), value: value.to_owned() })
    }
}

/// `name=PART`, `label=KEY` or `label=KEY=VALUE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BridgeFilter {
    Name(String),
    /// With any value where none is given.
    Label(String, Option<String>),
}

impl BridgeFilter {
    /// What a name has to hold.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            BridgeFilter::Name(part) => Some(part),
            BridgeFilter::Label(..) => None,
        }
    }
}

impl FromStr for BridgeFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<BridgeFilter, String> {
        match text.split_once('=') {
            Some(("name", part)) => Ok(BridgeFilter::Name(part.to_owned())),
            Some(("label", label)) => {
                let (key, value) = match label.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (label, None),
                };
                Ok(BridgeFilter::Label(key.to_owned(), value))
            }
            _ => Err(format!("{text:?} is no filter: name=PART, label=KEY or label=KEY=VALUE")),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BridgePrune {
    /// Only those: name=PART, label=KEY, label=KEY=VALUE; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<BridgeFilter>,
}

#[derive(Debug, Args)]
pub(crate) struct BridgeList {
    #[command(flatten)]
    pub(crate) output: Output,
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only those: name=PART, label=KEY, label=KEY=VALUE; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<BridgeFilter>,
}

#[derive(Debug, Args)]
pub(crate) struct BridgeInspect {
    /// Bridges to show
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BridgeDelete {
    /// Bridges to remove
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

/// `FIRST-LAST`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRange {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<AddressRange, String> {
        let range = text.split_once('-').and_then(|(first, last)| {
            Some(AddressRange { first: first.parse().ok()?, last: last.parse().ok()? })
        });
        let is_range =
            |it: &AddressRange| Family::of(it.first) == Family::of(it.last) && it.first <= it.last;
        range
            .filter(is_range)
            .ok_or_else(|| format!("{text:?} is no range of addresses, as 10.1.0.16-10.1.0.31"))
    }
}
