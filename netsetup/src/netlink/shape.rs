//! Limits of what a link sends: a token bucket as its root queue.

use anyhow::{Context, Result};
use netlink_packet_core::{DefaultNla, Nla, NlaBuffer, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::{CREATE, Connection, DUMP, Request};

const KIND: &str = "tbf";
const REPLACE: u16 = 0x100;
const PARAMETERS: u16 = 1;
const RATE_64: u16 = 4;
const BURST: u16 = 6;
const ETHERNET: u8 = 1;
/// How long a packet may wait in the queue, in milliseconds.
const LATENCY_MS: u64 = 25;
/// Packets of a link with offloads are up to 64 KiB: smaller bursts would drop them all.
const LEAST_BURST: u64 = 128 * 1024;

/// A limit: bits per second, and the bits that may go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) rate: u64,
    pub(crate) burst: Option<u64>,
}

fn message(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index).unwrap_or_default();
    message
}

/// Limits what a link sends, in place of an earlier limit.
pub(crate) fn set(connection: &mut Connection, index: u32, limit: Limit) -> Result<()> {
    let mut message = message(index);
    message.header.parent = TcHandle::ROOT;
    message.header.handle = TcHandle { major: 1, minor: 0 };
    message.attributes = vec![
        TcAttribute::Kind(KIND.to_owned()),
        TcAttribute::Options(options(limit).into_iter().map(TcOption::Other).collect()),
    ];
    let request = RouteNetlinkMessage::NewQueueDiscipline(message);
    connection.transact(vec![Request { message: request, flags: CREATE | REPLACE }])
}

fn options(limit: Limit) -> Vec<DefaultNla> {
    let rate = (limit.rate / 8).max(1);
    let burst = limit.burst.map_or_else(|| (rate / 20).max(LEAST_BURST), |bits| bits / 8);
    let burst = burst.clamp(1, u64::from(u32::MAX) / 2);
    let waiting = (rate / 1000 * LATENCY_MS + burst).min(u64::from(u32::MAX));
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes();
    // struct tc_tbf_qopt: rate, peak rate, limit in bytes, buffer and mtu, which the burst replaces.
    let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parameters.extend(narrow(rate));
    parameters.extend([0; 12]);
    parameters.extend(narrow(waiting));
    parameters.extend([0; 8]);
    let mut options = vec![
        DefaultNla::new(PARAMETERS, parameters),
        DefaultNla::new(BURST, narrow(burst).to_vec()),
    ];
    if rate > u64::from(u32::MAX) {
        options.push(DefaultNla::new(RATE_64, rate.to_ne_bytes().to_vec()));
    }
    options
}

/// The limit of a link in bits per second, if it has one.
pub(crate) fn get(connection: &mut Connection, index: u32) -> Result<Option<u64>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(message(index));
    let answers = connection.query(&Request { message: request, flags: DUMP });
    let answers = answers.context("list queues")?;
    let ours = answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(message)
            if message.header.index == i32::try_from(index).unwrap_or_default()
                && message.attributes.contains(&TcAttribute::Kind(KIND.to_owned())) =>
        {
            Some(message)
        }
        _ => None,
    });
    Ok(ours.and_then(|message| message.attributes.iter().find_map(rate)))
}

fn rate(attribute: &TcAttribute) -> Option<u64> {
    let TcAttribute::Options(options) = attribute else { return None };
    // Options of a kind that the crate does not know come as one, undivided.
    let option = options.first()?;
    let mut whole = vec![0; option.value_len()];
    option.emit_value(&mut whole);
    let (mut wide, mut narrow) = (None, None);
    for part in NlasIterator::new(whole.as_slice()) {
        let part: NlaBuffer<&[u8]> = part.ok()?;
        match part.kind() {
            PARAMETERS => narrow = part.value().get(8..12)?.first_chunk().copied(),
            RATE_64 => wide = part.value().first_chunk().copied(),
            _ => {}
        }
    }
    let narrow = narrow.map(|bytes| u64::from(u32::from_ne_bytes(bytes)));
    wide.map(u64::from_ne_bytes).or(narrow).map(|bytes| bytes * 8)
}
