//! The plugin `bandwidth`: limits what a container receives and sends.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Call;
use super::config::{Bandwidth, Config};
use super::failure::{Code, Failure};
use crate::netlink::shape::{self, Limit, Limits};
use crate::netlink::{Connection, link};

pub(super) fn add(call: &Call, config: &Config) -> Result<Value> {
    let result = config.passed_on()?;
    let Limits { ingress, egress } = limits(config)?;
    let netns = call.open_netns()?;
    let previous = config.previous()?;
    if let Some(limit) = ingress {
        let name = previous.host_end().unwrap_or_default();
        shape::set_by_name(&mut Connection::route()?, name, limit)?;
    }
    if let Some(limit) = egress {
        shape::set_by_name(&mut netns.enter(Connection::route)?, &call.interface, limit)?;
    }
    Ok(result)
}

pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    let previous = config.previous()?;
    let Limits { ingress, egress } = limits(config)?;
    let mut outside = Connection::route()?;
    let mut inside = call.open_netns()?.enter(Connection::route)?;
    let host_end = previous.host_end().unwrap_or_default();
    let ends = [(&mut outside, host_end, ingress), (&mut inside, call.interface.as_str(), egress)];
    for (connection, name, limit) in ends {
        let Some(limit) = limit else { continue };
        let link = link::find(connection, name)?.with_context(|| format!("no link {name}"))?;
        if shape::get(connection, link.index)? != Some(limit.rate) {
            let text = format!("link {name} is not limited to {} bits per second", limit.rate);
            return Err(Failure::new(Code::Internal, text).into());
        }
    }
    Ok(())
}

/// What the container receives, and what it sends.
pub(super) fn limits(config: &Config) -> Result<Limits> {
    // The configuration's own values hold for all; the runtime's for one container.
    let own: Bandwidth = config.options()?;
    let wished = config.runtime_config.bandwidth.clone().unwrap_or(own);
    let limit = |rate: u64, burst: u64, name: &str| match (rate, burst) {
        (0, 0) => Ok(None),
        (0, _) => Err(Failure::new(Code::Config, format!("{name}Burst needs {name}Rate"))),
        _ => Ok(Some(Limit { rate, burst: (burst != 0).then_some(burst) })),
    };
    Ok(Limits {
        ingress: limit(wished.ingress_rate, wished.ingress_burst, "ingress")?,
        egress: limit(wished.egress_rate, wished.egress_burst, "egress")?,
    })
}
