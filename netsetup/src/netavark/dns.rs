//! Names on podman's networks: its server, aardvark-dns, reads a file per network, which we write.
//!
//! ```text
//! <config>/aardvark-dns/<network>          addresses to listen at [servers to ask]
//!                                          id v4,… v6,… name,… [servers to ask]
//!                      /<network>%int      the same for a network without a way out
//!                      /aardvark.pid       the server; SIGHUP makes it read again, and end
//!                                          itself if there is nothing left
//! ```

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::options::{Network, Options, Wishes};
use super::setup::is_usable;
use super::{Arguments, log};
use crate::apply::{self, Host};
use crate::netlink::{address, link};
use crate::state::Attachment;
use crate::state::files::{entries, read_text, remove, write};

const BINARY: &str = "/usr/libexec/podman/aardvark-dns";
const DOMAIN: &str = "dns.podman";
const PORT: &str = "53";
const INTERNAL: &str = "%int";

/// What a container is told about names.
#[derive(Debug, Default)]
pub(super) struct Usable {
    pub(super) domains: Vec<String>,
    pub(super) servers: Vec<IpAddr>,
}

/// podman's name server.
pub(super) struct Server {
    directory: PathBuf,
    /// `None` where it is not installed: then no names are resolved.
    binary: Option<PathBuf>,
}

impl Server {
    pub(super) fn new(arguments: &Arguments) -> Server {
        let binary = arguments.aardvark_binary.clone().unwrap_or_else(|| BINARY.into());
        let config = arguments.config.as_deref().unwrap_or(Path::new(super::ROOTS_DIRECTORY));
        let directory = config.join("aardvark-dns");
        Server { directory, binary: binary.exists().then_some(binary) }
    }

    fn path(&self, network: &str) -> PathBuf {
        self.directory.join(network)
    }

    /// Makes a container known by its names, and says how it asks for those of others.
    pub(super) fn announce(
        &self,
        host: &mut Host,
        options: &Options,
        wishes: &Wishes,
        network: &Network,
        attachment: &Attachment,
    ) -> Result<Option<Usable>> {
        if !network.dns_enabled || self.binary.is_none() || network.driver != "bridge" {
            return Ok(None);
        }
        if std::env::var("NETAVARK_DNS_PORT").is_ok_and(|port| !port.is_empty() && port != PORT) {
            bail!("a DNS port other than {PORT} is not supported (dns_bind_port)");
        }
        let mut listening: Vec<IpAddr> =
            network.subnets().iter().filter_map(|subnet| subnet.gateway).collect();
        if listening.is_empty() {
            let index = link::find(&mut host.route, &attachment.network)?.map(|it| it.index);
            let own = address::list(&mut host.route)?.into_iter();
            let own = own.filter(|(of, ip)| Some(*of) == index && is_usable(*ip));
            listening.extend(own.map(|(_, address)| address));
        }
        let asked = network
            .network_dns_servers
            .iter()
            .flatten()
            .chain(options.dns_servers.iter().flatten());
        if let Some(own) = asked.into_iter().find(|server| listening.contains(server)) {
            bail!("dns server {own} would cause aardvark-dns to forward queries to itself");
        }
        let mut names = vec![checked(&options.container_name)?];
        for alias in wishes.aliases.iter().flatten() {
            // One that cannot be looked up is no reason to keep a container from starting.
            match checked(alias) {
                Ok(alias) => names.push(alias),
                Err(_) => log("WARN", "dns", &format!("invalid network alias {alias:?}")),
            }
        }
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
            attachment.addresses.iter().map(|it| it.address).partition(IpAddr::is_ipv4);
        let mut words =
            vec![checked(&options.container_id)?, list(&v4), list(&v6), names.join(",")];
        words.extend(options.dns_servers.as_ref().filter(|it| !it.is_empty()).map(|it| list(it)));
        let mut header = list(&listening);
        if let Some(servers) = network.network_dns_servers.as_ref().filter(|it| !it.is_empty()) {
            header = format!("{header} {}", list(servers));
        }
        let suffix = if network.internal { INTERNAL } else { "" };
        let path = self.path(&format!("{}{suffix}", network.name));
        let mut lines = lines(&path)?;
        match lines.first_mut() {
            Some(first) => *first = header,
            None => lines.push(header),
        }
        lines.retain(|line| !is_of(line, &options.container_id));
        lines.push(words.join(" "));
        write(&path, (lines.join("\n") + "\n").as_bytes())?;
        Ok(Some(Usable { domains: vec![DOMAIN.to_owned()], servers: listening }))
    }

