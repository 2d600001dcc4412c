//! Where an attribute's value is one other attribute, `netlink-packet-netfilter` reads that one without
//! a look at its length, and panics at one that is cut short. So these are looked at before.

use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator};

use super::HEADER;

/// The family, version and resource of a netfilter message stand before its attributes.
const NETFILTER_HEADER: usize = 4;
const SUBSYSTEM_NF_TABLES: u16 = 10;

/// Kinds of attributes, with what is in their values; the values of others are not looked at.
type Kinds = &'static [(u16, Value)];

/// What is in the value of an attribute.
#[derive(Clone, Copy)]
enum Value {
    /// One attribute, which is read unchecked.
    One,
    /// Several, of which those of some kinds hold such.
    Many(Kinds),
    /// A name, and attributes whose meaning depends on the name.
    Expression,
}

const RULE: Kinds = &[(4, EXPRESSIONS)];
const SET: Kinds = &[(17, Value::One), (18, EXPRESSIONS)];
const ELEMENTS: Kinds = &[(3, Value::Many(&[(1, Value::Many(ELEMENT))]))];
const ELEMENT: Kinds = &[(1, Value::One), (2, Value::One), (7, Value::One), (11, EXPRESSIONS)];
const EXPRESSIONS: Value = Value::Many(&[(1, Value::Expression)]);

const NAME: u16 = 1;
const DATA: u16 = 2;
const EXPRESSIONS_WITH_DATA: [(&[u8], Kinds); 3] = [
    (b"bitwise", &[(4, Value::One), (5, Value::One), (7, Value::One)]),
    (b"cmp", &[(3, Value::One)]),
    (b"immediate", &[(2, Value::One)]),
];

/// Refuses a message in which an attribute is shorter than its header or longer than what holds it,
/// where its reader would not.
pub(super) fn check(kind: u16, message: &[u8]) -> Result<(), DecodeError> {
    let kinds = match kind.to_be_bytes() {
        [subsystem, message] if u16::from(subsystem) == SUBSYSTEM_NF_TABLES => match message {
            6..=8 => RULE,
            9..=11 => SET,
            12..=14 => ELEMENTS,
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    check_many(message.get(HEADER + NETFILTER_HEADER..).unwrap_or_default(), kinds)
}

fn check_many(attributes: &[u8], kinds: Kinds) -> Result<(), DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let Some((_, value)) = kinds.iter().find(|(kind, _)| *kind == attribute.kind()) else {
            continue;
        };
        match value {
            Value::One => NlaBuffer::new_checked(attribute.value()).map(drop)?,
            Value::Many(kinds) => check_many(attribute.value(), kinds)?,
            Value::Expression => check_expression(attribute.value())?,
        }
    }
    Ok(())
}

fn check_expression(attributes: &[u8]) -> Result<(), DecodeError> {
    let mut kinds: Kinds = &[];
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                let known = EXPRESSIONS_WITH_DATA.iter().find(|(known, _)| *known == name);
                kinds = known.map_or(&[][..], |(_, kinds)| kinds);
            }
            DATA => check_many(value, kinds)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::NetfilterMessage;

    use super::super::decoded;

    /// Attributes of these kinds, each within the one before, with what stands in the innermost.
    fn nested(kinds: &[u16], innermost: &[u8]) -> Vec<u8> {
        kinds.iter().rfold(innermost.to_vec(), |value, kind| attribute(*kind, &value))
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u8, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(20 + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&u16::from_be_bytes([10, kind]).to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&[2, 0, 0, 0]);
        bytes.extend_from_slice(attributes);
        bytes
    }

    /// An expression of a rule with a value behind its name.
    fn expression(name: &str, kind: u16, value: &[u8]) -> Vec<u8> {
        let name = attribute(1, format!("{name}\0").as_bytes());
        let data = nested(&[2, kind], value);
        nested(&[4, 1], &[name, data].concat())
    }

    /// All places where the crate expects one attribute.
    fn places(value: &[u8]) -> Vec<Vec<u8>> {
        vec![
            message(9, &nested(&[17], value)),
            message(12, &nested(&[3, 1, 1], value)),
            message(12, &nested(&[3, 1, 2], value)),
            message(12, &nested(&[3, 1, 7], value)),
            message(6, &expression("bitwise", 4, value)),
            message(6, &expression("bitwise", 5, value)),
            message(6, &expression("bitwise", 7, value)),
            message(6, &expression("cmp", 3, value)),
            message(6, &expression("immediate", 2, value)),
        ]
    }

    #[test]
    fn attributes_of_impossible_lengths_are_refused() {
        let whole = attribute(1, b"key!");
        for place in places(&whole) {
            assert_eq!(decoded::<NetfilterMessage>(&place).unwrap().len(), 1, "{place:02x?}");
        }
        let length = |length: u16| [&length.to_ne_bytes()[..], &whole[2..]].concat();
        let malformed = [
            Vec::new(),
            vec![8],
            whole[..3].to_vec(),
            length(0),
            length(3),
            length(9),
            length(u16::MAX),
            whole[..7].to_vec(),
        ];
        for value in malformed {
            for place in places(&value) {
                assert!(decoded::<NetfilterMessage>(&place).is_err(), "{place:02x?}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_an_attribute_is_read() {
        for (name, kind) in [("meta", 2), ("payload", 3), ("lookup", 2), ("counter", 2)] {
            let value = 3_u32.to_be_bytes();
            let rule = message(6, &expression(name, kind, &value));
            assert_eq!(decoded::<NetfilterMessage>(&rule).unwrap().len(), 1, "{name}");
        }
    }
}
