//! `netavark teardown`: takes away what setup recorded, whatever of it is left.

use std::path::Path;

use anyhow::Result;

use super::dns::Server;
use super::options::Options;
use super::{Arguments, log};
use crate::apply::Host;

pub(super) fn run(arguments: &Arguments, namespace: &Path) -> Result<()> {
    let options: Options = arguments.document("network options")?;
    if !namespace.exists() {
        log("WARN", "commands::teardown", "container netns not found, cleaning up the host");
    }
    let store = arguments.open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let server = Server::new(arguments);
    let mut failure = None;
    for wishes in &options.networks {
        let network = options.network_info.get(&wishes.name);
        if let Some(network) = network.filter(|network| network.dns_enabled) {
            failure = failure.or(server.forget(&options.container_id, &network.name).err());
        }
        let detached = host.detach_interface(&options.container_id, &wishes.interface_name);
        failure = failure.or(detached.err());
    }
    failure = failure.or(server.refresh().err());
    failure.map_or(Ok(()), Err)
}
