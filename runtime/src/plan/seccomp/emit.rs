//! Segments to BPF, written from the last instruction to the first: every jump's target is placed
//! before the jump, so distances are known and nothing has to be fixed up.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD};
use libc::{BPF_RET, BPF_W};
use seccompiler::{BpfProgram, sock_filter};

use super::decision::{Clause, Decision, FOREIGN_CALL, Segment, Test};
use super::profile::Comparison;

/// Byte offset of the call's number in `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
/// Byte offset of the architecture.
const ARCHITECTURE_OFFSET: u32 = 4;

/// The program for architectures, by audit value, in the order in which they are looked for.
pub(super) fn program(architectures: &[(u32, Vec<Segment>)], default: u32) -> Result<BpfProgram> {
    let mut emitter = Emitter::new(default);
    let roots: Vec<(u32, Label)> = architectures
        .iter()
        .rev()
        .map(|(audit_arch, segments)| {
            let root = emitter.search(segments);
            (*audit_arch, emitter.load(NUMBER_OFFSET, root))
        })
        .collect();
    let mut next = emitter.ret(FOREIGN_CALL);
    for (audit_arch, root) in roots {
        next = emitter.jump(BPF_JEQ, audit_arch, root, next);
    }
    emitter.load(ARCHITECTURE_OFFSET, next);
    ensure!(emitter.all_jumps_fit, "the seccomp program has a jump that does not reach its target");
    emitter.reversed.reverse();
    Ok(emitter.reversed)
}

/// An instruction's place, counted from the end of the program.
type Label = usize;

/// How far a conditional jump reaches.
const REACH: usize = 255;

struct Emitter {
    default: u32,
    /// The program, last instruction first.
    reversed: BpfProgram,
    /// The nearest `RET` of each value.
    returns: HashMap<u32, Label>,
    /// Argument programs placed so far.
    programs: HashMap<Vec<Clause>, Label>,
    /// False once a distance did not fit its field: the generator's fault, never the profile's.
    all_jumps_fit: bool,
}

impl Emitter {
    fn new(default: u32) -> Self {
        Self {
            default,
            reversed: Vec::new(),
            returns: HashMap::new(),
            programs: HashMap::new(),
            all_jumps_fit: true,
        }
    }

    /// A balanced search for the segment that has the number.
    fn search(&mut self, segments: &[Segment]) -> Label {
        if let [segment] = segments {
            return self.decide(&segment.decision);
        }
        let (lower, upper) = segments.split_at(segments.len() / 2);
        let (Some(first_upper), false) = (upper.first(), lower.is_empty()) else {
            return self.ret(self.default);
        };
        let no_less = self.search(upper);
        let less = self.search(lower);
        self.jump(BPF_JGE, first_upper.start, no_less, less)
    }

    fn decide(&mut self, decision: &Decision) -> Label {
        match decision {
            Decision::Return(value) => self.ret(*value),
            Decision::Arguments(clauses) => {
                if let Some(&label) = self.programs.get(clauses) {
                    return label;
                }
                let label = self.first_match(clauses);
                self.programs.insert(clauses.clone(), label);
                label
            }
        }
    }

    /// Clause after clause, then the default.
    fn first_match(&mut self, clauses: &[Clause]) -> Label {
        let mut next = self.ret(self.default);
        for run in clauses.chunk_by(share_loads).rev() {
            next = match run {
                [Clause { tests, value }] => {
                    let matched = self.ret(*value);
                    tests.iter().rev().fold(matched, |yes, test| self.test(*test, yes, next))
                }
                _ => self.one_of(run, next),
            };
        }
        next
    }

    /// Equalities that differ in the low half alone: each half is loaded once for all.
    fn one_of(&mut self, run: &[Clause], no: Label) -> Label {
        let mut low = no;
        for clause in run.iter().rev() {
            for test in &clause.tests {
                let yes = self.ret(clause.value);
                low = self.jump(BPF_JEQ, low_half(test.value), yes, low);
            }
        }
        let Some(test) = run.first().and_then(|clause| clause.tests.first()) else { return no };
        low = self.load(test.low, low);
        let Some(high) = test.high else { return low };
        let both = self.jump(BPF_JEQ, high_half(test.value), low, no);
        self.load(high, both)
    }

