//! nf_tables messages and the transaction that carries them.

use std::net::IpAddr;

use anyhow::Result;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetElementAttribute,
    SetElementFlags, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::expression::Expression;
use crate::netlink::{ACK, APPEND, CREATE, Connection, DUMP, EXCLUSIVE, REQUEST, Request};

/// Our table.
pub(super) const TABLE: &str = "netsetup";
const SUBSYSTEM: u16 = 10;
const INTERVAL_END: u32 = 1;
/// Elements in one message: the attribute that holds them is limited to 64 KiB.
const ELEMENTS_AT_ONCE: usize = 400;

/// The type numbers by which `nft list` knows how to print keys.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Address4,
    Address6,
    Protocol,
    Port,
    Interface,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Kind::Address4 => 7,
            Kind::Address6 => 8,
            Kind::Protocol => 12,
            Kind::Port => 13,
            Kind::Interface => 41,
        }
    }

    /// Bytes in a register, padded to four.
    fn length(self) -> u32 {
        match self {
            Kind::Interface | Kind::Address6 => 16,
            Kind::Address4 | Kind::Protocol | Kind::Port => 4,
        }
    }

    /// Bytes without the padding.
    fn bare_length(self) -> u32 {
        match self {
            Kind::Interface | Kind::Address6 => 16,
            Kind::Address4 => 4,
            Kind::Port => 2,
            Kind::Protocol => 1,
        }
    }
}

fn type_number(kinds: &[Kind]) -> u32 {
    kinds.iter().fold(0, |number, kind| (number << 6) | kind.number())
}

fn length(kinds: &[Kind]) -> u32 {
    match kinds {
        [kind] => kind.bare_length(),
        _ => kinds.iter().map(|kind| kind.length()).sum(),
    }
}

/// A set or map to be made.
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) key: &'static [Kind],
    /// What a map's keys lead to; empty for a set.
    pub(super) data: &'static [Kind],
    pub(super) intervals: bool,
}

/// A request of nf_tables.
pub(super) type Change = Request<NetfilterMessage>;

pub(super) fn message(
    family: NetfilterProtoFamily,
    message: NfTablesMessage,
    flags: u16,
) -> Change {
    Request { message: NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message), flags }
}

fn ours(inner: NfTablesMessage, flags: u16) -> Change {
    message(NetfilterProtoFamily::Inet, inner, flags)
}

fn table() -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] }
}

pub(super) fn get_table() -> Change {
    ours(NfTablesMessage::GetTable(table()), 0)
}

/// Makes the table if it does not exist, so that removing it does not fail.
pub(super) fn ensure_table() -> Change {
    ours(NfTablesMessage::NewTable(table()), CREATE)
}

/// Makes the table; fails if it exists, so that its rules are never added twice.
pub(super) fn new_table() -> Change {
    ours(NfTablesMessage::NewTable(table()), CREATE | EXCLUSIVE)
}

/// Removes the table with everything in it.
pub(super) fn delete_table() -> Change {
    ours(NfTablesMessage::DeleteTable(table()), 0)
}

pub(super) fn new_chain(name: &str, hook: Option<(InetHookNumber, i32, &str)>) -> Change {
    let mut attributes =
        vec![ChainAttribute::Table(TABLE.to_owned()), ChainAttribute::Name(name.to_owned())];
    if let Some((number, priority, kind)) = hook {
        attributes.push(ChainAttribute::Hook(vec![
            Hook::Number(number.into()),
            Hook::Priority(priority.cast_unsigned()),
        ]));
        attributes.push(ChainAttribute::Type(kind.to_owned()));
    }
    ours(NfTablesMessage::NewChain(ChainMessage { attributes }), CREATE)
}

pub(super) fn new_rule(chain: &str, expressions: Vec<Expression>) -> Change {
    let attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(expressions),
    ];
    ours(NfTablesMessage::NewRule(RuleMessage { attributes }), CREATE | APPEND)
}

