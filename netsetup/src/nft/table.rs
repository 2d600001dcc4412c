//! The whole of our table, made at first use. Nothing in it grows with containers but the
//! elements of its sets and maps.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use netlink_packet_netfilter::nftables::{InetHookNumber, MetaKey, Register};

use super::expression::{self as e, Expression};
use super::message::{Change, Kind, Set, interface, new_chain, new_rule, new_set, new_table};
use crate::subnet::Family;

/// Every link name that is a bridge of ours.
pub(super) const BRIDGES: &str = "bridges";
/// (in, out) of packets that stay on one bridge: where bridged packets pass IP hooks
/// (br_netfilter), and in hairpin connections.
pub(super) const INSIDE: &str = "inside";
/// Bridges from which there is no way out.
pub(super) const INTERNAL: &str = "internal";
/// Bridges that reach each other.
pub(super) const OPEN: &str = "open";

/// Bridges to whose containers anybody may begin a connection.
pub(super) const ROUTED: &str = "routed";

/// The sets and maps of one family.
pub(super) struct Names {
    /// Subnets whose packets leave with the host's address.
    pub(super) masqueraded: &'static str,
    /// subnet -> address, for subnets whose packets leave with an address in particular.
    pub(super) outbound: &'static str,
    /// Subnets of all bridges. An earlier version's set had another name: a table of its rules lacks this
    /// one, and is made anew.
    pub(super) subnets: &'static str,
    /// protocol . port -> address . port, for ports published on every address.
    pub(super) ports: &'static str,
    /// address . protocol . port -> address . port, for ports published on one address.
    pub(super) ports_at: &'static str,
}

/// The names of a family's sets.
pub(super) fn names(family: Family) -> Names {
    match family {
        Family::V4 => Names {
            masqueraded: "masqueraded",
            outbound: "outbound",
            subnets: "neighbours",
            ports: "ports",
            ports_at: "ports_at",
        },
        Family::V6 => Names {
            masqueraded: "masqueraded6",
            outbound: "outbound6",
            subnets: "neighbours6",
            ports: "ports6",
            ports_at: "ports6_at",
        },
    }
}

fn sets() -> Vec<Set> {
    let link: &[Kind] = &[Kind::Interface];
    let mut sets = vec![
        Set { name: BRIDGES, key: link, data: &[], intervals: false },
        Set { name: INSIDE, key: &[Kind::Interface, Kind::Interface], data: &[], intervals: false },
        Set { name: INTERNAL, key: link, data: &[], intervals: false },
        Set { name: OPEN, key: link, data: &[], intervals: false },
        Set { name: ROUTED, key: link, data: &[], intervals: false },
    ];
    for family in Family::BOTH {
        let names = names(family);
        let (address, at_port, target): (&[Kind], &[Kind], &[Kind]) = match family {
            Family::V4 => (
                &[Kind::Address4],
                &[Kind::Address4, Kind::Protocol, Kind::Port],
                &[Kind::Address4, Kind::Port],
            ),
            Family::V6 => (
                &[Kind::Address6],
                &[Kind::Address6, Kind::Protocol, Kind::Port],
                &[Kind::Address6, Kind::Port],
            ),
        };
        let port: &[Kind] = &[Kind::Protocol, Kind::Port];
        sets.extend([
            Set { name: names.masqueraded, key: address, data: &[], intervals: true },
            Set { name: names.outbound, key: address, data: address, intervals: true },
            Set { name: names.subnets, key: address, data: &[], intervals: true },
            Set { name: names.ports, key: port, data: target, intervals: false },
            Set { name: names.ports_at, key: at_port, data: target, intervals: false },
        ]);
    }
    sets
}

const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// Table, sets, chains and rules.
pub(super) fn whole() -> Vec<Change> {
    let mut changes = vec![new_table()];
    changes.extend((1..).zip(&sets()).map(|(id, set)| new_set(set, id)));
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

fn from(set: &str) -> [Expression; 2] {
    [e::meta(MetaKey::Iifname, Register::Reg1), e::is_in(set, Register::Reg1)]
}

fn to(set: &str) -> [Expression; 2] {
    [e::meta(MetaKey::Oifname, Register::Reg1), e::is_in(set, Register::Reg1)]
}

/// How many rules each chain has.
pub(super) fn rule_counts() -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (chain, _) in rules() {
        *counts.entry(chain).or_default() += 1;
    }
    counts
}

fn rules() -> Vec<(&'static str, Vec<Expression>)> {
    let mut rules = guards();
    for chain in ["prerouting", "output"] {
        rules.push((chain, rule([&e::destination_is_local(), &[e::jump("publish")]])));
    }
    rules.extend(Family::BOTH.into_iter().flat_map(publish));
    rules.extend(forward());
    rules.extend(Family::BOTH.into_iter().flat_map(postrouting));
    rules
}

