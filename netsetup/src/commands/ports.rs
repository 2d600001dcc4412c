//! `netsetup ports`

use std::net::SocketAddr;

use anyhow::Result;
use serde::Serialize;

use super::attached_id;
use crate::apply::Host;
use crate::args::{Directories, Format, Ports};
use crate::output;
use crate::port::Binding;
use crate::state::Store;

/// A published port, as programs read it.
#[derive(Serialize)]
pub(super) struct PortView {
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    protocol: String,
    host_ip: String,
    host_port: u16,
    container_ip: String,
    container_port: u16,
}

impl PortView {
    pub(super) fn new(container: Option<&str>, binding: &Binding) -> PortView {
        PortView {
            container: container.map(str::to_owned),
            protocol: binding.protocol.to_string(),
            host_ip: binding.host_ip.to_string(),
            host_port: binding.host_port,
            container_ip: binding.target.ip().to_string(),
            container_port: binding.target.port(),
        }
    }
}

/// `80/tcp -> 0.0.0.0:8080`
pub(super) fn line(binding: &Binding) -> String {
    let outside = SocketAddr::new(binding.host_ip, binding.host_port);
    format!("{}/{} -> {outside}", binding.target.port(), binding.protocol)
}

/// Lists the published ports of one container or of all.
pub(crate) fn run(ports: &Ports, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    Host::open(&store)?;
    let ids = match &ports.target {
        Some(target) => vec![attached_id(&store, target, directories)?],
        None => store.container_ids()?,
    };
    let mut found: Vec<(String, Binding)> = Vec::new();
    for id in ids {
        found.extend(store.bindings(&id)?.into_iter().map(|binding| (id.clone(), binding)));
    }
    match (ports.output.format, &ports.target) {
        (Format::Json, _) => {
            let views: Vec<PortView> =
                found.iter().map(|(id, binding)| PortView::new(Some(id), binding)).collect();
            output::json(&views)
        }
        (Format::Table, Some(_)) => output::lines(found.iter().map(|(_, binding)| line(binding))),
        (Format::Table, None) => {
            let rows: Vec<_> = found
                .iter()
                .map(|(id, binding)| {
                    let host = SocketAddr::new(binding.host_ip, binding.host_port).to_string();
                    [id.clone(), host, binding.target.to_string(), binding.protocol.to_string()]
                })
                .collect();
            output::table(["CONTAINER", "HOST", "TARGET", "PROTOCOL"], &rows)
        }
    }
}