    fn test(&mut self, test: Test, yes: Label, no: Label) -> Label {
        match test.comparison {
            Comparison::Equal | Comparison::MaskedEqual => self.equal(test, yes, no),
            Comparison::NotEqual => self.equal(test, no, yes),
            Comparison::Greater => self.above(BPF_JGT, test, yes, no),
            Comparison::LessOrEqual => self.above(BPF_JGT, test, no, yes),
            Comparison::GreaterOrEqual => self.above(BPF_JGE, test, yes, no),
            Comparison::Less => self.above(BPF_JGE, test, no, yes),
        }
    }

    fn equal(&mut self, test: Test, yes: Label, no: Label) -> Label {
        let low = self.half_equal(test.low, low_half(test.mask), low_half(test.value), yes, no);
        match test.high {
            Some(high) => {
                self.half_equal(high, high_half(test.mask), high_half(test.value), low, no)
            }
            None => low,
        }
    }

    fn half_equal(&mut self, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
        if mask == 0 {
            // The value was masked with it, so the halves are equal.
            return yes;
        }
        let mut next = self.jump(BPF_JEQ, value, yes, no);
        if mask != u32::MAX {
            next = self.push(BPF_ALU | BPF_AND | BPF_K, mask);
        }
        self.load(offset, next)
    }

    /// Greater, or greater or equal: the high half decides unless it is equal.
    fn above(&mut self, jump: u32, test: Test, yes: Label, no: Label) -> Label {
        let low = self.jump(jump, low_half(test.value), yes, no);
        let low = self.load(test.low, low);
        let Some(offset) = test.high else { return low };
        let high = high_half(test.value);
        let equal = self.jump(BPF_JEQ, high, low, no);
        let greater = self.jump(BPF_JGT, high, yes, equal);
        self.load(offset, greater)
    }

    fn ret(&mut self, value: u32) -> Label {
        if let Some(&label) = self.returns.get(&value) {
            return label;
        }
        let label = self.push(BPF_RET | BPF_K, value);
        self.returns.insert(value, label);
        label
    }

    /// A load in front of `next`, which has to be the instruction placed last.
    fn load(&mut self, offset: u32, next: Label) -> Label {
        if next + 1 != self.reversed.len() {
            self.jump_to(next);
        }
        self.push(BPF_LD | BPF_W | BPF_ABS, offset)
    }

    fn jump(&mut self, operation: u32, value: u32, yes: Label, no: Label) -> Label {
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        let here = self.reversed.len();
        let [jt, jf] = [yes, no].map(|target| self.fit(here - target - 1));
        self.reversed.push(sock_filter {
            code: code(BPF_JMP | operation | BPF_K),
            jt,
            jf,
            k: value,
        });
        here
    }

    /// `target`, or a stand-in for it near enough for a conditional jump that comes at most one
    /// instruction later.
    fn within_reach(&mut self, target: Label) -> Label {
        if self.reversed.len() - target <= REACH {
            return target;
        }
        let instruction = &self.reversed[target];
        if instruction.code == code(BPF_RET | BPF_K) {
            let value = instruction.k;
            let copy = self.push(BPF_RET | BPF_K, value);
            self.returns.insert(value, copy);
            return copy;
        }
        self.jump_to(target)
    }

    fn jump_to(&mut self, target: Label) -> Label {
        let distance = self.reversed.len() - target - 1;
        let distance = self.fit(distance);
        self.push(BPF_JMP | BPF_JA, distance)
    }

    fn fit<T: TryFrom<usize> + Default>(&mut self, distance: usize) -> T {
        let fitting = T::try_from(distance);
        self.all_jumps_fit &= fitting.is_ok();
        fitting.unwrap_or_default()
    }

    fn push(&mut self, operation: u32, k: u32) -> Label {
        self.reversed.push(sock_filter { code: code(operation), jt: 0, jf: 0, k });
        self.reversed.len() - 1
    }
}

/// Whether two clauses ask for equality of one argument, with the same high half.
fn share_loads(left: &Clause, right: &Clause) -> bool {
    matches!((&left.tests[..], &right.tests[..]), ([left], [right])
        if left.comparison == Comparison::Equal
            && right.comparison == Comparison::Equal
            && left.low == right.low
            && high_half(left.value) == high_half(right.value))
}

#[allow(clippy::cast_possible_truncation, reason = "operation codes are 16 bits wide")]
const fn code(operation: u32) -> u16 {
    operation as u16
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(value: u64) -> u32 {
    value as u32
}

const fn high_half(value: u64) -> u32 {
    low_half(value >> 32)
}
