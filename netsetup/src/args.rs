//! The command line as the user types it; nothing here touches the host.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output;
use crate::port::{PortSelector, PortSpec};
use crate::subnet::Subnet;

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
#[derive(Debug, Args)]
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
    /// Show or switch IPv4 forwarding of the host
    Forward(Forward),
    /// Attach or detach as an OCI hook, by the state read from standard input
    Hook(Hook),
    /// Show attached containers
    Inspect(Inspect),
    /// Show what exists and what stands in the way
    Status(Status),
}

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
}

#[derive(Debug, Args)]
pub(crate) struct BridgeCreate {
    /// Name of the bridge and of its link
    pub(crate) name: String,
    /// Addresses of the containers, as 10.1.0.0/24 [default: a free one]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Option<Subnet>,
    /// The host's address on the bridge [default: the first of the subnet]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Largest packet [default: that of the default route's link]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// Leave the source address of outgoing packets alone
    #[arg(long)]
    pub(crate) no_masquerade: bool,
    /// No way out of this bridge and none in: no default route, no masquerade, no forwarding
    #[arg(long)]
    pub(crate) internal: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BridgeList {
    #[command(flatten)]
    pub(crate) output: Output,
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
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

/// What an attachment may ask for; the same for `attach` and `hook`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Wishes {
    /// Bridge to attach to; `none` and `host` mean no network of ours [default: netsetup0]
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Port to publish: [[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|udp|sctp]
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) publish: Vec<PortSpec>,
    /// Address to take [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<Ipv4Addr>,
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
    /// [[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|udp|sctp]
    #[arg(required = true, value_name = "SPEC")]
    pub(crate) ports: Vec<PortSpec>,
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
