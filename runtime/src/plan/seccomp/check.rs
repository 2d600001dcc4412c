//! A last look at a program before the kernel gets it: a fault of the generator must not become a
//! filter that says something else.

use anyhow::{Result, ensure};
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD};
use libc::{BPF_RET, BPF_W};
use seccompiler::sock_filter;

/// The longest program the kernel takes.
const LONGEST: usize = 4096;
/// The size of `struct seccomp_data`.
const DATA_SIZE: u32 = 64;

/// Fails unless every path through the program ends in a `RET`. Jumps only go forward, so that
/// holds if each one lands inside and the last instruction is a `RET`.
pub(super) fn check(program: &[sock_filter]) -> Result<()> {
    ensure!(
        program.len() <= LONGEST,
        "the seccomp profile needs {} instructions, more than the kernel's {LONGEST}",
        program.len()
    );
    ensure!(
        program.last().is_some_and(|last| u32::from(last.code) == BPF_RET | BPF_K),
        "the seccomp program does not end in a return"
    );
    for (place, instruction) in program.iter().enumerate() {
        ensure!(
            is_sound(instruction, program.len() - place - 1),
            "the seccomp program is unsound at {place}: {instruction:?}"
        );
    }
    Ok(())
}

fn is_sound(instruction: &sock_filter, behind: usize) -> bool {
    const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
    const AND: u32 = BPF_ALU | BPF_AND | BPF_K;
    const RETURN: u32 = BPF_RET | BPF_K;
    const ALWAYS: u32 = BPF_JMP | BPF_JA;
    const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    const GREATER: u32 = BPF_JMP | BPF_JGT | BPF_K;
    const GREATER_OR_EQUAL: u32 = BPF_JMP | BPF_JGE | BPF_K;
    match u32::from(instruction.code) {
        LOAD => instruction.k.is_multiple_of(4) && instruction.k < DATA_SIZE,
        AND | RETURN => true,
        ALWAYS => (instruction.k as usize) < behind,
        EQUAL | GREATER | GREATER_OR_EQUAL => {
            usize::from(instruction.jt.max(instruction.jf)) < behind
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_out_of_the_program_is_refused() {
        let ret = sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
        let jump = sock_filter { code: 0x15, jt: 0, jf: 1, k: 0 };
        assert!(check(&[jump.clone(), ret.clone()]).is_err());
        assert!(check(&[jump.clone(), ret.clone(), ret.clone()]).is_ok());
        assert!(check(&[ret.clone(), jump]).is_err());
        assert!(check(&[]).is_err());
        assert!(check(&vec![ret.clone(); LONGEST]).is_ok());
        assert!(check(&vec![ret; LONGEST + 1]).is_err());
    }
}
