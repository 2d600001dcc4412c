//! Published ports and whose they are.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Store;
use super::files::{entries, read_link, remove, remove_directory, write_link};
use crate::port::{Binding, Protocol};

impl Store {
    fn reservation_directory(&self, protocol: Protocol, port: u16) -> PathBuf {
        self.root.join("ports").join(format!("{protocol}-{port}"))
    }

    fn binding_path(
        &self,
        id: &str,
        protocol: Protocol,
        host_ip: IpAddr,
        host_port: u16,
    ) -> PathBuf {
        self.container_directory(id).join("ports").join(format!("{protocol}-{host_ip}-{host_port}"))
    }

    /// Who has a port, at which address: any of them stands in the way of its family's wildcard.
    pub(crate) fn port_owners(
        &self,
        protocol: Protocol,
        port: u16,
    ) -> Result<Vec<(IpAddr, String)>> {
        let directory = self.reservation_directory(protocol, port);
        let mut owners = Vec::new();
        for name in entries(&directory)? {
            let address = name
                .parse()
                .with_context(|| format!("read {}", directory.join(&name).display()))?;
            owners.extend(read_link(&directory.join(&name))?.map(|id| (address, id)));
        }
        Ok(owners)
    }

    /// The binding of a container at this host address and port, if it has one.
    pub(crate) fn binding(
        &self,
        id: &str,
        protocol: Protocol,
        host_ip: IpAddr,
        host_port: u16,
    ) -> Result<Option<Binding>> {
        let path = self.binding_path(id, protocol, host_ip, host_port);
        let Some(target) = read_link(&path)? else { return Ok(None) };
        let target = target.parse().with_context(|| format!("read {}", path.display()))?;
        Ok(Some(Binding { protocol, host_ip, host_port, target }))
    }

    /// Reserves a port for a container.
    pub(crate) fn take_port(&self, id: &str, binding: &Binding) -> Result<()> {
        let directory = self.reservation_directory(binding.protocol, binding.host_port);
        let Binding { protocol, host_ip, host_port, target } = *binding;
        write_link(&self.binding_path(id, protocol, host_ip, host_port), &target.to_string())?;
        write_link(&directory.join(binding.host_ip.to_string()), id)
    }

    /// Frees a port of a container.
    pub(crate) fn release_port(&self, id: &str, binding: &Binding) -> Result<()> {
        let directory = self.reservation_directory(binding.protocol, binding.host_port);
        let reservation = directory.join(binding.host_ip.to_string());
        if read_link(&reservation)?.is_some_and(|owner| owner == id) {
            remove(&reservation)?;
        }
        // Also that of a reservation whose making or freeing was cut short.
        remove_directory(&directory)?;
        let Binding { protocol, host_ip, host_port, .. } = *binding;
        remove(&self.binding_path(id, protocol, host_ip, host_port))
    }

    /// The published ports of a container.
    pub(crate) fn bindings(&self, id: &str) -> Result<Vec<Binding>> {
        let directory = self.container_directory(id).join("ports");
        let mut bindings = Vec::new();
        for name in entries(&directory)? {
            let Some(target) = read_link(&directory.join(&name))? else { continue };
            let binding = parse(&name, &target);
            bindings.push(
                binding.with_context(|| format!("read {}", directory.join(&name).display()))?,
            );
        }
        bindings.sort_unstable();
        Ok(bindings)
    }
}

fn parse(name: &str, target: &str) -> Option<Binding> {
    let mut words = name.splitn(3, '-');
    Some(Binding {
        protocol: words.next()?.parse().ok()?,
        host_ip: words.next()?.parse().ok()?,
        host_port: words.next()?.parse().ok()?,
        target: target.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let binding = parse("udp-127.0.0.1-5353", "10.1.0.2:53").unwrap();
        assert_eq!(binding.to_string(), "127.0.0.1:5353->53/udp");
        assert_eq!(parse("udp-127.0.0.1", "10.1.0.2:53"), None);
    }
}
