//! Other people's forward chains. An accept of ours ends only our own chain, so that a chain
//! with policy drop still drops our packets. Where it is iptables' FORWARD (Docker's, ufw's) we
//! put plain accepts for our bridges there, in the form that iptables can list; all else is
//! only reported.

use anyhow::{Context, Result};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, MetaKey, NfTablesMessage,
    Register, RuleAttribute, RuleMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use nix::errno::Errno;

use super::expression as e;
use super::message::{TABLE, comment_data, commit, interface, message};
use crate::netlink::{CREATE, Connection, DUMP, is_errno};

const POLICY_DROP: u32 = e::NF_DROP;
/// iptables' table, and the chains that may hold our accepts, by preference.
const FILTER: &str = "filter";
const USER_CHAIN: &str = "DOCKER-USER";
const FORWARD: &str = "FORWARD";
const FAMILIES: [NetfilterProtoFamily; 2] =
    [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6];

/// Somebody else's chain that drops what it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DroppingChain {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
}

impl DroppingChain {
    /// Whether `open_way` cares for this chain.
    pub(crate) fn is_opened_by_us(&self) -> bool {
        ["ip", "ip6"].contains(&self.family.as_str())
            && self.table == FILTER
            && self.name == FORWARD
    }
}

/// Whether iptables' chains hold our accepts for all these bridges.
pub(crate) fn is_open<'a>(
    connection: &mut Connection,
    mut bridges: impl Iterator<Item = &'a str>,
) -> Result<bool> {
    bridges.try_fold(true, |open, bridge| {
        let mut open = open;
        for family in FAMILIES {
            if drops(connection, family)? {
                let rules = our_rules(connection, family, USER_CHAIN, bridge)?.len()
                    + our_rules(connection, family, FORWARD, bridge)?.len();
                open &= rules > 0;
            }
        }
        Ok(open)
    })
}

/// Forward chains with policy drop, but for ours.
pub(crate) fn dropping_chains(connection: &mut Connection) -> Result<Vec<DroppingChain>> {
    let get = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let answers = connection
        .query(&message(NetfilterProtoFamily::Unspec, get, DUMP))
        .context("list nf_tables chains")?;
    Ok(answers.iter().filter_map(dropping).collect())
}

/// What a fuzzer has the kernel say.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(answer: &NetfilterMessage) {
    let _ = dropping(answer).is_some_and(|chain| chain.is_opened_by_us());
}

fn dropping(answer: &NetfilterMessage) -> Option<DroppingChain> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = &answer.inner else {
        return None;
    };
    let family = match answer.header.family {
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::Inet => "inet",
        _ => return None,
    };
    let mut found =
        DroppingChain { family: family.to_owned(), table: String::new(), name: String::new() };
    let (mut forwards, mut drops) = (false, false);
    for attribute in &chain.attributes {
        match attribute {
            ChainAttribute::Table(name) => found.table.clone_from(name),
            ChainAttribute::Name(name) => found.name.clone_from(name),
            ChainAttribute::Policy(policy) => drops = *policy == POLICY_DROP,
            ChainAttribute::Hook(hook) => {
                forwards = hook.contains(&Hook::Number(HookNumber::Inet(InetHookNumber::Forward)));
            }
            _ => {}
        }
    }
    (forwards && drops && found.table != TABLE).then_some(found)
}

/// Lets the packets of a bridge through iptables' FORWARD chains if their policy is to drop.
pub(crate) fn open_way(connection: &mut Connection, bridge: &str) -> Result<()> {
    FAMILIES.into_iter().try_for_each(|family| open_way_of(connection, family, bridge))
}

/// Whether iptables' FORWARD chain of a family drops what it does not know.
fn drops(connection: &mut Connection, family: NetfilterProtoFamily) -> Result<bool> {
    let forward = get_chain(connection, family, FORWARD)?;
    Ok(forward.is_some_and(|chain| chain.attributes.contains(&ChainAttribute::Policy(POLICY_DROP))))
}

fn open_way_of(
    connection: &mut Connection,
    family: NetfilterProtoFamily,
    bridge: &str,
) -> Result<()> {
    if !drops(connection, family)? {
        return Ok(());
    }
    let has_user_chain = get_chain(connection, family, USER_CHAIN)?.is_some();
    let chain = if has_user_chain { USER_CHAIN } else { FORWARD };
    if !our_rules(connection, family, chain, bridge)?.is_empty() {
        return Ok(());
    }
    let rule = |key| {
        let attributes = vec![
            RuleAttribute::Table(FILTER.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(vec![
                e::meta(key, Register::Reg1),
                e::equal(Register::Reg1, &interface(bridge)),
                e::counter(),
                e::accept(),
            ]),
            RuleAttribute::UserData(mark(bridge)),
        ];
        message(family, NfTablesMessage::NewRule(RuleMessage { attributes }), CREATE)
    };
    commit(connection, vec![rule(MetaKey::Iifname), rule(MetaKey::Oifname)])
        .with_context(|| format!("let bridge {bridge} through the {chain} chain of iptables"))
}

/// Takes out what `open_way` put in.
pub(crate) fn close_way(connection: &mut Connection, bridge: &str) -> Result<()> {
    let mut changes = Vec::new();
    for family in FAMILIES {
        for chain in [USER_CHAIN, FORWARD] {
            for handle in our_rules(connection, family, chain, bridge)? {
                let attributes = vec![
                    RuleAttribute::Table(FILTER.to_owned()),
                    RuleAttribute::Chain(chain.to_owned()),
                    RuleAttribute::Handle(handle),
                ];
                let delete = NfTablesMessage::DeleteRule(RuleMessage { attributes });
                changes.push(message(family, delete, 0));
            }
        }
    }
    commit(connection, changes)
        .with_context(|| format!("take bridge {bridge} out of iptables' forward chain"))
}

/// The comment by which we know our own rules.
fn mark(bridge: &str) -> Vec<u8> {
    comment_data(&format!("{TABLE} {bridge}"))
}

fn get_chain(
    connection: &mut Connection,
    family: NetfilterProtoFamily,
    name: &str,
) -> Result<Option<ChainMessage>> {
    let attributes =
        vec![ChainAttribute::Table(FILTER.to_owned()), ChainAttribute::Name(name.to_owned())];
    let get = NfTablesMessage::GetChain(ChainMessage { attributes });
    match connection.query(&message(family, get, 0)) {
        Err(error) if is_errno(&error, Errno::ENOENT) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look up nf_tables chain {name}")),
        Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) => Some(chain),
            _ => None,
        })),
    }
}

/// Handles of our rules for a bridge in one of iptables' chains.
fn our_rules(
    connection: &mut Connection,
    family: NetfilterProtoFamily,
    chain: &str,
    bridge: &str,
) -> Result<Vec<u64>> {
    let attributes =
        vec![RuleAttribute::Table(FILTER.to_owned()), RuleAttribute::Chain(chain.to_owned())];
    let get = NfTablesMessage::GetRule(RuleMessage { attributes });
    let answers = connection.query(&message(family, get, DUMP));
    let answers = match answers {
        Err(error) if is_errno(&error, Errno::ENOENT) => Vec::new(),
        answers => answers.with_context(|| format!("list rules of nf_tables chain {chain}"))?,
    };
    let mark = RuleAttribute::UserData(mark(bridge));
    let handles = answers.into_iter().filter_map(|answer| match answer.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule))
            if rule.attributes.contains(&mark) =>
        {
            rule.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Handle(handle) => Some(*handle),
                _ => None,
            })
        }
        _ => None,
    });
    Ok(handles.collect())
}
