//! A profile's words as values: the first half of `compile`, and the only one that refuses
//! anything the user wrote.

use anyhow::{Context, Result, anyhow, bail, ensure};
use libc::{
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};

use super::abi::{self, Abi};
use super::multiplexed::multiplexer;
use super::table::Call;
use crate::spec::seccomp::{Argument, Seccomp, Syscall};

/// What a profile says, names resolved.
#[derive(Debug)]
pub(super) struct Profile<'a> {
    /// The filter's value for calls that no rule matches.
    pub(super) default: u32,
    /// Whether calls newer than every named one are answered with ENOSYS.
    pub(super) new_calls_are_unknown: bool,
    /// The ABIs that have rules, the native one first.
    pub(super) abis: Vec<Abi>,
    /// The rules that say something else than the default.
    pub(super) rules: Vec<Rule<'a>>,
    /// Every known call that the profile names: they tell how new a kernel it was written for.
    pub(super) named: Vec<Named>,
    /// Names that no ABI has.
    pub(super) unknown: Vec<&'a str>,
    /// Flags for the kernel.
    pub(super) flags: libc::c_ulong,
    /// Whether an agent is asked about some call.
    pub(super) notifies: bool,
}

/// A call that the profile names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) call: Call,
    /// The call that has it as one of its kinds on some ABIs, and the kind's number.
    pub(super) through: Option<(Call, u64)>,
}

/// A value for one call, if all conditions hold.
#[derive(Debug)]
pub(super) struct Rule<'a> {
    pub(super) name: &'a str,
    pub(super) named: Named,
    pub(super) value: u32,
    pub(super) conditions: Vec<Condition>,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    pub(super) index: u32,
    pub(super) comparison: Comparison,
    /// All ones but for a masked comparison.
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// How an argument is compared with the condition's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Comparison {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual,
}

/// Names of the actions.
pub(crate) const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Names of the comparisons.
pub(crate) const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Names of the filter flags and their values. TSYNC is taken and ignored: we have one thread.
pub(crate) const FLAGS: [(&str, libc::c_ulong); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
];

impl<'a> Profile<'a> {
    /// Reads a profile; refuses words that it does not know, naming their place.
    pub(super) fn parse(written: &'a Seccomp) -> Result<Self> {
        let flags = parse_flags(written.flags.as_deref())?;
        let abis = parse_architectures(&written.architectures)?;
        let default = parse_action(&written.default_action, written.default_errno_ret)
            .context("linux.seccomp.defaultAction")?;
        ensure!(
            default != SECCOMP_RET_USER_NOTIF,
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action"
        );
        let mut profile = Self {
            default,
            new_calls_are_unknown: !matches!(
                default & libc::SECCOMP_RET_ACTION_FULL,
                SECCOMP_RET_ALLOW | SECCOMP_RET_LOG | SECCOMP_RET_TRACE
            ),
            abis,
            rules: Vec::new(),
            named: Vec::new(),
            unknown: Vec::new(),
            flags,
            notifies: false,
        };
        let mut near = 0;
        for (position, syscall) in written.syscalls.iter().enumerate() {
            profile.add(syscall, position, &mut near)?;
        }
        if profile.notifies {
            ensure!(
                !written.listener_path.is_empty(),
                "linux.seccomp.listenerPath: seccomp listenerPath is not set"
            );
            profile.flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        }
        Ok(profile)
    }

