//! The expressions that our rules are made of. Register 1 and the 32-bit registers share memory:
//! a concatenation lies in consecutive 32-bit registers, each part padded to four bytes.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, Meta, MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use crate::subnet::Family;

/// One expression of a rule.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

pub(super) const NF_ACCEPT: u32 = 1;
pub(super) const NF_DROP: u32 = 0;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const RTN_LOCAL: u32 = 2;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_FLAG_DESTINATION: u32 = 2;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_ESTABLISHED_OR_RELATED: u32 = 0b110;
const CT_DESTINATION_NAT: u32 = 1 << 5;
const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const LOOKUP_INVERTED: u32 = 1;

/// An attribute whose value is a number in network order, as all are in nf_tables.
fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other { expression_type: name.to_owned(), attributes }.into()
}

pub(super) fn meta(key: MetaKey, register: Register) -> Expression {
    Expressions::Meta(vec![Meta::DestinationRegister(register), Meta::Key(key)]).into()
}

fn payload(base: u32, offset: u32, length: u32, register: Register) -> Expression {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
    .into()
}

pub(super) fn source_address(family: Family, register: Register) -> Expression {
    match family {
        Family::V4 => payload(NETWORK_HEADER, 12, 4, register),
        Family::V6 => payload(NETWORK_HEADER, 8, 16, register),
    }
}

pub(super) fn destination_address(family: Family, register: Register) -> Expression {
    match family {
        Family::V4 => payload(NETWORK_HEADER, 16, 4, register),
        Family::V6 => payload(NETWORK_HEADER, 24, 16, register),
    }
}

/// The 32-bit register behind an address that begins in the first.
pub(super) fn behind_address(family: Family) -> Register {
    match family {
        Family::V4 => Register::Reg32_01,
        Family::V6 => Register::Reg32_04,
    }
}

/// The one after it.
pub(super) fn second_behind_address(family: Family) -> Register {
    match family {
        Family::V4 => Register::Reg32_02,
        Family::V6 => Register::Reg32_05,
    }
}

pub(super) fn destination_port(register: Register) -> Expression {
    payload(TRANSPORT_HEADER, 2, 2, register)
}

fn compare(operator: Operator, register: Register, value: Vec<u8>) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(register),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
    .into()
}

pub(super) fn equal(register: Register, value: &[u8]) -> Expression {
    compare(Operator::Equal, register, value.to_vec())
}

pub(super) fn not_equal(register: Register, value: &[u8]) -> Expression {
    compare(Operator::NotEqual, register, value.to_vec())
}

fn mask(register: Register, mask: &[u8; 4]) -> Expression {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(register),
        Bitwise::DestinationRegister(register),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
    .into()
}

/// The value is in the set.
pub(super) fn is_in(set: &str, register: Register) -> Expression {
    Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(register)]).into()
}

/// The value is not in the set.
pub(super) fn is_not_in(set: &str, register: Register) -> Expression {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(register),
        Lookup::Flags(LOOKUP_INVERTED),
    ])
    .into()
}

/// Replaces the value in register 1 by what the map has for it.
pub(super) fn mapped(map: &str) -> Expression {
    Expressions::Lookup(vec![
        Lookup::Set(map.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::DestinationRegister(Register::Reg1),
    ])
    .into()
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
    .into()
}

pub(super) fn accept() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_ACCEPT))])
}

pub(super) fn drop() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))])
}

pub(super) fn return_() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Return)])
}

pub(super) fn jump(chain: &str) -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Jump), VerdictAttribute::Chain(chain.to_owned())])
}

pub(super) fn counter() -> Expression {
    other("counter", Vec::new())
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

/// The packet is of this family. Every rule that looks into an IP header needs this in an inet
/// table.
pub(super) fn is(family: Family) -> [Expression; 2] {
    [meta(MetaKey::Nfproto, Register::Reg1), equal(Register::Reg1, &[nfproto(family)])]
}

/// The destination is an address of this host. Without this, a packet that the host merely
/// forwards would be taken from its way because of its port (CVE-2025-67499).
pub(super) fn destination_is_local() -> [Expression; 2] {
    let attributes = vec![
        number(1, u32::from(Register::Reg1)),
        number(2, FIB_RESULT_ADDRESS_TYPE),
        number(3, FIB_FLAG_DESTINATION),
    ];
    [other("fib", attributes), equal(Register::Reg1, &RTN_LOCAL.to_ne_bytes())]
}

fn conntrack(key: u32, bits: u32) -> [Expression; 3] {
    [
        other("ct", vec![number(1, u32::from(Register::Reg1)), number(2, key)]),
        mask(Register::Reg1, &bits.to_ne_bytes()),
        not_equal(Register::Reg1, &[0; 4]),
    ]
}

/// The packet belongs to a connection that was let through before.
pub(super) fn is_established() -> [Expression; 3] {
    conntrack(CT_STATE, CT_ESTABLISHED_OR_RELATED)
}

/// The packet's destination was rewritten: it came for a published port.
pub(super) fn is_published() -> [Expression; 3] {
    conntrack(CT_STATUS, CT_DESTINATION_NAT)
}

/// The IPv4 address in a register is in 127.0.0.0/8.
pub(super) fn is_loopback(register: Register) -> [Expression; 2] {
    [mask(register, &[255, 0, 0, 0]), equal(register, &[127, 0, 0, 0])]
}

/// The destination is no multicast address: outside 224.0.0.0/4 or ff00::/8.
pub(super) fn destination_is_not_multicast(family: Family) -> Vec<Expression> {
    let register = Register::Reg1;
    match family {
        Family::V4 => vec![
            destination_address(family, register),
            mask(register, &[240, 0, 0, 0]),
            not_equal(register, &[224, 0, 0, 0]),
        ],
        Family::V6 => {
            vec![payload(NETWORK_HEADER, 24, 1, register), not_equal(register, &[0xff])]
        }
    }
}

/// Sends the packet to the address that begins in the first 32-bit register and the port behind
/// it.
pub(super) fn destination_nat(family: Family) -> Expression {
    other(
        "nat",
        vec![
            number(1, NAT_DESTINATION),
            number(2, u32::from(nfproto(family))),
            number(3, u32::from(Register::Reg1)),
            number(5, u32::from(behind_address(family))),
        ],
    )
}

/// Gives the packet the source address in register 1.
pub(super) fn source_nat(family: Family) -> Expression {
    other(
        "nat",
        vec![
            number(1, NAT_SOURCE),
            number(2, u32::from(nfproto(family))),
            number(3, u32::from(Register::Reg1)),
        ],
    )
}

/// Gives the packet the source address of the link that it leaves by.
pub(super) fn masquerade() -> Expression {
    other("masq", Vec::new())
}
