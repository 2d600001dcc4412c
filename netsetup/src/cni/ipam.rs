//! Where a container's addresses come from: our own leases, host-local's files, or the
//! configuration itself. No other program is asked.

use std::net::IpAddr;

use anyhow::Result;
use serde_json::Value;

use super::config::{Config, RouteConfig, ValidAttachment};
use super::failure::{Code, Failure};
use super::{Call, host_local, open_store};
use crate::apply::Host;
use crate::args::HostAddress;
use crate::state::Address;
use crate::subnet::Subnet;

/// What somebody else than our leases gives a container.
#[derive(Debug, Default)]
pub(super) struct Leased {
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<RouteConfig>,
    pub(super) dns: Option<Value>,
}

/// Who keeps the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// There are none: a network of links alone.
    Nobody,
    Ourselves,
    HostLocal,
    Static,
}

/// Who keeps the leases of a network.
pub(super) fn keeper(config: &Config) -> Result<Keeper> {
    let Some(ipam) = &config.ipam else { return Ok(Keeper::Nobody) };
    match ipam.kind.as_str() {
        "netsetup" => Ok(Keeper::Ourselves),
        "host-local" => Ok(Keeper::HostLocal),
        "static" => Ok(Keeper::Static),
        "" => Ok(Keeper::Nobody),
        other => {
            let text = format!("ipam type {other:?} is none of netsetup, host-local and static");
            Err(Failure::new(Code::UnsupportedField, text).into())
        }
    }
}

/// Leases addresses from those that are not ours.
pub(super) fn lease(call: &Call, config: &Config) -> Result<Leased> {
    match keeper(config)? {
        Keeper::Nobody | Keeper::Ourselves => Ok(Leased::default()),
        Keeper::HostLocal => host_local::lease(call, config),
        Keeper::Static => configured(call, config),
    }
}

/// Frees what `lease` leased; what is free already is no error.
pub(super) fn release(call: &Call, config: &Config) -> Result<()> {
    match keeper(config) {
        Ok(Keeper::HostLocal) => host_local::release(call, config),
        // A configuration that is refused leased nothing.
        _ => Ok(()),
    }
}

pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    match keeper(config)? {
        Keeper::HostLocal => host_local::check(call, config),
        _ => Ok(()),
    }
}

pub(super) fn collect(config: &Config, valid: &[ValidAttachment]) -> Result<()> {
    match keeper(config)? {
        Keeper::HostLocal => host_local::collect(config, valid),
        _ => Ok(()),
    }
}

/// Whether another container could be attached.
pub(super) fn status(config: &Config) -> Result<()> {
    match keeper(config)? {
        Keeper::HostLocal => host_local::status(config)?,
        Keeper::Nobody | Keeper::Ourselves | Keeper::Static => {}
    }
    if config.kind == "host-local" {
        return Ok(());
    }
    let store = open_store()?;
    Host::open_at_once(&store)?.has_table().map(drop)
}

/// Addresses from the configuration; the runtime's, if it has any.
fn configured(call: &Call, config: &Config) -> Result<Leased> {
    let ipam = config.ipam.clone().unwrap_or_default();
    let wishes = &config.runtime_config.ips;
    let from_argument = call.argument("IP").into_iter().flat_map(|text| text.split(','));
    let texts: Vec<(String, Option<IpAddr>)> = if wishes.is_empty() {
        let listed = ipam.addresses.iter().map(|it| (it.address.clone(), it.gateway));
        listed.chain(from_argument.map(|text| (text.to_owned(), None))).collect()
    } else {
        wishes.iter().map(|text| (text.clone(), None)).collect()
    };
    let addresses = texts
        .iter()
        .map(|(text, gateway)| {
            let (address, subnet) = prefixed(text)?;
            Ok(Address { address, subnet, gateway: *gateway })
        })
        .collect::<Result<Vec<_>>>()?;
    if addresses.is_empty() {
        return Err(Failure::new(Code::Config, "ipam of type static has no addresses").into());
    }
    Ok(Leased { addresses, routes: ipam.routes, dns: ipam.dns })
}

/// An address with the length of its prefix.
pub(super) fn prefixed(text: &str) -> Result<(IpAddr, Subnet)> {
    let parsed: Result<HostAddress, String> = text.trim().parse();
    let it = parsed.map_err(|text| Failure::new(Code::Config, text))?;
    Ok((it.address, it.subnet))
}
