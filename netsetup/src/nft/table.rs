//! The whole of our table, made at first use. Nothing in it grows with containers but the
//! elements of its sets and maps.

use netlink_packet_netfilter::nftables::{InetHookNumber, MetaKey, Register};

use super::expression::{self as e, Expression};
use super::message::{Change, Kind, Set, interface, new_chain, new_rule, new_set, new_table};

/// Every link name that is a bridge of ours.
pub(super) const BRIDGES: &str = "bridges";
/// (in, out) of packets that stay on one bridge: where bridged packets pass IP hooks
/// (br_netfilter), and in hairpin connections.
pub(super) const INSIDE: &str = "inside";
/// Bridges from which there is no way out.
pub(super) const INTERNAL: &str = "internal";
/// Subnets whose packets leave with the host's address.
pub(super) const MASQUERADED: &str = "masqueraded";
/// Subnets of all bridges.
pub(super) const SUBNETS: &str = "subnets";
/// (subnet, its bridge): a container that reaches a neighbour, or itself, through a published
/// port must see the answer come back through the host.
pub(super) const HAIRPIN: &str = "hairpin";
/// protocol . port -> address . port, for ports published on every address.
pub(super) const PORTS: &str = "ports";
/// address . protocol . port -> address . port, for ports published on one address.
pub(super) const PORTS_AT: &str = "ports_at";

const SETS: [Set; 8] = [
    Set { name: BRIDGES, key: &[Kind::Interface], data: &[], intervals: false },
    Set { name: INSIDE, key: &[Kind::Interface, Kind::Interface], data: &[], intervals: false },
    Set { name: INTERNAL, key: &[Kind::Interface], data: &[], intervals: false },
    Set { name: MASQUERADED, key: &[Kind::Address], data: &[], intervals: true },
    Set { name: SUBNETS, key: &[Kind::Address], data: &[], intervals: true },
    Set { name: HAIRPIN, key: &[Kind::Address, Kind::Interface], data: &[], intervals: true },
    Set {
        name: PORTS,
        key: &[Kind::Protocol, Kind::Port],
        data: &[Kind::Address, Kind::Port],
        intervals: false,
    },
    Set {
        name: PORTS_AT,
        key: &[Kind::Address, Kind::Protocol, Kind::Port],
        data: &[Kind::Address, Kind::Port],
        intervals: false,
    },
];

const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// Table, sets, chains and rules.
pub(super) fn whole() -> Vec<Change> {
    let mut changes = vec![new_table()];
    changes.extend((1..).zip(&SETS).map(|(id, set)| new_set(set, id)));
    changes.push(new_chain("publish", None));
    let filter = "filter";
    let nat = "nat";
    for (name, hook, priority, kind) in [
        ("guard", InetHookNumber::PreRouting, RAW, filter),
        ("prerouting", InetHookNumber::PreRouting, DESTINATION_NAT, nat),
        ("output", InetHookNumber::LocalOut, DESTINATION_NAT, nat),
        ("forward", InetHookNumber::Forward, FILTER, filter),
        ("postrouting", InetHookNumber::PostRouting, SOURCE_NAT, nat),
    ] {
        changes.push(new_chain(name, Some((hook, priority, kind))));
    }
    for (chain, rule) in rules() {
        changes.push(new_rule(chain, rule));
    }
    changes
}

fn rule<const N: usize>(parts: [&[Expression]; N]) -> Vec<Expression> {
    parts.concat()
}

fn rules() -> Vec<(&'static str, Vec<Expression>)> {
    let from =
        |set: &str| [e::meta(MetaKey::Iifname, Register::Reg1), e::is_in(set, Register::Reg1)];
    let to = |set: &str| [e::meta(MetaKey::Oifname, Register::Reg1), e::is_in(set, Register::Reg1)];
    let ipv4 = e::ipv4();
    let to_loopback =
        rule([&[e::destination_address(Register::Reg1)], &e::is_loopback(Register::Reg1)]);
    let from_loopback =
        rule([&[e::source_address(Register::Reg1)], &e::is_loopback(Register::Reg1)]);
    let not_lo =
        [e::meta(MetaKey::Iifname, Register::Reg1), e::not_equal(Register::Reg1, &interface("lo"))];
    vec![
        // Our bridges have route_localnet, so the kernel would let containers reach 127.0.0.0/8
        // of the host (CVE-2020-8558).
        ("guard", rule([&from(BRIDGES), &ipv4, &to_loopback, &[e::drop()]])),
        // A port published on 127.0.0.1 is nobody else's: without its rewriting the kernel
        // refuses the packet as it would without us.
        ("prerouting", rule([&not_lo, &ipv4, &to_loopback, &[e::return_()]])),
        ("prerouting", rule([&e::destination_is_local(), &[e::jump("publish")]])),
        ("output", rule([&e::destination_is_local(), &[e::jump("publish")]])),
        (
            "publish",
            rule([
                &ipv4,
                &[
                    e::destination_address(Register::Reg32_00),
                    e::meta(MetaKey::L4Proto, Register::Reg32_01),
                    e::destination_port(Register::Reg32_02),
                    e::mapped(PORTS_AT),
                    e::destination_nat(),
                ],
            ]),
        ),
        (
            "publish",
            rule([
                &ipv4,
                &[
                    e::meta(MetaKey::L4Proto, Register::Reg32_00),
                    e::destination_port(Register::Reg32_01),
                    e::mapped(PORTS),
                    e::destination_nat(),
                ],
            ]),
        ),
        (
            "forward",
            vec![
                e::meta(MetaKey::Iifname, Register::Reg1),
                e::meta(MetaKey::Oifname, Register::Reg2),
                e::is_in(INSIDE, Register::Reg1),
                e::accept(),
            ],
        ),
        ("forward", rule([&from(INTERNAL), &[e::drop()]])),
        ("forward", rule([&to(INTERNAL), &[e::drop()]])),
        ("forward", rule([&e::is_established(), &[e::accept()]])),
        ("forward", rule([&e::is_published(), &[e::accept()]])),
        // What is left came from another bridge or another host for a port that is not published.
        ("forward", rule([&to(BRIDGES), &[e::drop()]])),
        (
            "postrouting",
            rule([
                &e::is_published(),
                &ipv4,
                &[
                    e::source_address(Register::Reg32_00),
                    e::meta(MetaKey::Oifname, Register::Reg32_01),
                    e::is_in(HAIRPIN, Register::Reg1),
                    e::masquerade(),
                ],
            ]),
        ),
        // A program of the host that came by 127.0.0.1 cannot be answered there.
        ("postrouting", rule([&to(BRIDGES), &ipv4, &from_loopback, &[e::masquerade()]])),
        (
            "postrouting",
            rule([
                &ipv4,
                &[
                    e::source_address(Register::Reg1),
                    e::is_in(MASQUERADED, Register::Reg1),
                    e::destination_address(Register::Reg1),
                    e::is_not_in(SUBNETS, Register::Reg1),
                ],
                &e::is_not_multicast(Register::Reg1),
                &[e::masquerade()],
            ]),
        ),
    ]
}
