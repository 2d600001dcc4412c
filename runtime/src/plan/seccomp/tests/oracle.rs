//! The two sides of the comparison: an interpreter for programs, an evaluator for profiles.

use std::collections::BTreeSet;

use crate::plan::seccomp::abi::Abi;
use crate::plan::seccomp::table;
use crate::spec::seccomp::{Argument, Seccomp, Syscall};

pub(super) const X86_64: u32 = 0xc000_003e;
pub(super) const I386: u32 = 0x4000_0003;
const KILL_THREAD: u32 = 0;
pub(super) const ENOSYS: u32 = 0x0005_0026;
pub(super) const ALLOW: u32 = 0x7fff_0000;

/// What the kernel hands to a filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(8) => low(self.args[(offset as usize - 16) / 8]),
            16..64 => low(self.args[(offset as usize - 16) / 8] >> 32),
            _ => panic!("load from {offset}"),
        }
    }
}

/// Runs a program as the kernel would.
pub(super) fn interpret(program: &[seccompiler::sock_filter], call: &Call) -> u32 {
    let (mut accumulator, mut place) = (0, 0);
    loop {
        let instruction = &program[place];
        place += 1;
        let k = instruction.k;
        let holds = match instruction.code {
            0x20 => {
                accumulator = call.word(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                place += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            code => panic!("operation {code:#x}"),
        };
        place += usize::from(if holds { instruction.jt } else { instruction.jf });
    }
}

/// A profile as its text reads, decided anew for every call.
pub(super) struct Evaluator<'a> {
    profile: &'a Seccomp,
    default: u32,
    rules: Vec<Named<'a>>,
    /// Of each of `ABIS`: whether the profile lists it, and the highest number it names there.
    listed: [bool; 5],
    newest: [Option<u32>; 5],
}

/// A rule for one name, with that name's numbers in the order of `ABIS`.
struct Named<'a> {
    rule: &'a Syscall,
    value: u32,
    direct: [Option<u32>; 5],
    through: Option<(u32, u32)>,
    /// Two conditions on one argument: then any of all will do.
    any: bool,
}

pub(super) const ABIS: [(&str, Abi, u32); 5] = [
    ("SCMP_ARCH_X86_64", Abi::X86_64, X86_64),
    ("SCMP_ARCH_X86", Abi::X86, I386),
    ("SCMP_ARCH_X32", Abi::X32, X86_64),
    ("SCMP_ARCH_AARCH64", Abi::Aarch64, 0xc000_00b7),
    ("SCMP_ARCH_ARM", Abi::Arm, 0x4000_0028),
];
const X86_COLUMN: usize = 1;

/// i386's number of `socketcall` or `ipc`, and what the first argument says.
const SELECTORS: [(&str, u32, u32); 5] = [
    ("socket", 102, 1),
    ("accept4", 102, 18),
    ("send", 102, 9),
    ("semop", 117, 1),
    ("shmat", 117, 21),
];

impl<'a> Evaluator<'a> {
    pub(super) fn new(profile: &'a Seccomp) -> Self {
        let rules = profile.syscalls.iter().flat_map(|rule| {
            let indices: BTreeSet<u32> = rule.args.iter().map(|arg| arg.index).collect();
            let any = indices.len() < rule.args.len();
            rule.names.iter().map(move |name| Named {
                rule,
                any,
                value: value(&rule.action, rule.errno_ret),
                direct: ABIS.map(|(_, abi, _)| table::number(name, abi)),
                through: SELECTORS
                    .iter()
                    .find(|(known, ..)| known == name)
                    .map(|(_, number, selector)| (*number, *selector)),
            })
        });
        let mut evaluator = Self {
            profile,
            default: value(&profile.default_action, profile.default_errno_ret),
            rules: rules.collect(),
            listed: [false; 5],
            newest: [None; 5],
        };
        evaluator.listed = std::array::from_fn(|column| evaluator.lists(column));
        evaluator.newest = std::array::from_fn(|column| evaluator.newest(column));
        evaluator
    }

    pub(super) fn answer(&self, call: &Call) -> u32 {
        let x32 = call.arch == X86_64 && call.number & 0x4000_0000 != 0;
        let same =
            |(_, abi, arch): &(&str, Abi, u32)| *arch == call.arch && x32 == (*abi == Abi::X32);
        let Some(column) = ABIS.iter().position(same) else { return KILL_THREAD };
        if !self.listed[column] {
            return if x32 && call.number == u32::MAX { self.default } else { KILL_THREAD };
        }
        if self.newest[column].is_some_and(|newest| call.number > newest) {
            return ENOSYS;
        }
        if call.arch == X86_64 && call.number >= 0x8000_0000 && !self.listed[2] {
            return KILL_THREAD;
        }
        let mut conditional = None;
        for named in self.rules.iter().filter(|named| named.value != self.default) {
            match named.matches(column, call) {
                Match::Always => return named.value,
                Match::Here => conditional = conditional.or(Some(named.value)),
                Match::No => {}
            }
        }
        conditional.unwrap_or(self.default)
    }

    fn lists(&self, column: usize) -> bool {
        column == 0 || self.profile.architectures.iter().any(|listed| listed == ABIS[column].0)
    }

    fn newest(&self, column: usize) -> Option<u32> {
        if ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"]
            .contains(&&*self.profile.default_action)
        {
            return None;
        }
        let counts = |named: &&Named| column != X86_COLUMN || named.through.is_none();
        let numbers = self.rules.iter().filter(counts).filter_map(|named| named.direct[column]);
        numbers.max().filter(|&number| number > 0)
    }
}

enum Match {
    Always,
    Here,
    No,
}

impl Named<'_> {
    fn matches(&self, column: usize, call: &Call) -> Match {
        let args = &self.rule.args;
        let narrow = matches!(ABIS[column].1, Abi::X86 | Abi::X32 | Abi::Arm);
        let all_or_any = |holds: &dyn Fn(&Argument) -> bool| {
            if self.any { args.iter().any(holds) } else { args.iter().all(holds) }
        };
        let holds = |arg: &Argument| holds(arg, call.args[arg.index as usize], narrow);
        if self.direct[column] == Some(call.number) {
            if args.is_empty() {
                return Match::Always;
            }
            if all_or_any(&holds) {
                return Match::Here;
            }
        }
        let selected = (call.number, low(call.args[0]));
        let through = column == X86_COLUMN && self.through == Some(selected);
        if through && all_or_any(&|arg| arg.index == 0 || holds(arg)) {
            return Match::Here;
        }
        Match::No
    }
}

fn holds(arg: &Argument, actual: u64, narrow: bool) -> bool {
    let cut = |value: u64| if narrow { u64::from(low(value)) } else { value };
    let (actual, value) = (cut(actual), cut(arg.value));
    match &*arg.op {
        "SCMP_CMP_NE" => actual != value,
        "SCMP_CMP_LT" => actual < value,
        "SCMP_CMP_LE" => actual <= value,
        "SCMP_CMP_EQ" => actual == value,
        "SCMP_CMP_GE" => actual >= value,
        "SCMP_CMP_GT" => actual > value,
        "SCMP_CMP_MASKED_EQ" => actual & value == cut(arg.value_two) & value,
        _ => panic!("{}", arg.op),
    }
}

fn value(action: &str, errno: Option<u32>) -> u32 {
    match action {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno.unwrap_or(1),
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        _ => panic!("{action}"),
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}
