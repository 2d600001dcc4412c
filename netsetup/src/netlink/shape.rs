//! Limits of what a link sends: a token bucket as its root queue.

use std::str::FromStr;

use anyhow::{Context, Result};
use netlink_packet_core::{DefaultNla, Nla, NlaBuffer, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use serde::{Deserialize, Serialize};

use super::{CREATE, Connection, DUMP, Request, link};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) rate: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u64>,
}

/// The limits of a container's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Of what it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ingress: Option<Limit>,
    /// Of what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) egress: Option<Limit>,
}

impl Limits {
    /// Whether nothing is limited.
    pub(crate) fn are_none(&self) -> bool {
        *self == Limits::default()
    }
}

impl FromStr for Limit {
    type Err = String;

    /// A number of bits per second, with k, m or g for thousands of thousands: `10m`, `10mbit`.
    fn from_str(text: &str) -> Result<Limit, String> {
        let lower = text.to_ascii_lowercase();
        let word = lower.strip_suffix("bit").unwrap_or(&lower);
        let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let (digits, unit) = word.split_at(end);
        let factor = match unit {
            "" => Some(1),
            "k" => Some(1000),
            "m" => Some(1_000_000),
            "g" => Some(1_000_000_000),
            _ => None,
        };
        let number = digits.parse::<u64>().ok();
        let rate = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        let rate = rate.filter(|rate| *rate >= 8);
        rate.map(|rate| Limit { rate, burst: None })
            .ok_or_else(|| format!("{text:?} is no rate in bits per second, as 500k or 10mbit"))
    }
}

fn message(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index).unwrap_or_default();
    message
}

/// Limits what the link of a name sends.
pub(crate) fn set_by_name(connection: &mut Connection, name: &str, limit: Limit) -> Result<()> {
    let link = link::find(connection, name)?.with_context(|| format!("no link {name}"))?;
    set(connection, link.index, limit).with_context(|| format!("limit link {name}"))
}

/// Limits what a link sends, in place of an earlier limit.
fn set(connection: &mut Connection, index: u32, limit: Limit) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bits_per_second() {
        let rate = |text: &str| text.parse::<Limit>().map(|limit| limit.rate);
        assert_eq!(rate("500k"), Ok(500_000));
        assert_eq!(rate("10Mbit"), Ok(10_000_000));
        assert_eq!(rate("1g"), Ok(1_000_000_000));
        for bad in ["", "m", "0", "-1", "1.5m", "10mb", "99999999999g"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
