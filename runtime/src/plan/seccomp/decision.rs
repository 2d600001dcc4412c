//! Rules per call and ABI, and the whole range of numbers cut into segments of one decision each.

use std::collections::BTreeMap;

use libc::{SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_THREAD};

use super::abi::Abi;
use super::profile::{Comparison, Condition, Named, Profile, Rule};
use super::table::X32_BIT;

/// The filter's answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// One value.
    Return(u32),
    /// The value of the first clause that matches, else the default.
    Arguments(Vec<Clause>),
}

/// A value for arguments that pass all tests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Clause {
    pub(super) tests: Vec<Test>,
    pub(super) value: u32,
}

/// A condition, laid out for one ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Test {
    /// Byte offset of the low half of the argument.
    pub(super) low: u32,
    /// The same of the high half, where the ABI compares 64 bits.
    pub(super) high: Option<u32>,
    pub(super) comparison: Comparison,
    /// The upper halves of these two count only if `high` is there.
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// All numbers from `start` to the next segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u32,
    pub(super) decision: Decision,
}

/// The value for calls that the profile's author cannot have known.
pub(super) const UNKNOWN_CALL: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
/// The value for calls of an ABI that the profile does not list.
pub(super) const FOREIGN_CALL: u32 = SECCOMP_RET_KILL_THREAD;

/// Cuts the numbers of one architecture into segments, the first at 0.
pub(super) fn segments(profile: &Profile, abi: Abi) -> Vec<Segment> {
    let mut segments = Segments::default();
    let beyond = segments.add_abi(profile, abi, 0);
    if abi == Abi::X86_64 {
        add_upper_half(&mut segments, profile, beyond);
    }
    segments.0
}

/// x32's numbers are x86_64's architecture with one bit set, which repeats in the upper half.
/// Without x32 they are as foreign as another architecture's, except for -1: a tracer sets that
/// to skip a call.
fn add_upper_half(segments: &mut Segments, profile: &Profile, beyond: u32) {
    if profile.abis.contains(&Abi::X32) {
        let beyond_x32 = segments.add_abi(profile, Abi::X32, X32_BIT);
        segments.push(0x8000_0000, Decision::Return(beyond));
        segments.push(0xc000_0000, Decision::Return(beyond_x32));
    } else {
        segments.push(X32_BIT, Decision::Return(FOREIGN_CALL));
        if beyond == UNKNOWN_CALL {
            segments.push(0x8000_0000, Decision::Return(UNKNOWN_CALL));
            segments.push(0xc000_0000, Decision::Return(FOREIGN_CALL));
        }
        segments.push(u32::MAX, Decision::Return(profile.default));
    }
}

#[derive(Default)]
struct Segments(Vec<Segment>);

impl Segments {
    /// Adds one ABI's calls, from `first` on; returns the value of what lies beyond them.
    fn add_abi(&mut self, profile: &Profile, abi: Abi, first: u32) -> u32 {
        let default = Decision::Return(profile.default);
        self.push(first, default.clone());
        let newest = newest_named(profile, abi);
        if newest.is_some() && abi == Abi::S390x {
            // Number 0 stands for any number that does not fit the instruction.
            self.push(0, Decision::Return(UNKNOWN_CALL));
            self.push(1, default.clone());
        }
        for (number, decision) in decisions(profile, abi) {
            if newest.is_none_or(|newest| number <= newest) {
                self.push(number, decision);
                self.push(number + 1, default.clone());
            }
        }
        let Some(newest) = newest else { return profile.default };
        self.push(newest + 1, Decision::Return(UNKNOWN_CALL));
        UNKNOWN_CALL
    }

    /// Starts a segment, in ascending order; a repeated start replaces what it had.
    fn push(&mut self, start: u32, decision: Decision) {
        self.0.pop_if(|last| last.start == start);
        if self.0.last().is_none_or(|last| last.decision != decision) {
            self.0.push(Segment { start, decision });
        }
    }
}

/// The highest number that the profile names, if calls above it are answered with ENOSYS. What
/// can be multiplexed does not count, as in libseccomp, which gives it no number of its own.
fn newest_named(profile: &Profile, abi: Abi) -> Option<u32> {
    if !profile.new_calls_are_unknown {
        return None;
    }
    let counts = |named: &&Named| !abi.is_multiplexed() || named.through.is_none();
    let newest = profile.named.iter().filter(counts);
    newest.filter_map(|named| named.call.number(abi)).max().filter(|&number| number > 0)
}

/// The first rule without conditions decides a call; without one, all others, in their order.
fn decisions(profile: &Profile, abi: Abi) -> BTreeMap<u32, Decision> {
    let mut decisions = BTreeMap::new();
    for rule in &profile.rules {
        if let Some(number) = rule.named.call.number(abi) {
            merge(&mut decisions, number, clause(rule, &rule.conditions, abi));
        }
        if abi.is_multiplexed()
            && let Some((through, selector)) = rule.named.through
            && let Some(number) = through.number(abi)
        {
            merge(&mut decisions, number, multiplexed_clause(rule, selector, abi));
        }
    }
    decisions
}

fn merge(decisions: &mut BTreeMap<u32, Decision>, number: u32, clause: Clause) {
    let decision = decisions.entry(number).or_insert_with(|| Decision::Arguments(Vec::new()));
    if let Decision::Arguments(clauses) = decision {
        if clause.tests.is_empty() {
            *decision = Decision::Return(clause.value);
        } else if !clauses.contains(&clause) {
            clauses.push(clause);
        }
    }
}

/// The selector takes the place of a condition on the first argument.
fn multiplexed_clause(rule: &Rule, selector: u64, abi: Abi) -> Clause {
    let mut conditions = vec![Condition {
        index: 0,
        comparison: Comparison::Equal,
        mask: u64::MAX,
        value: selector,
    }];
    conditions.extend(rule.conditions.iter().filter(|condition| condition.index != 0));
    clause(rule, &conditions, abi)
}

fn clause(rule: &Rule, conditions: &[Condition], abi: Abi) -> Clause {
    let tests = conditions.iter().map(|condition| {
        let (low, high) = abi.argument_offsets(condition.index);
        Test {
            low,
            high,
            comparison: condition.comparison,
            mask: condition.mask,
            value: condition.value,
        }
    });
    Clause { tests: tests.collect(), value: rule.value }
}
