//! The program that a process is filtered by, read back from the kernel and run by hand.

use std::collections::BTreeSet;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::Value;

pub(super) const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const UNHEARD_OF: u32 = 0x1234_5678;

/// What the kernel hands to a filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    args: [u64; 6],
}

/// What a filter says to a call, and whether it looked at the arguments for that.
pub(super) struct Answer {
    pub(super) value: u32,
    examined: bool,
}

/// The only filter of process `pid`, which is stopped for the moment that it takes.
pub(super) fn of_process(pid: i32) -> Vec<libc::sock_filter> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, Options::empty()).expect("trace the container's process");
    ptrace::interrupt(pid).expect("stop it");
    waitpid(pid, None).expect("wait until it stops");
    let program = kernel::filter(pid.as_raw(), 0).expect("read its filter");
    assert!(kernel::filter(pid.as_raw(), 1).is_err(), "it has a second filter");
    ptrace::detach(pid, None).expect("let it go on");
    program
}

/// Runs a program as the kernel would.
pub(super) fn answer(program: &[libc::sock_filter], call: &Call) -> Answer {
    let (mut accumulator, mut place, mut examined) = (0, 0, false);
    loop {
        let instruction = &program[place];
        let k = instruction.k;
        place += 1;
        let holds = match instruction.code {
            0x20 => {
                accumulator = word(call, k);
                examined |= k >= 16;
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
            0x06 => return Answer { value: k, examined },
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            code => panic!("operation {code:#x}"),
        };
        place += usize::from(if holds { instruction.jt } else { instruction.jf });
    }
}

fn word(call: &Call, offset: u32) -> u32 {
    let halves = |value: u64| {
        let bytes = value.to_le_bytes();
        let half = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        [half(0), half(4)]
    };
    match offset {
        0 => call.number,
        4 => call.arch,
        16..64 => halves(call.args[(offset as usize - 16) / 8])[(offset as usize / 4) % 2],
        _ => panic!("load from {offset}"),
    }
}

/// Every number that an ABI has or could have, and, where one of the programs looks at arguments,
/// each value at an edge of the profile's conditions in each of them.
pub(super) fn cases<'a>(
    profile: &Value,
    programs: &'a [&Vec<libc::sock_filter>],
) -> impl Iterator<Item = Call> + 'a {
    let beyond = [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, 0xf_0001]
        .into_iter()
        .chain([0xf_0005, u32::MAX - 1, u32::MAX]);
    let numbers: Vec<u32> = (0..600).chain(0x4000_0000..0x4000_02bc).chain(beyond).collect();
    let arguments = arguments(profile);
    let architectures = [X86_64, I386, AARCH64, UNHEARD_OF];
    let calls = architectures.into_iter().flat_map(move |arch| {
        numbers.clone().into_iter().map(move |number| Call { arch, number, args: [0; 6] })
    });
    calls.flat_map(move |call| {
        let examined = programs.iter().any(|program| answer(program, &call).examined);
        let arguments = if examined { arguments.clone() } else { vec![call.args] };
        arguments.into_iter().map(move |args| Call { args, ..call })
    })
}

fn arguments(profile: &Value) -> Vec<[u64; 6]> {
    let mut edges: BTreeSet<u64> = (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]).collect();
    let rules = profile["syscalls"].as_array().expect("the profile has rules");
    let conditions = rules.iter().filter_map(|rule| rule["args"].as_array()).flatten();
    for value in conditions.filter_map(|condition| condition["value"].as_u64()) {
        edges.extend([value, value.wrapping_add(1), value.wrapping_sub(1), !value]);
        edges.extend((0..64).map(|bit| value ^ (1 << bit)));
    }
    let mut arguments = Vec::new();
    for edge in edges {
        for index in 0..6 {
            for rest in [0, u64::MAX] {
                let mut args = [rest; 6];
                args[index] = edge;
                arguments.push(args);
            }
        }
    }
    arguments
}

#[allow(unsafe_code)]
mod kernel {
    use std::io;
    use std::ptr;

    /// Since Linux 4.4, for tracers with CAP_SYS_ADMIN.
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

    /// The filter of a stopped tracee that was loaded as the `index`th before the last.
    pub(super) fn filter(pid: i32, index: u64) -> io::Result<Vec<libc::sock_filter>> {
        let read = |into: *mut libc::sock_filter| {
            // SAFETY: the kernel writes as many instructions as it has said before, to memory for
            // that many; to a null pointer it writes nothing.
            let length = unsafe {
                libc::syscall(libc::SYS_ptrace, PTRACE_SECCOMP_GET_FILTER, pid, index, into)
            };
            usize::try_from(length).map_err(|_| io::Error::last_os_error())
        };
        let none = libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 };
        let mut program = vec![none; read(ptr::null_mut())?];
        read(program.as_mut_ptr())?;
        Ok(program)
    }
}