/// `id` tells the sets of one transaction apart.
pub(super) fn new_set(set: &Set, id: u32) -> Change {
    let mut flags = SetFlags::empty();
    let mut attributes = vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(set.name.to_owned()),
        SetAttribute::KeyType(type_number(set.key)),
        SetAttribute::KeyLen(length(set.key)),
        SetAttribute::Id(id),
    ];
    if !set.data.is_empty() {
        flags |= SetFlags::Map;
        attributes.push(SetAttribute::DataType(type_number(set.data)));
        attributes.push(SetAttribute::DataLen(length(set.data)));
    }
    if set.intervals {
        flags |= SetFlags::Interval;
    }
    if set.key.len() > 1 {
        flags |= SetFlags::Concat;
        let fields = set.key.iter().map(|kind| {
            // NFTA_LIST_ELEM { NFTA_SET_FIELD_LEN }
            let mut field = vec![8, 0, 1, 0];
            field.extend(kind.bare_length().to_be_bytes());
            DefaultNla::new(1 | NLA_F_NESTED, field)
        });
        attributes.push(SetAttribute::Description(vec![SetDescription::Concat(fields.collect())]));
    }
    if let [Kind::Interface] = set.key {
        // Type 0, 4 bytes, host order: `nft list` would print names backwards without it.
        let mut order = vec![0, 4];
        order.extend(1_u32.to_ne_bytes());
        attributes.push(SetAttribute::UserData(order));
    }
    attributes.push(SetAttribute::Flags(flags));
    ours(NfTablesMessage::NewSet(SetMessage { attributes }), CREATE)
}

/// An element of a set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// The last key of a range, where keys are concatenations.
    pub(super) key_end: Option<Vec<u8>>,
    /// The key is the first behind a range, where keys are single values.
    pub(super) ends_range: bool,
    pub(super) data: Option<Vec<u8>>,
    pub(super) comment: Option<String>,
}

impl Element {
    fn attributes(&self) -> ListAttribute<SetElementAttribute> {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(self.key.clone()))];
        if let Some(end) = &self.key_end {
            attributes.push(SetElementAttribute::KeyEnd(vec![DefaultNla::new(1, end.clone())]));
        }
        if let Some(data) = &self.data {
            attributes.push(SetElementAttribute::Data(DataAttribute::Value(data.clone())));
        }
        if self.ends_range {
            attributes
                .push(SetElementAttribute::Flags(SetElementFlags::from_bits_retain(INTERVAL_END)));
        }
        if let Some(comment) = &self.comment {
            attributes.push(SetElementAttribute::UserData(comment_data(comment)));
        }
        ListAttribute::Element(attributes)
    }
}

/// User data as nft writes it: type 0 is a comment, length and text follow.
pub(super) fn comment_data(text: &str) -> Vec<u8> {
    let text = text.get(..text.len().min(120)).unwrap_or_default();
    let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    data.extend(text.bytes());
    data.push(0);
    data
}

fn elements(set: &str, elements: &[Element]) -> Vec<SetElementMessage> {
    elements
        .chunks(ELEMENTS_AT_ONCE)
        .map(|chunk| SetElementMessage {
            attributes: vec![
                SetElementList::Table(TABLE.to_owned()),
                SetElementList::Set(set.to_owned()),
                SetElementList::Elements(chunk.iter().map(Element::attributes).collect()),
            ],
        })
        .collect()
}

/// Adds elements; one that exists with the same data is no error.
pub(super) fn add_elements(set: &str, added: &[Element]) -> Vec<Change> {
    let messages = elements(set, added).into_iter();
    messages.map(|message| ours(NfTablesMessage::NewSetElement(message), CREATE)).collect()
}

/// Removes elements; those that are gone already are added first, since removing what does not
/// exist fails and a transaction is all or nothing (NFT_MSG_DESTROYSETELEM came with Linux 6.3).
pub(super) fn remove_elements(set: &str, removed: &[Element]) -> Vec<Change> {
    let mut changes = add_elements(set, removed);
    let messages = elements(set, removed).into_iter();
    changes.extend(messages.map(|message| ours(NfTablesMessage::DeleteSetElement(message), 0)));
    changes
}

