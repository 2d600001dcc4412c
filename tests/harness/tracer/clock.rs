//! Another hour of the day for a traced process: what the kernel says of the time is changed on its
//! way back.

use nix::sys::ptrace;
use nix::unistd::Pid;

const WORD: u64 = 8;
/// The kind of entry that says where the vDSO is, and one that is to be ignored.
const AT_SYSINFO_EHDR: i64 = 33;
const AT_IGNORE: i64 = 1;

fn read(pid: Pid, address: u64) -> Option<i64> {
    ptrace::read(pid, address as ptrace::AddressType).ok()
}

/// Keeps what was just executed from telling the time without a system call.
pub(super) fn without_vdso(pid: Pid) {
    let Ok(registers) = ptrace::getregs(pid) else { return };
    // The stack begins with the number of words, the words, the environment, and then the entries.
    let mut at = registers.rsp + WORD;
    for _ in 0..2 {
        while read(pid, at).is_some_and(|word| word != 0) {
            at += WORD;
        }
        at += WORD;
    }
    while let Some(kind) = read(pid, at).filter(|kind| *kind != 0) {
        if kind == AT_SYSINFO_EHDR {
            ptrace::write(pid, at as ptrace::AddressType, AT_IGNORE).expect("hide the vDSO");
        }
        at += 2 * WORD;
    }
}

/// Changes what a call that has just returned said of the time.
pub(super) fn advance(pid: Pid, seconds: i64) {
    let Ok(mut registers) = ptrace::getregs(pid) else { return };
    let (call, result) = (registers.orig_rax.cast_signed(), registers.rax.cast_signed());
    let real = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE].map(i64::from);
    let at = match call {
        libc::SYS_clock_gettime if real.contains(&registers.rdi.cast_signed()) => registers.rsi,
        libc::SYS_gettimeofday => registers.rdi,
        libc::SYS_time if result > 0 => {
            registers.rax = (result + seconds).cast_unsigned();
            // One that is gone is told of by wait.
            let _ = ptrace::setregs(pid, registers);
            return;
        }
        _ => return,
    };
    if result == 0
        && at != 0
        && let Some(now) = read(pid, at)
    {
        ptrace::write(pid, at as ptrace::AddressType, now + seconds).expect("change the time");
    }
}
