//! Faults at system calls: a command runs under ptrace and is killed at its k-th call, or the call
//! fails without being made.
//!
//! ```text
//! sh stops itself ── seize ── continue ── exec of the command ── call 1, 2, … of the whole tree
//! ```
//! Calls are counted over all processes that the command starts, in the order in which they enter
//! the kernel; for a command of one thread the k-th call is the same one in every run.

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::command::Cmd;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process that makes the call is killed before it is made.
    Kill,
    /// The call is not made and returns this.
    Errno(Errno),
}

/// What became of a traced command.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The number of each call, in order.
    pub(crate) calls: Vec<i64>,
    /// Whether the command came as far as the call that was to fail.
    pub(crate) hit: bool,
    /// 128 + signal for one that was killed.
    pub(crate) code: i32,
}

/// Calls whose failure says nothing: those that can not fail, and those that end things.
const NEVER_FAIL: [i64; 15] = [
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_munmap,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
];

/// Whether a failure of this call is worth a run.
pub(crate) fn may_fail(call: i64) -> bool {
    !NEVER_FAIL.contains(&call)
}

/// The error that a call most likely fails with on a host in trouble.
pub(crate) fn likely_error(call: i64) -> Errno {
    match call {
        libc::SYS_openat | libc::SYS_open | libc::SYS_socket | libc::SYS_pipe2 => Errno::EMFILE,
        libc::SYS_write | libc::SYS_mkdir | libc::SYS_mkdirat | libc::SYS_rename => Errno::ENOSPC,
        libc::SYS_renameat | libc::SYS_symlink | libc::SYS_symlinkat => Errno::ENOSPC,
        libc::SYS_fsync | libc::SYS_fdatasync => Errno::EIO,
        libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_recvfrom => Errno::ENOBUFS,
        libc::SYS_mmap | libc::SYS_mprotect | libc::SYS_mremap => Errno::ENOMEM,
        libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => Errno::EAGAIN,
        libc::SYS_umount2 | libc::SYS_rmdir => Errno::EBUSY,
        libc::SYS_stat | libc::SYS_statx | libc::SYS_newfstatat => Errno::EACCES,
        _ => Errno::EPERM,
    }
}

/// Runs a command to its end without faults.
pub(crate) fn trace(command: Cmd) -> Traced {
    Tracer::start(command, None).run()
}

/// Runs a command with a fault at its `number`-th call, counted from 0.
pub(crate) fn trace_with(command: Cmd, number: usize, fault: Fault) -> Traced {
    Tracer::start(command, Some((number, fault))).run()
}

struct Tracer {
    first: Pid,
    alive: HashSet<Pid>,
    plan: Option<(usize, Fault)>,
    calls: Vec<i64>,
    hit: bool,
    /// Set once the command itself runs: the shell's own calls are none of its.
    counting: bool,
    /// Processes inside a call, each with the error that the call is to return.
    inside: HashMap<Pid, Option<Errno>>,
}

impl Tracer {
    #[expect(clippy::zombie_processes, reason = "`run` waits for the whole tree by number")]
    fn start(command: Cmd, plan: Option<(usize, Fault)>) -> Tracer {
        let (words, environment) = command.into_parts();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(words).envs(environment);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = shell.spawn().expect("start a shell to trace");
        let first = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
        let stopped = waitpid(first, Some(WaitPidFlag::WUNTRACED)).expect("wait for the shell");
        assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stopped:?}");
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(first, options).expect("trace the shell");
        kill(first, Signal::SIGCONT).expect("wake the shell");
        Tracer {
            first,
            alive: HashSet::from([first]),
            plan,
            calls: Vec::new(),
            hit: false,
            counting: false,
            inside: HashMap::new(),
        }
    }

    fn run(mut self) -> Traced {
        let mut code = None;
        // Only this thread's children: what other tests left running is theirs.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while !self.alive.is_empty() {
            let status = waitpid(None, Some(flags)).expect("wait for the traced");
            let ended = match status {
                WaitStatus::Exited(pid, status) => Some((pid, status)),
                WaitStatus::Signaled(pid, signal, _) => Some((pid, 128 + signal as i32)),
                _ => None,
            };
            let Some((pid, status)) = ended else {
                self.step(status);
                continue;
            };
            self.alive.remove(&pid);
            if pid == self.first {
                code = Some(status);
            }
        }
        Traced { calls: self.calls, hit: self.hit, code: code.expect("the command ended") }
    }

    fn step(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        let signal = match status {
            WaitStatus::PtraceSyscall(_) => {
                if self.inside.contains_key(&pid) {
                    self.leave(pid);
                } else {
                    self.enter(pid);
                }
                None
            }
            WaitStatus::PtraceEvent(_, _, event) => {
                self.meet(pid, event);
                let is_exec = event == ptrace::Event::PTRACE_EVENT_EXEC as i32;
                if is_exec && !self.counting {
                    self.counting = true;
                    // What ends next is the exec itself.
                    self.inside.insert(pid, None);
                }
                None
            }
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => Some(signal),
            _ => None,
        };
        // One that was killed may be gone before it can be let go on.
        let stopped = [Signal::SIGSTOP, Signal::SIGTSTP];
        let _ = ptrace::syscall(pid, signal.filter(|signal| !stopped.contains(signal)));
    }

    /// A new process of the tree is traced from its first call on.
    fn meet(&mut self, parent: Pid, event: i32) {
        let births = [
            ptrace::Event::PTRACE_EVENT_FORK,
            ptrace::Event::PTRACE_EVENT_VFORK,
            ptrace::Event::PTRACE_EVENT_CLONE,
        ];
        if births.iter().any(|birth| *birth as i32 == event)
            && let Ok(child) = ptrace::getevent(parent)
        {
            self.alive.insert(Pid::from_raw(i32::try_from(child).expect("a pid fits")));
        }
    }

    fn enter(&mut self, pid: Pid) {
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        self.inside.insert(pid, None);
        if !self.counting {
            return;
        }
        let number = self.calls.len();
        self.calls.push(registers.orig_rax.cast_signed());
        match self.plan {
            Some((wanted, fault)) if wanted == number => {
                self.hit = true;
                match fault {
                    Fault::Kill => drop(kill(pid, Signal::SIGKILL)),
                    Fault::Errno(errno) => {
                        registers.orig_rax = u64::MAX;
                        ptrace::setregs(pid, registers).expect("skip a call");
                        self.inside.insert(pid, Some(errno));
                    }
                }
            }
            _ => {}
        }
    }

    fn leave(&mut self, pid: Pid) {
        if let Some(Some(errno)) = self.inside.remove(&pid) {
            let mut registers = ptrace::getregs(pid).expect("read registers");
            registers.rax = i64::from(-(errno as i32)).cast_unsigned();
            ptrace::setregs(pid, registers).expect("fail a call");
        }
    }
}