/// Asks for the elements of a set.
pub(super) fn get_elements(set: &str) -> Change {
    let attributes =
        vec![SetElementList::Table(TABLE.to_owned()), SetElementList::Set(set.to_owned())];
    ours(NfTablesMessage::GetSetElement(SetElementMessage { attributes }), DUMP)
}

/// Asks for the rules of the table.
pub(super) fn get_rules() -> Change {
    let attributes = vec![RuleAttribute::Table(TABLE.to_owned())];
    ours(NfTablesMessage::GetRule(RuleMessage { attributes }), DUMP)
}

/// An interface name as a key.
pub(super) fn interface(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// An address as a key.
pub(super) fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Sends changes as one transaction: all of them happen or none.
pub(super) fn commit(connection: &mut Connection, changes: Vec<Change>) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let control = |message| {
        NetfilterMessage::new(
            NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM),
            message,
        )
    };
    let mut buffer = Vec::new();
    let first = connection
        .append(&mut buffer, control(ControlMessage::BatchBegin), REQUEST)?
        .wrapping_add(1);
    let mut last = first;
    for change in changes {
        last = connection.append(&mut buffer, change.message, change.flags | REQUEST | ACK)?;
    }
    connection.append(&mut buffer, control(ControlMessage::BatchEnd), REQUEST)?;
    connection.exchange(&buffer, first, last)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
    use netlink_packet_netfilter::NetfilterMessageInner;

    use super::*;

    fn bytes(change: &Change) -> Vec<u8> {
        let mut buffer = vec![0; change.message.buffer_len()];
        change.message.serialize(&mut buffer);
        buffer
    }

    #[test]
    fn an_element_is_key_data_and_comment() {
        let element = Element {
            key: vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            data: Some(vec![10, 1, 0, 2, 0, 80, 0, 0]),
            comment: Some("c".to_owned()),
            ..Element::default()
        };
        let changes = add_elements("ports", &[element]);
        let expected: &[&[u8]] = &[
            &[1, 0, 0, 0], // family inet, version, resource
            &[13, 0, 1, 0],
            b"netsetup\0\0\0\0", // table
            &[10, 0, 2, 0],
            b"ports\0\0\0",    // set
            &[48, 0, 3, 0x80], // elements
            &[44, 0, 1, 0x80], // element
            &[16, 0, 1, 0x80, 12, 0, 1, 0],
            &[6, 0, 0, 0, 0x1f, 0x90, 0, 0], // key
            &[16, 0, 2, 0x80, 12, 0, 1, 0],
            &[10, 1, 0, 2, 0, 80, 0, 0], // data
            &[8, 0, 6, 0],
            &[0, 2, b'c', 0], // comment
        ];
        assert_eq!(changes.iter().map(bytes).collect::<Vec<_>>(), [expected.concat()]);
    }

    #[test]
    fn many_elements_are_spread_over_messages() {
        let elements = vec![Element { key: vec![0; 8], ..Element::default() }; 1000];
        assert_eq!(add_elements("ports", &elements).len(), 3);
        assert_eq!(remove_elements("ports", &elements).len(), 6);
        for change in add_elements("ports", &elements) {
            assert!(bytes(&change).len() < usize::from(u16::MAX));
        }
    }

    #[test]
    fn the_whole_table_can_be_decoded() {
        for change in super::super::table::whole() {
            let mut header = NetlinkHeader::default();
            header.message_type = change.message.message_type();
            let decoded = NetfilterMessage::deserialize(&header, &bytes(&change)).unwrap();
            // Set descriptions come back without the nesting bit that they are sent with.
            if !matches!(
                &decoded.inner,
                NetfilterMessageInner::NfTables(NfTablesMessage::NewSet(_))
            ) {
                assert_eq!(decoded, change.message);
            }
        }
    }

    #[test]
    fn types_of_concatenations_are_numbered_as_nft_numbers_them() {
        assert_eq!(type_number(&[Kind::Protocol, Kind::Port]), (12 << 6) | 13);
        assert_eq!(length(&[Kind::Address4, Kind::Protocol, Kind::Port]), 12);
        assert_eq!(length(&[Kind::Interface]), 16);
    }
}