fn guards() -> Vec<(&'static str, Vec<Expression>)> {
    let to_loopback = rule([
        &e::is(Family::V4),
        &[e::destination_address(Family::V4, Register::Reg1)],
        &e::is_loopback(Register::Reg1),
    ]);
    let not_lo =
        [e::meta(MetaKey::Iifname, Register::Reg1), e::not_equal(Register::Reg1, &interface("lo"))];
    // IPv6 has no route_localnet: nobody could answer, and who tries must hear so at once, as
    // resolvers give ::1 for localhost before 127.0.0.1.
    let to_loopback6 = rule([
        &e::is(Family::V6),
        &[e::destination_address(Family::V6, Register::Reg1)],
        &[e::equal(Register::Reg1, &Ipv6Addr::LOCALHOST.octets()), e::return_()],
    ]);
    vec![
        ("output", to_loopback6),
        // Our bridges have route_localnet, so the kernel would let containers reach 127.0.0.0/8
        // of the host (CVE-2020-8558).
        ("guard", rule([&from(BRIDGES), &to_loopback, &[e::drop()]])),
        // A port published on 127.0.0.1 is nobody else's: without its rewriting the kernel
        // refuses the packet as it would without us.
        ("prerouting", rule([&not_lo, &to_loopback, &[e::return_()]])),
    ]
}

fn publish(family: Family) -> Vec<(&'static str, Vec<Expression>)> {
    let names = names(family);
    let at_one_address = [
        e::destination_address(family, Register::Reg32_00),
        e::meta(MetaKey::L4Proto, e::behind_address(family)),
        e::destination_port(e::second_behind_address(family)),
        e::mapped(names.ports_at),
        e::destination_nat(family),
    ];
    let at_every_address = [
        e::meta(MetaKey::L4Proto, Register::Reg32_00),
        e::destination_port(Register::Reg32_01),
        e::mapped(names.ports),
        e::destination_nat(family),
    ];
    vec![
        ("publish", rule([&e::is(family), &at_one_address])),
        ("publish", rule([&e::is(family), &at_every_address])),
    ]
}

fn forward() -> Vec<(&'static str, Vec<Expression>)> {
    let inside = vec![
        e::meta(MetaKey::Iifname, Register::Reg1),
        e::meta(MetaKey::Oifname, Register::Reg2),
        e::is_in(INSIDE, Register::Reg1),
        e::accept(),
    ];
    vec![
        ("forward", inside),
        ("forward", rule([&from(INTERNAL), &[e::drop()]])),
        ("forward", rule([&to(INTERNAL), &[e::drop()]])),
        ("forward", rule([&e::is_established(), &[e::accept()]])),
        ("forward", rule([&e::is_published(), &[e::accept()]])),
        ("forward", rule([&from(OPEN), &to(OPEN), &[e::accept()]])),
        ("forward", rule([&to(ROUTED), &[e::accept()]])),
        // What is left came from another bridge or another host for a port that is not published.
        ("forward", rule([&to(BRIDGES), &[e::drop()]])),
    ]
}

fn postrouting(family: Family) -> Vec<(&'static str, Vec<Expression>)> {
    let names = names(family);
    // A container that reaches a neighbour, itself, or one that is a neighbour by another of its networks,
    // through a published port, must see the answer come back through the host.
    let own_answer = rule([
        &e::is_published(),
        &e::is(family),
        &to(BRIDGES),
        &[
            e::source_address(family, Register::Reg1),
            e::is_in(names.subnets, Register::Reg1),
            e::masquerade(),
        ],
    ]);
    let source = e::source_address(family, Register::Reg1);
    let leaves = [
        e::destination_address(family, Register::Reg1),
        e::is_not_in(names.subnets, Register::Reg1),
    ];
    let leaves = rule([&e::is(family), &leaves, &e::destination_is_not_multicast(family)]);
    let mut rules = vec![("postrouting", own_answer)];
    if family == Family::V4 {
        // A program of the host that came by 127.0.0.1 cannot be answered there.
        let from_loopback = rule([
            &e::is(family),
            &[e::source_address(family, Register::Reg1)],
            &e::is_loopback(Register::Reg1),
        ]);
        rules.push(("postrouting", rule([&to(BRIDGES), &from_loopback, &[e::masquerade()]])));
    }
    let in_particular = [source.clone(), e::mapped(names.outbound), e::source_nat(family)];
    rules.push(("postrouting", rule([&leaves, &in_particular])));
    let masqueraded = [source, e::is_in(names.masqueraded, Register::Reg1), e::masquerade()];
    rules.push(("postrouting", rule([&leaves, &masqueraded])));
    rules
}
