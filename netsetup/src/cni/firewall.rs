//! The plugin `firewall`: lets a container's packets through the host's forward chains, and with
//! `ingressPolicy` keeps others from beginning connections to it.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::config::Config;
use super::failure::{Code, Failure};
use super::{Call, open_store, portmap};
use crate::apply::Host;
use crate::state::Isolation;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    #[serde(default)]
    ingress_policy: String,
}

impl Options {
    /// Whether anybody may begin connections, and from whom the containers are kept.
    fn policy(&self) -> Result<(bool, Isolation)> {
        match self.ingress_policy.as_str() {
            "" | "open" => Ok((true, Isolation::None)),
            "same-bridge" => Ok((false, Isolation::Bridges)),
            "isolated" => Ok((false, Isolation::Containers)),
            other => {
                let text = format!("ingressPolicy {other:?} is not open, same-bridge or isolated");
                Err(Failure::new(Code::Config, text).into())
            }
        }
    }
}

pub(super) fn add(call: &Call, config: &Config) -> Result<Value> {
    let options: Options = config.options()?;
    let (routed, isolation) = options.policy()?;
    let result = config.passed_on()?;
    let store = open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let attachment = portmap::adopt(&mut host, call, config)?;
    host.amend_bridge(&attachment.network, |bridge| {
        // What is strict already stays so.
        bridge.routed &= routed;
        if !routed && bridge.isolation != Isolation::Containers {
            bridge.isolation = isolation;
        }
    })?;
    host.isolate_port(&attachment)?;
    Ok(result)
}

/// A container that is not attached by us is forgotten with its ports.
pub(super) fn del(call: &Call) -> Result<()> {
    portmap::del(call)
}

pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    config.previous()?;
    let store = open_store()?;
    Host::open_at_once(&store)?.check_ports(&call.container)
}
