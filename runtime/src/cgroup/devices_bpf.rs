//! v2 has no device files: a program attached to the cgroup decides on every access.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::files::Dir;
use crate::plan::cgroup::DevicePlan;
use crate::plan::cgroup::devices::{Access, Device, Kind};
use crate::sys::bpf::{self, Instruction};

/// Puts the program for `plan` in the place of all device programs that are on the cgroup.
pub(super) fn attach(dir: &Dir, plan: &DevicePlan) -> Result<()> {
    let cgroup = dir.as_fd();
    let old = attached(cgroup);
    if plan.allows_all() {
        // Nothing to enforce; where programs can't even be listed there is none of ours.
        return old.map_or(Ok(()), |old| detach(cgroup, &old));
    }
    let old = old?;
    let program = load(&assemble(plan)?).context("failed to call BPF_PROG_LOAD")?;
    if let [single] = old.as_slice() {
        // At no moment is the cgroup without a program.
        return bpf::attach_device_program(cgroup, program.as_fd(), Some(single.as_fd()))
            .context("failed to call BPF_PROG_ATTACH");
    }
    bpf::attach_device_program(cgroup, program.as_fd(), None)
        .context("failed to call BPF_PROG_ATTACH")?;
    detach(cgroup, &old)
}

/// Programs that we may not open (an LSM's label) only restrict further: they stay.
fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let ids = bpf::device_programs(cgroup).context("bpf_prog_query(BPF_CGROUP_DEVICE) failed")?;
    let mut programs = Vec::new();
    for id in ids {
        match bpf::program_by_id(id) {
            Ok(program) => programs.push(program),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error).context("cannot fetch program from id"),
        }
    }
    Ok(programs)
}

fn detach(cgroup: BorrowedFd<'_>, programs: &[OwnedFd]) -> Result<()> {
    for program in programs {
        bpf::detach_device_program(cgroup, program.as_fd())
            .context("failed to call BPF_PROG_DETACH (BPF_CGROUP_DEVICE) on old filter program")?;
    }
    Ok(())
}

/// Before 5.11 programs count as locked memory, and the refusal is EPERM. The limit is put back:
/// the container must not inherit it.
fn load(instructions: &[Instruction]) -> Result<OwnedFd> {
    let refused = match bpf::load_device_program(instructions) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        other => return Ok(other?),
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).context("getrlimit RLIMIT_MEMLOCK")?;
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        return Err(refused.into());
    }
    let result = bpf::load_device_program(instructions);
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard).context("setrlimit RLIMIT_MEMLOCK")?;
    Ok(result?)
}

const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
// 32-bit comparisons (5.1): the 64-bit ones extend the sign of numbers beyond 2^31.
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
const JUMP_IF_BITS: u8 = 0x46;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

/// Register 0 holds the exceptions' verdict until the end; an exception that matches leaves. They stand by
/// kind and major number: the kernel checks every instruction of every program at every start.
fn assemble(plan: &DevicePlan) -> Result<Vec<Instruction>> {
    let mut program = Program(vec![
        // struct bpf_cgroup_dev_ctx: kind and access in one word, major, minor.
        Instruction { registers: CONTEXT << 4 | KIND, ..instruction(LOAD_WORD, 0, 0) },
        Instruction { registers: KIND << 4 | ACCESS, ..instruction(MOVE_REGISTER, 0, 0) },
        instruction(AND, KIND, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 16),
        Instruction { registers: CONTEXT << 4 | MAJOR, offset: 4, ..instruction(LOAD_WORD, 0, 0) },
        Instruction { registers: CONTEXT << 4 | MINOR, offset: 8, ..instruction(LOAD_WORD, 0, 0) },
        instruction(MOVE, 0, i32::from(!plan.default_allow)),
    ]);
    for (kind, number) in [(Kind::Block, 1), (Kind::Char, 2)] {
        let mut of_kind =
            plan.exceptions.iter().filter(|(device, _)| device.kind == kind).peekable();
        if of_kind.peek().is_none() {
            continue;
        }
        let other_kind = program.jump(JUMP_IF_NOT_EQUAL, KIND, number);
        let mut whole: BTreeMap<Option<u32>, BTreeSet<Option<u32>>> = BTreeMap::new();
        for (device, access) in of_kind {
            if *access == Access::ALL {
                whole.entry(device.major).or_default().insert(device.minor);
            } else {
                program.partly(*device, *access, plan.default_allow)?;
            }
        }
        // Every device of the kind: what stood behind it could not be reached, which the kernel refuses.
        if whole.get(&None).is_some_and(|minors| minors.contains(&None)) {
            whole.retain(|major, _| major.is_none());
        }
        for (major, minors) in whole {
            program.wholly(major, &minors)?;
        }
        program.land(other_kind)?;
    }
    program.0.push(instruction(MOVE, 0, i32::from(plan.default_allow)));
    program.0.push(instruction(EXIT, 0, 0));
    Ok(program.0)
}

