//! The command line as the user types it; nothing here touches the host.

mod bridge;
mod examples;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use self::bridge::{
    BridgeCommand, BridgeCreate, BridgeDelete, BridgeFilter, BridgeInspect, BridgeList, BridgePrune,
};
use crate::netlink::link::Mac;
use crate::netlink::shape::Limit;
use crate::output;
use crate::plan;
use crate::port::{PortSelector, PortSpec};
use crate::state::{Kind, RouteDetails, RouteKind, StaticRoute};
use crate::subnet::{Family, Subnet};

/// The exit code of a wrong command line.
const USAGE: u8 = 2;

/// Bridges, addresses and published ports for containers.
#[derive(Debug, Parser)]
#[command(name = "netsetup", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) directories: Directories,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where state, definitions and containers are looked for.
#[derive(Debug, Default, Args)]
pub(crate) struct Directories {
    /// Directory of leases, ports and what was made [env: NETSETUP_STATE] [default: /run/netsetup, or without root $XDG_RUNTIME_DIR/netsetup]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Directory of persistent bridge definitions [env: NETSETUP_CONFIG] [default: /etc/netsetup]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// Directory in which the runtime keeps its containers [default: /run/runtime, /run/runc]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) runtime_root: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage bridges
    #[command(subcommand)]
    Bridge(BridgeCommand),
    /// Give a container an interface, an address and a default route
    Attach(Attach),
    /// Take a container off its bridges, with its address and published ports
    Detach(Detach),
    /// Make ports of an attached container reachable through the host
    Publish(Publish),
    /// Withdraw published ports
    Unpublish(Unpublish),
    /// List published ports
    Ports(Ports),
    /// Show or switch forwarding of the host
    Forward(Forward),
    /// Attach or detach as an OCI hook, by the state read from standard input
    Hook(Hook),
    /// Show attached containers
    Inspect(Inspect),
    /// Show what exists and what stands in the way
    Status(Status),
    /// Say what is missing of what should exist; fails if anything is
    Check,
    /// Bring back what is missing: bridges after a reboot, rules after a flush
    Restore,
    /// Collect what containers left that are gone
    Gc,
    /// Print a script by which a shell completes the command line
    Completion(Completion),
}

/// `netsetup completion`
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell, whose start file is to read the script
    pub(crate) shell: clap_complete::Shell,
}

/// What an attachment may ask for; the same for `attach` and `hook`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Wishes {
    /// Bridge to attach to; `none` and `host` mean no network of ours [default: netsetup0]
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Port to publish: [[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|udp|sctp], IPv6 in brackets
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) publish: Vec<PortSpec>,
    /// Address to take; may be repeated [default: the next free one of each subnet]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Vec<IpAddr>,
    /// Hardware address of the interface [default: made from the IP address]
    #[arg(long, value_name = "MAC", value_parser = plan::parse_mac)]
    pub(crate) mac: Option<Mac>,
    /// Name of the interface in the container [default: the first free one of eth0, eth1, …]
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Route: DESTINATION[=GATEWAY|blackhole|unreachable|prohibit][@METRIC], as 10.9.0.0/16=10.1.0.1; may be repeated
    #[arg(long, value_name = "ROUTE")]
    pub(crate) route: Vec<RouteWish>,
    /// Further name of the container on this network; may be repeated
    #[arg(long, value_name = "NAME", value_parser = plan::parse_host_name)]
    pub(crate) alias: Vec<String>,
    /// Metric of the default route
    #[arg(long, value_name = "METRIC", conflicts_with = "no_default_route")]
    pub(crate) metric: Option<u32>,
    /// No default route through this network
    #[arg(long)]
    pub(crate) no_default_route: bool,
    /// How to connect: macvlan and ipvlan are links on a link of the host's, named by --network
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// Mode of a macvlan (bridge, private, vepa, passthru, source) or ipvlan (l2, l3, l3s)
    #[arg(long, value_name = "MODE", requires = "kind")]
    pub(crate) mode: Option<String>,
    /// Address of a macvlan or ipvlan, with its prefix length; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub(crate) address: Vec<HostAddress>,
    /// Gateway of a macvlan or ipvlan; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<IpAddr>,
    /// Most that the container receives, in bits per second, as 500k or 10m
    #[arg(long, value_name = "RATE")]
    pub(crate) ingress: Option<Limit>,
    /// Most that the container sends, in bits per second
    #[arg(long, value_name = "RATE")]
    pub(crate) egress: Option<Limit>,
    /// Hosts file in which to keep the names of all containers on its networks
    #[arg(long, value_name = "FILE")]
    pub(crate) hosts: Option<PathBuf>,
}

