//! The door for podman: called by the name `netavark`, its command line, with podman's JSON on
//! standard input and answers on standard output, errors too.
//!
//! Networks are podman's, which also chooses the addresses; bridges, links and ports are the same
//! as for all other doors. Names are resolved by podman's own server, whose files we write.

mod create;
mod dns;
mod options;
mod setup;
mod teardown;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, Result, bail};
use clap::{Parser, Subcommand};
use jiff::{Timestamp, Unit};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::apply::Host;
use crate::args::Directories;
use crate::output;
use crate::state::Store;

/// The command line of this version is understood.
const VERSION: &str = "2.1.0";
const NAME: &str = "netavark";
/// Where podman as root keeps what its networks are at; without root it is in a namespace.
const ROOTS_DIRECTORY: &str = "/run/containers/networks";
/// No document of podman's is larger than this.
const LIMIT: u64 = 16 << 20;

#[derive(Debug, Parser)]
#[command(name = NAME, version = VERSION, disable_help_subcommand = true)]
struct Arguments {
    /// Read the networks from this file instead of standard input
    #[arg(short, long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Directory of what must be remembered
    #[arg(short, long, global = true, value_name = "DIR")]
    config: Option<PathBuf>,
    /// nftables, or none for links alone [env: NETAVARK_FW]
    #[arg(long, global = true, value_name = "DRIVER")]
    firewall_driver: Option<String>,
    /// Whether podman runs without root
    #[arg(short, long, global = true, value_name = "BOOL")]
    rootless: Option<bool>,
    /// Program that resolves names
    #[arg(short, long, global = true, value_name = "FILE")]
    aardvark_binary: Option<PathBuf>,
    /// Directory of drivers that are programs
    #[arg(long = "plugin-directory", global = true, value_name = "DIR")]
    plugin_directories: Vec<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect a network namespace to networks
    Setup { namespace: PathBuf },
    /// Undo what setup did
    Teardown { namespace: PathBuf },
    /// Change the name servers of a network
    Update {
        network: String,
        #[arg(long, required = true)]
        network_dns_servers: Vec<String>,
    },
    /// Complete the definition of a network
    Create,
    /// Show what this is
    Version,
    /// Bring back the rules after somebody flushed them
    FirewallReload,
}

/// Whether podman calls.
pub(crate) fn is_called() -> bool {
    output::called_name().is_some_and(|name| name == NAME)
}

/// Does what podman asks for.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(misuse) => return crate::args::report(&misuse),
    };
    match carry_out(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = json!({"error": error_text(&error)}).to_string();
            // The exit code tells of the failure too.
            drop(output::text(&(text + "\n")));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Setup { namespace } => setup::run(arguments, namespace),
        Command::Teardown { namespace } => teardown::run(arguments, namespace),
        Command::Update { network, network_dns_servers } => {
            dns::Server::new(arguments).update(network, network_dns_servers)
        }
        Command::Create => create::run(arguments),
        Command::Version => version(),
        Command::FirewallReload => {
            let store = arguments.open_store()?;
            Host::open_at_once(&store)?.restore()?;
            log("INFO", "commands::firewall_reload", "Successfully reloaded firewall rules");
            Ok(())
        }
    }
}

fn version() -> Result<()> {
    // When this very file was built is what its own time tells.
    let built = File::open("/proc/self/exe").and_then(|file| file.metadata()?.modified());
    let built = built.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default();
    let built = built.round(Unit::Second).context("tell when it was built")?;
    output::json(&json!({
        "version": VERSION,
        "commit": format!("netsetup {}", env!("CARGO_PKG_VERSION")),
        "build_time": built.to_string(),
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "default_fw_driver": "nftables",
    }))
}

impl Arguments {
    /// The state: that of all other doors for podman as root; else a directory that podman has for
    /// its namespace alone.
    fn open_store(&self) -> Result<Store> {
        let own = self.config.as_deref().filter(|config| *config != Path::new(ROOTS_DIRECTORY));
        let state_dir = own.map(|config| config.join("netsetup"));
        Store::open(&Directories { state_dir, ..Directories::default() })
    }

    /// podman's document.
    fn document<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        let mut text = String::new();
        let read = match &self.file {
            Some(path) => {
                File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text))
            }
            None => std::io::stdin().lock().take(LIMIT).read_to_string(&mut text),
        };
        read.with_context(|| format!("failed to load {what}"))?;
        serde_json::from_str(&text).with_context(|| format!("failed to load {what}"))
    }

    /// Whether packets are to be filtered and rewritten.
    fn has_firewall(&self) -> Result<bool> {
        let variable = std::env::var("NETAVARK_FW").ok();
        let has = match self.firewall_driver.as_deref().or(variable.as_deref()) {
            None | Some("" | "nftables" | "iptables") => true,
            Some("none") => false,
            Some(other) => bail!("firewall driver {other:?} is not nftables or none"),
        };
        let text = if has { "Using nftables firewall driver" } else { "Not using firewall" };
        log("INFO", "firewall", text);
        Ok(has)
    }
}

/// An error and its causes, as podman's users know them.
fn error_text(error: &Error) -> String {
    let causes = error.chain().map(|cause| match cause.downcast_ref::<std::io::Error>() {
        Some(cause) => format!("IO error: {cause}"),
        None => cause.to_string(),
    });
    causes.collect::<Vec<_>>().join(": ")
}

/// Tells whoever asks for it by `RUST_LOG`.
fn log(level: &str, part: &str, text: &str) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let is_wanted = match level {
        "WARN" => ["warn", "info", "debug", "trace"].iter().any(|word| wanted.contains(word)),
        _ => ["info", "debug", "trace"].iter().any(|word| wanted.contains(word)),
    };
    if is_wanted {
        output::log_line(&format!("[{level:<5} {NAME}::{part}] {text}"));
    }
}