/// What is assembled so far. Jumps lead forward, and know where to only when it is reached.
struct Program(Vec<Instruction>);

impl Program {
    /// Adds a jump and gives its place, for `land`.
    fn jump(&mut self, code: u8, register: u8, immediate: i32) -> usize {
        self.0.push(instruction(code, register, immediate));
        self.0.len() - 1
    }

    /// Lets the jump lead to what comes next.
    fn land(&mut self, jump: usize) -> Result<()> {
        self.0[jump].offset = i16::try_from(self.0.len() - jump - 1)?;
        Ok(())
    }

    /// An exception for some ways of access. An allowance must cover all that is asked; a denial strikes if it
    /// covers any of it.
    fn partly(&mut self, device: Device, access: Access, deny: bool) -> Result<()> {
        let mut others = Vec::new();
        let bits = access.bits();
        if deny {
            let covered = self.jump(JUMP_IF_BITS, ACCESS, bits.into());
            others.push(self.jump(JUMP, 0, 0));
            self.land(covered)?;
        } else {
            others.push(self.jump(JUMP_IF_BITS, ACCESS, (Access::ALL.bits() & !bits).into()));
        }
        for (register, number) in [(MAJOR, device.major), (MINOR, device.minor)] {
            if let Some(number) = number {
                others.push(self.jump(JUMP_IF_NOT_EQUAL, register, number.cast_signed()));
            }
        }
        self.0.push(instruction(EXIT, 0, 0));
        others.into_iter().try_for_each(|jump| self.land(jump))
    }

    /// Exceptions for every access to the devices of one major number, or of any.
    fn wholly(&mut self, major: Option<u32>, minors: &BTreeSet<Option<u32>>) -> Result<()> {
        let not_equal = |program: &mut Self, register, number: u32| {
            program.jump(JUMP_IF_NOT_EQUAL, register, number.cast_signed())
        };
        let mut others: Vec<usize> =
            major.map(|major| not_equal(self, MAJOR, major)).into_iter().collect();
        if !minors.contains(&None) {
            let mut matches = Vec::new();
            let mut numbers = minors.iter().flatten().peekable();
            while let Some(number) = numbers.next() {
                if numbers.peek().is_some() {
                    matches.push(self.jump(JUMP_IF_EQUAL, MINOR, number.cast_signed()));
                } else {
                    others.push(not_equal(self, MINOR, *number));
                }
            }
            matches.into_iter().try_for_each(|jump| self.land(jump))?;
        }
        self.0.push(instruction(EXIT, 0, 0));
        others.into_iter().try_for_each(|jump| self.land(jump))
    }
}