    /// `near` is where the table's last find was.
    fn add(&mut self, syscall: &'a Syscall, position: usize, near: &mut usize) -> Result<()> {
        let place = || format!("linux.seccomp.syscalls[{position}]");
        let value = parse_action(&syscall.action, syscall.errno_ret)
            .with_context(|| format!("{}.action", place()))?;
        let conditions = syscall
            .args
            .iter()
            .enumerate()
            .map(|(index, arg)| {
                parse_condition(arg).map_err(|(key, error)| {
                    error.context(format!("{}.args[{index}].{key}", place()))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let notifies = value == SECCOMP_RET_USER_NOTIF;
        self.notifies |= notifies;
        for name in &syscall.names {
            ensure!(!name.is_empty(), "{}.names: empty string is not a valid syscall", place());
            // The listener's number reaches the parent by write(2), under the filter already.
            ensure!(
                !(notifies && name == "write"),
                "{}.names: SCMP_ACT_NOTIFY cannot be used for the write syscall",
                place()
            );
            let Some(call) = Call::find(name, near) else {
                self.unknown.push(name);
                continue;
            };
            let named = Named { call, through: multiplexer(name) };
            self.named.push(named);
            if value == self.default {
                continue;
            }
            if repeats_an_argument(&conditions) {
                for condition in &conditions {
                    self.add_rule(Rule { name, named, value, conditions: vec![*condition] })
                        .with_context(place)?;
                }
            } else {
                self.add_rule(Rule { name, named, value, conditions: conditions.clone() })
                    .with_context(place)?;
            }
        }
        Ok(())
    }

    fn add_rule(&mut self, mut rule: Rule<'a>) -> Result<()> {
        rule.conditions.sort_unstable();
        let contradicts = |known: &Rule| {
            known.name == rule.name
                && known.conditions == rule.conditions
                && known.value != rule.value
        };
        ensure!(
            rule.conditions.is_empty() || !self.rules.iter().any(contradicts),
            "error adding seccomp rule for syscall {}: its conditions have another action already",
            rule.name
        );
        self.rules.push(rule);
        Ok(())
    }
}

/// An absent list asks for `SPEC_ALLOW`: without it, old mitigations slow every process down.
fn parse_flags(written: Option<&[String]>) -> Result<libc::c_ulong> {
    let Some(names) = written else { return Ok(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) };
    let mut flags = 0;
    for (position, name) in names.iter().enumerate() {
        match FLAGS.iter().find(|(known, _)| known == name) {
            Some((_, flag)) => flags |= flag,
            None => {
                bail!("linux.seccomp.flags[{position}]: seccomp flag {name} is not known to runc")
            }
        }
    }
    Ok(flags)
}

fn parse_architectures(written: &[String]) -> Result<Vec<Abi>> {
    let native = Abi::native().context("no numbers of system calls for this machine")?;
    let mut abis = vec![native];
    for (position, name) in written.iter().enumerate() {
        let Some((_, abi)) = abi::NAMES.iter().find(|(known, _)| known == name) else {
            bail!(
                "linux.seccomp.architectures[{position}]: string {name} is not a valid arch for \
                 seccomp"
            );
        };
        abis.extend(abi.filter(|abi| !abis.contains(abi)));
    }
    Ok(abis)
}

/// The value a filter returns for an action.
fn parse_action(name: &str, errno_ret: Option<u32>) -> Result<u32> {
    // The kernel keeps 16 bits of it, and takes what exceeds its errors for the last of them.
    let errno = errno_ret.unwrap_or(libc::EPERM.unsigned_abs()) & libc::SECCOMP_RET_DATA;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => SECCOMP_RET_TRAP,
        "SCMP_ACT_ERRNO" => SECCOMP_RET_ERRNO | errno,
        "SCMP_ACT_TRACE" => SECCOMP_RET_TRACE | errno,
        "SCMP_ACT_LOG" => SECCOMP_RET_LOG,
        "SCMP_ACT_ALLOW" => SECCOMP_RET_ALLOW,
        "SCMP_ACT_NOTIFY" => SECCOMP_RET_USER_NOTIF,
        _ => bail!("string {name} is not a valid action for seccomp"),
    })
}

/// The condition, or the key that is wrong and why.
fn parse_condition(arg: &Argument) -> Result<Condition, (&'static str, anyhow::Error)> {
    if arg.index > 5 {
        return Err(("index", anyhow!("{} is not an argument: calls have 6, from 0", arg.index)));
    }
    let (comparison, mask, value) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (Comparison::NotEqual, u64::MAX, arg.value),
        "SCMP_CMP_LT" => (Comparison::Less, u64::MAX, arg.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, u64::MAX, arg.value),
        "SCMP_CMP_EQ" => (Comparison::Equal, u64::MAX, arg.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, u64::MAX, arg.value),
        "SCMP_CMP_GT" => (Comparison::Greater, u64::MAX, arg.value),
        // Bits outside the mask are ignored on both sides, as libseccomp has it.
        "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual, arg.value, arg.value_two & arg.value),
        name => return Err(("op", anyhow!("string {name} is not a valid operator for seccomp"))),
    };
    Ok(Condition { index: arg.index, comparison, mask, value })
}

/// Two conditions on one argument mean either, not both: so runc has read them ever since.
fn repeats_an_argument(conditions: &[Condition]) -> bool {
    let mut seen = [false; 6];
    conditions.iter().any(|condition| {
        seen.get_mut(condition.index as usize).is_some_and(|seen| std::mem::replace(seen, true))
    })
}
