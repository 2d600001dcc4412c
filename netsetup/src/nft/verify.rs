//! What our table lacks of what it should hold: somebody may have flushed a part of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, RuleAttribute, SetElementAttribute,
    SetElementList,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use nix::errno::Errno;

use super::message::{get_elements, get_rules};
use super::{Contents, elements, exists, table};
use crate::netlink::{Connection, is_errno};

/// A line for each part that is missing.
pub(crate) fn missing(connection: &mut Connection, contents: &Contents) -> Result<Vec<String>> {
    if !exists(connection)? {
        return Ok(vec!["the nf_tables table netsetup is gone".to_owned()]);
    }
    let mut lines = missing_rules(connection)?;
    for (set, wanted) in elements(contents) {
        let present = keys(connection, set)?;
        let lost = wanted.iter().filter(|element| !present.contains(&element.key)).count();
        if lost > 0 {
            lines.push(format!("set {set} of table netsetup lacks {lost} of its elements"));
        }
    }
    Ok(lines)
}

fn missing_rules(connection: &mut Connection) -> Result<Vec<String>> {
    let answers = connection.query(&get_rules()).context("list rules of table netsetup")?;
    let mut counts = table::rule_counts();
    for chain in answers.iter().filter_map(chain_of_rule) {
        if let Some(count) = counts.get_mut(chain) {
            *count = count.saturating_sub(1);
        }
    }
    counts.retain(|_, count| *count > 0);
    let line = |(chain, count)| format!("chain {chain} of table netsetup lacks {count} rules");
    Ok(counts.into_iter().map(line).collect())
}

fn chain_of_rule(answer: &NetfilterMessage) -> Option<&str> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = &answer.inner else {
        return None;
    };
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Chain(chain) => Some(chain.as_str()),
        _ => None,
    })
}

fn keys(connection: &mut Connection, set: &str) -> Result<BTreeSet<Vec<u8>>> {
    let answers = match connection.query(&get_elements(set)) {
        Err(error) if is_errno(&error, Errno::ENOENT) => Vec::new(),
        answers => answers.with_context(|| format!("list set {set} of table netsetup"))?,
    };
    let mut keys = BTreeSet::new();
    for answer in answers {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(message)) = answer.inner
        else {
            continue;
        };
        for attribute in message.attributes {
            let SetElementList::Elements(elements) = attribute else { continue };
            keys.extend(elements.into_iter().filter_map(key));
        }
    }
    Ok(keys)
}

fn key(element: ListAttribute<SetElementAttribute>) -> Option<Vec<u8>> {
    let ListAttribute::Element(attributes) = element else { return None };
    attributes.into_iter().find_map(|attribute| match attribute {
        SetElementAttribute::Key(DataAttribute::Value(key)) => Some(key),
        _ => None,
    })
}
