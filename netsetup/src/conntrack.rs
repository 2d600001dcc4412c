//! Connections that the kernel remembers. A UDP sender that keeps sending would follow the
//! decision of its first packet for ever, so the entries of a port that is published or
//! withdrawn are forgotten.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;

use crate::netlink::{Connection, DUMP, Request, is_errno};
use crate::port::{self, Binding};

/// Forgets the UDP connections to the host ports of these bindings.
pub(crate) fn forget<'a>(
    connection: &mut Connection,
    bindings: impl Iterator<Item = &'a Binding>,
) -> Result<()> {
    let mut ports: HashMap<bool, HashSet<u16>> = HashMap::new();
    for binding in bindings.filter(|binding| binding.protocol == port::Protocol::Udp) {
        ports.entry(binding.host_ip.is_ipv4()).or_default().insert(binding.host_port);
    }
    for (is_ipv4, ports) in ports {
        let family = if is_ipv4 { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
        forget_ports(connection, family, &ports)?;
    }
    Ok(())
}

fn forget_ports(
    connection: &mut Connection,
    family: NetfilterProtoFamily,
    ports: &HashSet<u16>,
) -> Result<()> {
    let answers = connection
        .query(&request(family, ConntrackMessage::Get(Vec::new()), DUMP))
        .context("list connections")?;
    for answer in answers {
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = answer.inner
        else {
            continue;
        };
        let Some(tuple) = attributes.into_iter().find_map(original) else { continue };
        if !leads_to(&tuple, ports) {
            continue;
        }
        let delete = ConntrackMessage::Delete(vec![ConntrackAttribute::CtaTupleOrig(tuple)]);
        match connection.transact(vec![request(family, delete, 0)]) {
            Err(error) if !is_errno(&error, Errno::ENOENT) => {
                return Err(error).context("forget connection");
            }
            _ => {}
        }
    }
    Ok(())
}

fn request(
    family: NetfilterProtoFamily,
    message: ConntrackMessage,
    flags: u16,
) -> Request<NetfilterMessage> {
    let header = NetfilterHeader::new(family, 0, 0);
    Request { message: NetfilterMessage::new(header, message), flags }
}

fn original(attribute: ConntrackAttribute) -> Option<Vec<Tuple>> {
    match attribute {
        ConntrackAttribute::CtaTupleOrig(tuple) => Some(tuple),
        _ => None,
    }
}

fn leads_to(tuple: &[Tuple], ports: &HashSet<u16>) -> bool {
    tuple.iter().any(|part| match part {
        Tuple::Proto(fields) => {
            fields.contains(&ProtoTuple::Protocol(Protocol::Udp))
                && fields.iter().any(|field| match field {
                    ProtoTuple::DestinationPort(port) => ports.contains(port),
                    _ => false,
                })
        }
        _ => false,
    })
}