/// `ADDRESS/LENGTH`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostAddress {
    pub(crate) address: IpAddr,
    pub(crate) subnet: Subnet,
}

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<HostAddress, String> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
            let subnet = Subnet::containing(address, length);
            (subnet.length() == length).then_some(HostAddress { address, subnet })
        });
        parsed.ok_or_else(|| format!("{text:?} is no address with its length, as 10.1.0.7/24"))
    }
}

/// `DESTINATION[=GATEWAY|blackhole|unreachable|prohibit][@METRIC]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteWish(pub(crate) StaticRoute);

impl FromStr for RouteWish {
    type Err = String;

    fn from_str(text: &str) -> Result<RouteWish, String> {
        let (way, metric) = match text.split_once('@') {
            Some((way, metric)) => {
                let metric = metric.parse().map_err(|_| format!("{metric:?} is no metric"))?;
                (way, Some(metric))
            }
            None => (text, None),
        };
        let (destination, target) = match way.split_once('=') {
            Some((destination, target)) => (destination, Some(target)),
            None => (way, None),
        };
        let destination: Subnet = destination.parse().map_err(|error| format!("{error}"))?;
        let kind = target.and_then(RouteKind::of_refusal);
        let gateway = target
            .filter(|_| kind.is_none())
            .map(|gateway| gateway.parse::<IpAddr>().map_err(|error| format!("{gateway}: {error}")))
            .transpose()?;
        if gateway.is_some_and(|gateway| Family::of(gateway) != destination.family()) {
            return Err(format!("{text:?} leads from one family of addresses to the other"));
        }
        let details = RouteDetails { metric, ..RouteDetails::default() };
        Ok(RouteWish(StaticRoute { destination, gateway, details, kind: kind.unwrap_or_default() }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Container id, pid, name of a network namespace, or path to one
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) wishes: Wishes,
    /// Id to record the attachment under [default: the container's, else made from the target]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Print what would be made, and make nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// Container id, pid, name of a network namespace, or path to one
    pub(crate) target: String,
    /// Only from this bridge
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// An attached container
    pub(crate) target: String,
    /// [[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|udp|sctp], IPv6 in brackets
    #[arg(required = true, value_name = "SPEC")]
    pub(crate) ports: Vec<PortSpec>,
    /// Print what would be published, and publish nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unpublish {
    /// An attached container
    pub(crate) target: String,
    /// Host ports: [IP:]HOST[-HOST][/tcp|udp|sctp] [default: all of them]
    #[arg(value_name = "PORT")]
    pub(crate) ports: Vec<PortSelector>,
}

#[derive(Debug, Args)]
pub(crate) struct Ports {
    /// Only those of this container
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// What to switch it to [default: show it]
    pub(crate) state: Option<Switch>,
    /// Keep it over a reboot, in /etc/sysctl.d/99-netsetup.conf
    #[arg(long, requires = "state")]
    pub(crate) persist: bool,
    /// IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// Of one interface instead of all
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct Hook {
    #[command(flatten)]
    pub(crate) wishes: Wishes,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Containers to show [default: all]
    pub(crate) targets: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// A table for people or JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl Arguments {
    /// Reads the command line.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::line().try_get_matches()?)
    }

    /// All that there is.
    pub(crate) fn line() -> clap::Command {
        examples::add(Self::command())
    }
}

/// Prints what clap has to say: help in full, a mistake in one line with a hint.
pub(crate) fn report(misuse: &clap::Error) -> ExitCode {
    match misuse.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing is left to do if the reader went away.
            let _ = misuse.print();
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = misuse.print();
        }
        _ => {
            let text = misuse.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let lines = text.split("\n\nUsage").next().unwrap_or(text).lines().map(str::trim);
            let summary: Vec<&str> = lines
                .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
                .collect();
            output::error(&format!("{} (see netsetup --help)", summary.join(" ")));
        }
    }
    ExitCode::from(USAGE)
}
