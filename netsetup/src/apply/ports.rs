//! Publishing: choose, reserve, rewrite, forget old connections.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use anyhow::{Context, Result, bail};

use super::{Failures, Host, undone};
use crate::conntrack;
use crate::nft::{Contents, Published};
use crate::plan::{self, PortChoice};
use crate::port::{Binding, PortSelector, PortSpec, Protocol};

/// How often the kernel may offer a port that we have given away.
const EPHEMERAL_TRIES: usize = 64;

impl Host<'_> {
    /// Publishes ports of an attached container; what is published already stays.
    pub(crate) fn publish(&mut self, id: &str, specs: &[PortSpec]) -> Result<Vec<Binding>> {
        let attachments = self.store.attachments(id)?;
        let Some(attachment) = attachments.first() else { bail!("container {id} is not attached") };
        let wanted = self.choose_ports(id, specs, attachment.address)?;
        let mut added = Vec::new();
        for binding in &wanted {
            if !self.has(id, binding)? {
                added.push(*binding);
            }
        }
        let outcome = self.reserve(id, &added).and_then(|()| {
            self.add_to_table(&Contents { bridges: Vec::new(), ports: published(id, &added) })?;
            conntrack::forget(&mut self.netfilter, added.iter())
        });
        match outcome {
            Ok(()) => Ok(wanted),
            Err(error) => Err(undone(error, self.withdraw(id, &added))),
        }
    }

    /// Withdraws the published ports that a selector matches; all of them if there is none.
    pub(crate) fn unpublish(&mut self, id: &str, selectors: &[PortSelector]) -> Result<()> {
        let mut bindings = Vec::new();
        if selectors.is_empty() {
            bindings = self.store.bindings(id)?;
        }
        for selector in selectors {
            for (protocol, port) in selector.host_ports() {
                for (address, owner) in self.store.port_owners(protocol, port)? {
                    if owner == id {
                        bindings.extend(self.store.binding(id, protocol, address, port)?);
                    }
                }
            }
            bindings.retain(|binding| selectors.iter().any(|selector| selector.matches(binding)));
        }
        self.withdraw(id, &bindings)
    }

    /// Whether a container has exactly this binding.
    fn has(&self, id: &str, binding: &Binding) -> Result<bool> {
        let Binding { protocol, host_ip, host_port, .. } = *binding;
        Ok(self.store.binding(id, protocol, host_ip, host_port)?.as_ref() == Some(binding))
    }

    /// Decides on the host port of every wish.
    pub(super) fn choose_ports(
        &self,
        id: &str,
        specs: &[PortSpec],
        target: Ipv4Addr,
    ) -> Result<Vec<Binding>> {
        let mut chosen = Chosen::default();
        for spec in specs {
            for choice in plan::port_choices(spec) {
                let binding =
                    self.choose_port(id, spec, &choice, target, &chosen).with_context(|| {
                        format!("publish port {}/{}", choice.container, spec.protocol)
                    })?;
                chosen.add(binding);
            }
        }
        Ok(chosen.in_order)
    }

    fn choose_port(
        &self,
        id: &str,
        spec: &PortSpec,
        choice: &PortChoice,
        target: Ipv4Addr,
        chosen: &Chosen,
    ) -> Result<Binding> {
        let binding = |host_port| Binding {
            protocol: spec.protocol,
            host_ip: spec.host_ip,
            host_port,
            target: SocketAddrV4::new(target, choice.container),
        };
        let mut offers = choice.host.iter().copied();
        let tries = if choice.host.is_empty() { EPHEMERAL_TRIES } else { choice.host.len() };
        let mut refusal = None;
        for _ in 0..tries {
            let port = match offers.next() {
                Some(port) => port,
                None => offered_by_kernel(spec)?,
            };
            let binding = binding(port);
            if chosen.at(&binding).contains(&binding) {
                return Ok(binding);
            }
            match self.check_port(id, &binding, chosen) {
                Ok(()) => return Ok(binding),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow::anyhow!("no free port")))
    }

    /// Whether a port is free: of other containers, of the other wishes, of the host's programs.
    fn check_port(&self, id: &str, binding: &Binding, chosen: &Chosen) -> Result<()> {
        let Binding { protocol, host_ip, host_port, .. } = *binding;
        let overlaps = |other: Ipv4Addr| {
            other == host_ip || other.is_unspecified() || host_ip.is_unspecified()
        };
        for (address, owner) in self.store.port_owners(protocol, host_port)? {
            if !overlaps(address) {
                continue;
            }
            if owner == id && self.has(id, binding)? {
                return Ok(());
            }
            bail!("port {host_port}/{protocol} is already published by container {owner}");
        }
        if chosen.at(binding).iter().any(|other| overlaps(other.host_ip)) {
            bail!("port {host_port}/{protocol} is asked for twice");
        }
        match listen(protocol, SocketAddrV4::new(host_ip, host_port)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                bail!("port {host_port}/{protocol} is in use by a program of the host")
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                bail!("{host_ip} is not an address of the host")
            }
            Err(error) => Err(error).with_context(|| format!("try port {host_port}/{protocol}")),
        }
    }

    pub(super) fn reserve(&self, id: &str, bindings: &[Binding]) -> Result<()> {
        bindings.iter().try_for_each(|binding| self.store.take_port(id, binding))
    }

    /// Takes published ports back: from the table first, so that no new connection begins.
    pub(super) fn withdraw(&mut self, id: &str, bindings: &[Binding]) -> Result<()> {
        if bindings.is_empty() {
            return Ok(());
        }
        let mut failures = Failures::default();
        failures.note(
            self.remove_from_table(&Contents {
                bridges: Vec::new(),
                ports: published(id, bindings),
            }),
        );
        failures.note(conntrack::forget(&mut self.netfilter, bindings.iter()));
        failures.into_result()?;
        bindings.iter().try_for_each(|binding| self.store.release_port(id, binding))
    }
}

/// The bindings of one command so far.
#[derive(Default)]
struct Chosen {
    in_order: Vec<Binding>,
    by_port: HashMap<(Protocol, u16), Vec<Binding>>,
}

impl Chosen {
    fn add(&mut self, binding: Binding) {
        let same = self.by_port.entry((binding.protocol, binding.host_port)).or_default();
        if !same.contains(&binding) {
            same.push(binding);
            self.in_order.push(binding);
        }
    }

    /// Those on the same host port.
    fn at(&self, binding: &Binding) -> &[Binding] {
        self.by_port.get(&(binding.protocol, binding.host_port)).map_or(&[], Vec::as_slice)
    }
}

pub(super) fn published(id: &str, bindings: &[Binding]) -> Vec<Published> {
    let of = |binding: &Binding| Published { binding: *binding, container: id.to_owned() };
    bindings.iter().map(of).collect()
}

/// Binds a port for a moment; SCTP has no listener here that could tell.
fn listen(protocol: Protocol, address: SocketAddrV4) -> io::Result<u16> {
    Ok(match protocol {
        Protocol::Tcp => TcpListener::bind(address)?.local_addr()?.port(),
        Protocol::Udp => UdpSocket::bind(address)?.local_addr()?.port(),
        Protocol::Sctp => address.port(),
    })
}

/// A port that the kernel would give to a program that does not care which.
fn offered_by_kernel(spec: &PortSpec) -> Result<u16> {
    let protocol = if spec.protocol == Protocol::Sctp { Protocol::Tcp } else { spec.protocol };
    listen(protocol, SocketAddrV4::new(spec.host_ip, 0))
        .with_context(|| format!("find a free port of {}", spec.host_ip))
}
