//! Publishing: choose, reserve, rewrite, forget old connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, SockaddrStorage, bind, getsockname,
    setsockopt, socket, sockopt,
};

use super::{Failures, Host, undone};
use crate::conntrack;
use crate::nft::{Contents, Published};
use crate::plan::{self, PortChoice};
use crate::port::{Binding, PortSelector, PortSpec, Protocol};
use crate::subnet::Family;

/// How often the kernel may offer a port that we have given away.
const EPHEMERAL_TRIES: usize = 64;

impl Host<'_> {
    /// Publishes ports of an attached container; what is published already stays.
    pub(crate) fn publish(&mut self, id: &str, specs: &[PortSpec]) -> Result<Vec<Binding>> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let addresses = self.addresses_of(id)?;
        self.publish_to(id, specs, &addresses)
    }

    /// The addresses of an attached container.
    pub(super) fn addresses_of(&self, id: &str) -> Result<Vec<IpAddr>> {
        let attachments = self.store.attachments(id)?;
        if attachments.is_empty() {
            bail!("container {id} is not attached");
        }
        Ok(attachments.iter().flat_map(|it| &it.addresses).map(|it| it.address).collect())
    }

    /// Publishes ports of a container with these addresses, whoever gave it them.
    pub(crate) fn publish_to(
        &mut self,
        id: &str,
        specs: &[PortSpec],
        addresses: &[IpAddr],
    ) -> Result<Vec<Binding>> {
        let wanted = match self.choose_ports(id, specs, addresses) {
            // What is in the way may be a dead container's.
            Err(error) if !self.collect()? => return Err(error),
            Err(_) => self.choose_ports(id, specs, addresses)?,
            Ok(wanted) => wanted,
        };
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
        addresses: &[IpAddr],
    ) -> Result<Vec<Binding>> {
        let mut chosen = Chosen::default();
        for spec in specs {
            let ends = ends(spec, addresses)?;
            for choice in plan::port_choices(spec) {
                let bindings =
                    self.choose_port(id, spec, &choice, &ends, &chosen).with_context(|| {
                        format!("publish port {}/{}", choice.container, spec.protocol)
                    })?;
                bindings.into_iter().for_each(|binding| chosen.add(binding));
            }
        }
        Ok(chosen.in_order)
    }

    /// One host port, the same at both ends where a port is published for both families.
    fn choose_port(
        &self,
        id: &str,
        spec: &PortSpec,
        choice: &PortChoice,
        ends: &[End],
        chosen: &Chosen,
    ) -> Result<Vec<Binding>> {
        let bindings = |host_port| {
            let of = |end: &End| Binding {
                protocol: spec.protocol,
                host_ip: end.host_ip,
                host_port,
                target: SocketAddr::new(end.target, choice.container),
            };
            ends.iter().map(of).collect::<Vec<_>>()
        };
        let mut offers = choice.host.iter().copied();
        let tries = if choice.host.is_empty() { EPHEMERAL_TRIES } else { choice.host.len() };
        let mut refusal = None;
        for _ in 0..tries {
            let port = match (offers.next(), ends.first()) {
                (Some(port), _) => port,
                (None, Some(end)) => offered_by_kernel(spec.protocol, end.host_ip)?,
                (None, None) => break,
            };
            let bindings = bindings(port);
            let check = |binding: &Binding| {
                if chosen.at(binding).contains(binding) {
                    return Ok(());
                }
                self.check_port(id, binding, chosen)
            };
            match bindings.iter().try_for_each(check) {
                Ok(()) => return Ok(bindings),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow::anyhow!("no free port")))
    }

    /// Whether a port is free: of other containers, of the other wishes, of the host's programs.
    fn check_port(&self, id: &str, binding: &Binding, chosen: &Chosen) -> Result<()> {
        let Binding { protocol, host_ip, host_port, .. } = *binding;
        let overlaps = |other: IpAddr| {
            other.is_ipv4() == host_ip.is_ipv4()
                && (other == host_ip || other.is_unspecified() || host_ip.is_unspecified())
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
        match listen(protocol, SocketAddr::new(host_ip, host_port)) {
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

/// Where a port is reached and where it leads.
struct End {
    host_ip: IpAddr,
    target: IpAddr,
}

/// The ends of a spec: without an address of the host, one for each family that the container
/// has; with one, that of its family alone.
fn ends(spec: &PortSpec, addresses: &[IpAddr]) -> Result<Vec<End>> {
    let target = |family| addresses.iter().copied().find(|it| Family::of(*it) == family);
    let Some(host_ip) = spec.host_ip else {
        let end = |family: Family| {
            target(family).map(|target| End { host_ip: family.unspecified(), target })
        };
        let ends: Vec<End> = Family::BOTH.into_iter().filter_map(end).collect();
        if ends.is_empty() {
            bail!("the container has no address to publish a port of");
        }
        return Ok(ends);
    };
    if host_ip == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        bail!(
            "the kernel rewrites no packets to [::1]: publish on 127.0.0.1, or on an address that a link has"
        );
    }
    let family = Family::of(host_ip);
    match target(family) {
        Some(target) => Ok(vec![End { host_ip, target }]),
        None => bail!("the container has no {family} address that {host_ip} could lead to"),
    }
}

/// Binds a port for a moment; SCTP has no listener here that could tell.
fn listen(protocol: Protocol, address: SocketAddr) -> io::Result<u16> {
    if protocol == Protocol::Sctp {
        return Ok(address.port());
    }
    if address.is_ipv4() {
        return Ok(match protocol {
            Protocol::Udp => UdpSocket::bind(address)?.local_addr()?.port(),
            _ => TcpListener::bind(address)?.local_addr()?.port(),
        });
    }
    let (kind, reuse) = match protocol {
        Protocol::Udp => (SockType::Datagram, false),
        _ => (SockType::Stream, true),
    };
    let socket = match socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None) {
        // Nothing can be in the way of a family that the kernel does not have.
        Err(Errno::EAFNOSUPPORT) => return Ok(address.port()),
        socket => socket?,
    };
    // A listener for IPv4 alone is not in the way of one for IPv6 alone.
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    setsockopt(&socket, sockopt::ReuseAddr, &reuse)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        nix::sys::socket::listen(&socket, Backlog::new(1)?)?;
    }
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    Ok(bound.as_sockaddr_in6().map_or(address.port(), SockaddrIn6::port))
}

/// A port that the kernel would give to a program that does not care which.
fn offered_by_kernel(protocol: Protocol, host_ip: IpAddr) -> Result<u16> {
    let protocol = if protocol == Protocol::Sctp { Protocol::Tcp } else { protocol };
    listen(protocol, SocketAddr::new(host_ip, 0))
        .with_context(|| format!("find a free port of {host_ip}"))
}
