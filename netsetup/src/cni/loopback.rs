//! The plugin `loopback`: switches a container's loopback link on.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Call;
use super::config::Config;
use super::failure::{Code, Failure};
use super::outcome::{Interface, Ip, Outcome};
use crate::netlink::link::{self, Link};
use crate::netlink::{Connection, Request};
use crate::netns::NetworkNamespace;
use netlink_packet_route::RouteNetlinkMessage;

pub(super) fn add(call: &Call, config: &Config) -> Result<Value> {
    let netns = call.open_netns()?;
    switch(&netns, link::set_up)?;
    if config.prev_result.is_some() {
        return config.passed_on();
    }
    let lo = Interface {
        name: "lo".to_owned(),
        mac: Some("00:00:00:00:00:00".to_owned()),
        sandbox: Some(call.netns_path().display().to_string()),
    };
    let ip = |address: &str| Ip { address: address.to_owned(), gateway: None, interface: Some(0) };
    let ips = vec![ip("127.0.0.1/8"), ip("::1/128")];
    let outcome = Outcome { interfaces: vec![lo], ips, ..Outcome::default() };
    outcome.shaped(&config.cni_version)
}

/// Switches it off, if the namespace is still there.
pub(super) fn del(call: &Call) -> Result<()> {
    if call.netns.is_none() {
        return Ok(());
    }
    match NetworkNamespace::open(call.netns_path()) {
        Ok(netns) => switch(&netns, link::set_down),
        // Gone, or nothing that has a link.
        Err(_) => Ok(()),
    }
}

pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    config.previous()?;
    let (_, lo) = find(&call.open_netns()?)?;
    if lo.is_up() { Ok(()) } else { Err(Failure::new(Code::Internal, "lo is down").into()) }
}

fn switch(
    netns: &NetworkNamespace,
    request: fn(u32) -> Request<RouteNetlinkMessage>,
) -> Result<()> {
    let (mut inside, lo) = find(netns)?;
    inside.transact(vec![request(lo.index)]).context("switch the loopback link")
}

fn find(netns: &NetworkNamespace) -> Result<(Connection, Link)> {
    let mut inside = netns.enter(Connection::route)?;
    let lo = link::find(&mut inside, "lo")?.context("the container has no loopback link")?;
    Ok((inside, lo))
}
