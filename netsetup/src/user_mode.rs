//! Without root: no bridge and no nf_tables, but a program that carries a container's packets
//! through sockets of the user's own: `pasta`, or else `slirp4netns`.
//!
//! ```text
//! lock                        held from the first look to the last change
//! user/<id>/attachment.json   an attachment that exists, or is about to
//! user/<id>/{pid,log,api}     what the program writes, and where it listens for commands
//! ```

mod pasta;
mod process;
mod records;
mod slirp;
mod verbs;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::AccessFlags;
use serde::{Deserialize, Serialize};

use crate::port::{PortSpec, Protocol};
use crate::request::AttachRequest;
use crate::state::{Place, Source, Store};

pub(crate) use verbs::run;

/// The same in every container, as nobody but its own program sees them.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const PREFIX: u8 = 24;
const INTERFACE: &str = "eth0";
/// What both programs get at the container's packets through.
const TUN: &str = "/dev/net/tun";
/// More ports for one container nobody means.
const MAX_PORTS: usize = 4096;

/// Whether the host's network is closed to us.
pub(crate) fn is_needed() -> bool {
    !nix::unistd::geteuid().is_root()
}

/// A container with a program of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Attachment {
    id: String,
    network: String,
    interface: String,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    /// `pasta` or `slirp4netns`.
    program: Program,
    /// Absent until the program is known to run.
    process: Option<process::Identity>,
    /// Where the namespace is, and which it is, as [`Place`] writes it.
    place: String,
    ports: Vec<Port>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Program {
    Pasta,
    Slirp4netns,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Port {
    protocol: Protocol,
    host_ip: String,
    host_port: u16,
    container_port: u16,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Pasta => "pasta",
            Program::Slirp4netns => "slirp4netns",
        }
    }

    /// Those that are here, and where, the better one first.
    fn installed() -> Result<Vec<(Program, PathBuf)>> {
        let found: Vec<_> = [Program::Pasta, Program::Slirp4netns]
            .into_iter()
            .filter_map(|program| Some((program, process::find(program.name())?)))
            .collect();
        if found.is_empty() {
            bail!(
                "without root a container is connected by pasta or slirp4netns, and neither is in \
                 PATH: install the package passt or slirp4netns"
            );
        }
        Ok(found)
    }
}

impl Attachment {
    fn is_alive(&self) -> bool {
        Place::parse(&self.place).is_some_and(|place| place.is_alive())
    }
}

/// Attaches a container. One that is attached already keeps what it has.
fn attach(store: &Store, request: &AttachRequest) -> Result<Attachment> {
    if request.is_host()? {
        bail!("container {} is in the network namespace of the host", request.id);
    }
    records::collect(store)?;
    let ports = published(&request.ports)?;
    if let Some(present) = records::read(store, &request.id)? {
        if present.process.is_some_and(process::Identity::is_alive)
            && present.place == request.place.to_string()
        {
            if ports.iter().any(|port| !present.ports.contains(port)) {
                bail!(
                    "container {} is attached without these ports: without root they are \
                     published when it is attached",
                    request.id
                );
            }
            return Ok(present);
        }
        detach(store, &request.id)?;
    }
    refuse_what_takes_root(request)?;
    let Source::Pid(pid) = request.place.source else {
        bail!("without root a container or its pid has to be named, not a path");
    };
    let mut complaints = Vec::new();
    // Where AppArmor confines it, an older pasta may not open what belongs to another process.
    for (program, path) in Program::installed()? {
        let attachment = Attachment {
            id: request.id.clone(),
            network: "user".to_owned(),
            interface: INTERFACE.to_owned(),
            address: ADDRESS,
            gateway: GATEWAY,
            program,
            process: None,
            place: request.place.to_string(),
            ports: ports.clone(),
        };
        match attach_by(store, attachment, &path, pid) {
            Ok(attachment) => return Ok(attachment),
            Err(error) => complaints.push(format!("by {}: {error:#}", program.name())),
        }
        detach(store, &request.id)
            .with_context(|| format!("undo connecting {}", complaints.join("; ")))?;
    }
    bail!("connect the container {}", complaints.join("; "))
}

fn attach_by(
    store: &Store,
    mut attachment: Attachment,
    path: &Path,
    pid: u32,
) -> Result<Attachment> {
    let both = AccessFlags::R_OK | AccessFlags::W_OK;
    nix::unistd::access(TUN, both).with_context(|| {
        let name = attachment.program.name();
        format!("{name} opens {TUN}, which this user may not (its usual mode is 0666)")
    })?;
    // Intent first: whoever finds the record finds what the program wrote of itself.
    let directory = records::write(store, &attachment)?;
    let started = match attachment.program {
        Program::Pasta => pasta::start(path, &directory, pid, &attachment.ports),
        Program::Slirp4netns => slirp::start(path, &directory, pid, &attachment.ports),
    };
    attachment.process = Some(started?);
    records::write(store, &attachment)?;
    Ok(attachment)
}

/// Ends a container's program. One that has none is no error.
fn detach(store: &Store, id: &str) -> Result<()> {
    if let Some(attachment) = records::read(store, id)? {
        let directory = records::directory(store, id);
        // A command that was killed may not have come to record it.
        let process = attachment.process.or_else(|| process::Identity::of_file(&directory));
        if let Some(process) = process {
            process.end().with_context(|| format!("end {}", attachment.program.name()))?;
        }
    }
    records::remove(store, id)
}

fn refuse_what_takes_root(request: &AttachRequest) -> Result<()> {
    if request.network != crate::plan::DEFAULT_BRIDGE && request.network != "user" {
        bail!("there is no bridge {} without root: leave --network out", request.network);
    }
    if !request.addresses.wishes().is_empty() {
        bail!("without root every container has the address {ADDRESS}: leave --ip out");
    }
    Ok(())
}

/// The ports one by one, with a free one where the choice is ours.
fn published(specs: &[PortSpec]) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for spec in specs {
        if spec.protocol == Protocol::Sctp {
            bail!("without root only tcp and udp ports can be published, not sctp");
        }
        let host_ip = spec.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_string();
        for (index, container_port) in spec.container.iter().enumerate() {
            let host_port = match spec.host {
                Some(range) => {
                    let port = range.iter().nth(index).context("as many host ports as others")?;
                    process::check_port(port)?;
                    port
                }
                None => process::free_port(&host_ip, spec.protocol)?,
            };
            let host_ip = host_ip.clone();
            ports.push(Port { protocol: spec.protocol, host_ip, host_port, container_port });
        }
        if ports.len() > MAX_PORTS {
            bail!("{} ports are too many for one container without root", ports.len());
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_one_by_one() {
        let spec = |text: &str| text.parse::<PortSpec>().unwrap();
        let ports = published(&[spec("7000-7001:80-81"), spec("127.0.0.1:5300:5353/udp")]).unwrap();
        let told: Vec<_> = ports.iter().map(|port| (port.host_port, port.container_port)).collect();
        assert_eq!(told, [(7000, 80), (7001, 81), (5300, 5353)]);
        assert_eq!(ports[2].host_ip, "127.0.0.1");
        assert!(published(&[spec("1:1/sctp")]).is_err());
        assert_ne!(published(&[spec("80")]).unwrap()[0].host_port, 0);
    }
}