fn instruction(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program on one access; true if it is allowed.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 6];
        let mut next = 0;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[next];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let value = immediate.cast_unsigned();
            next += 1;
            let jump = match code {
                LOAD_WORD => {
                    assert_eq!(from, usize::from(CONTEXT));
                    registers[to] = context[usize::try_from(offset).unwrap() / 4];
                    false
                }
                MOVE => {
                    registers[to] = value;
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= value;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= value;
                    false
                }
                JUMP => true,
                JUMP_IF_EQUAL => registers[to] == value,
                JUMP_IF_NOT_EQUAL => registers[to] != value,
                JUMP_IF_BITS => registers[to] & value != 0,
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            };
            if jump {
                next += usize::try_from(offset).unwrap();
            }
        }
    }

    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;
    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;

    #[test]
    fn an_allow_list_needs_the_whole_access() {
        let plan = DevicePlan::from_list(
            "c *:* m\nc 1:3 rwm\nb 8:* r\nc *:7 rw\nc 4294967295:0 r\nc 1:8 rwm\n\
                c 5:0 rwm\nc 1:9 rwm\nc 136:* rwm\nc 136:1 rwm\nc *:200 rwm\nb 7:* rwm\n",
        )
        .unwrap();
        let program = assemble(&plan).unwrap();
        for (kind, access, major, minor, allowed) in [
            (CHAR, READ | WRITE, 1, 3, true),
            (CHAR, READ, 1, 5, false),
            (CHAR, MKNOD, 1, 5, true),
            (CHAR, MKNOD | READ, 1, 5, false),
            (BLOCK, READ, 8, 99, true),
            (BLOCK, READ | WRITE, 8, 99, false),
            (BLOCK, READ, 9, 0, false),
            (BLOCK, MKNOD, 1, 3, false),
            (CHAR, WRITE, 44, 7, true),
            (CHAR, READ, u32::MAX, 0, true),
            (CHAR, READ, u32::MAX - 1, 0, false),
            (CHAR, READ, 1, 8, true),
            (CHAR, WRITE, 1, 9, true),
            (CHAR, READ, 1, 0, false),
            (CHAR, READ, 5, 0, true),
            (CHAR, READ, 5, 8, false),
            (CHAR, WRITE, 136, 5, true),
            (CHAR, WRITE, 77, 200, true),
            (BLOCK, WRITE, 7, 12, true),
            (BLOCK, WRITE, 136, 5, false),
            (BLOCK, WRITE, 5, 200, false),
        ] {
            assert_eq!(
                run(&program, kind, access, major, minor),
                allowed,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    /// The kernel refuses programs with others.
    #[test]
    fn every_instruction_can_be_reached() {
        let defaults = "c *:* m\nb *:* m\nc 1:3 rwm\nc 5:0 rwm\nc 5:2 rwm\nc 136:* rwm\n";
        for more in ["", "c *:* rwm\n", "b *:* rwm\n", "c 5:* rwm\n", "c *:0 rwm\n", "b 8:* r\n"] {
            let list = DevicePlan::from_list(&format!("{defaults}{more}")).unwrap();
            for default_allow in [false, true] {
                let plan = DevicePlan { default_allow, exceptions: list.exceptions.clone() };
                let program = assemble(&plan).unwrap();
                let mut reached = vec![false; program.len()];
                let mut next = vec![0];
                while let Some(at) = next.pop() {
                    if std::mem::replace(&mut reached[at], true) || program[at].code == EXIT {
                        continue;
                    }
                    let Instruction { code, offset, .. } = program[at];
                    let jumps = [JUMP, JUMP_IF_EQUAL, JUMP_IF_NOT_EQUAL, JUMP_IF_BITS];
                    if jumps.contains(&code) {
                        next.push(at + 1 + usize::try_from(offset).unwrap());
                    }
                    if code != JUMP {
                        next.push(at + 1);
                    }
                }
                assert!(!reached.contains(&false), "{more:?} {default_allow}: {reached:?}");
            }
        }
    }

    #[test]
    fn a_deny_list_strikes_at_any_part_of_the_access() {
        let list = DevicePlan::from_list("c 10:* w\nb 7:0 rwm\n").unwrap();
        let plan = DevicePlan { default_allow: true, exceptions: list.exceptions };
        let program = assemble(&plan).unwrap();
        for (kind, access, major, minor, allowed) in [
            (CHAR, READ, 10, 1, true),
            (CHAR, WRITE, 10, 1, false),
            (CHAR, READ | WRITE, 10, 1, false),
            (CHAR, WRITE, 11, 1, true),
            (BLOCK, READ, 7, 0, false),
            (BLOCK, READ, 7, 1, true),
        ] {
            assert_eq!(
                run(&program, kind, access, major, minor),
                allowed,
                "{kind} {access} {major}:{minor}"
            );
        }
    }
}