    /// Forgets a container's names on a network.
    pub(super) fn forget(&self, id: &str, network: &str) -> Result<()> {
        for suffix in ["", INTERNAL] {
            let path = self.path(&format!("{network}{suffix}"));
            let mut lines = lines(&path)?;
            let before = lines.len();
            lines.retain(|line| !is_of(line, id));
            if lines.len() <= 1 {
                remove(&path)?;
            } else if lines.len() < before {
                write(&path, (lines.join("\n") + "\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// Makes the server read the files; starts it if it does not run and there are any.
    pub(super) fn refresh(&self) -> Result<()> {
        if let Some(pid) = self.running()? {
            return kill(pid, Signal::SIGHUP).context("tell aardvark-dns of new names");
        }
        let files = entries(&self.directory)?;
        let has_networks = files.iter().any(|name| !name.starts_with("aardvark."));
        match &self.binary {
            Some(binary) if has_networks => self.start(binary),
            _ => Ok(()),
        }
    }

    fn running(&self) -> Result<Option<Pid>> {
        let text = read_text(&self.path("aardvark.pid"))?.unwrap_or_default();
        let pid = text.trim().parse().ok().filter(|pid| *pid > 1).map(Pid::from_raw);
        Ok(pid.filter(|pid| kill(*pid, None).is_ok()))
    }

    fn start(&self, binary: &Path) -> Result<()> {
        let metadata = fs::metadata(binary).context("aardvark-dns failed to start")?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            bail!("aardvark-dns failed to start: Failed to find executable {}", binary.display());
        }
        let mut command = Command::new(binary);
        command.arg("--config").arg(&self.directory).args(["-p", PORT, "run"]);
        // It goes to the background by itself when it listens.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let output = apply::with_signals(|| command.output())?;
        let output = output.context("aardvark-dns failed to start")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            if text.trim().is_empty() {
                bail!("aardvark-dns exited unexpectedly without error message");
            }
            bail!("aardvark-dns failed to start: {}", text.trim());
        }
        Ok(())
    }

    /// Changes the servers that a network's questions go on to; without the network's file nobody
    /// asks.
    pub(super) fn update(&self, network: &str, servers: &[String]) -> Result<()> {
        let words = servers.iter().flat_map(|text| text.split(',')).filter(|word| !word.is_empty());
        let servers: Vec<IpAddr> = words
            .map(|word| word.parse().with_context(|| format!("invalid IP address {word:?}")))
            .collect::<Result<_>>()
            .context("unable to modify network dns servers")?;
        for suffix in ["", INTERNAL] {
            let path = self.path(&format!("{network}{suffix}"));
            let mut lines = lines(&path)?;
            let Some(first) = lines.first_mut() else { continue };
            let listening = first.split(' ').next().unwrap_or_default().to_owned();
            *first = listening;
            if !servers.is_empty() {
                *first = format!("{first} {}", list(&servers));
            }
            write(&path, (lines.join("\n") + "\n").as_bytes())?;
        }
        self.refresh()
    }
}

fn lines(path: &Path) -> Result<Vec<String>> {
    Ok(read_text(path)?.unwrap_or_default().lines().map(str::to_owned).collect())
}

fn is_of(line: &str, id: &str) -> bool {
    line.split(' ').next() == Some(id)
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// A word of a line: what separates words and lines would make others of it.
fn checked(name: &str) -> Result<String> {
    if name.is_empty() || name.contains([',', ' ', '\n']) {
        bail!("{name:?} is no name that can be resolved");
    }
    Ok(name.to_owned())
}
