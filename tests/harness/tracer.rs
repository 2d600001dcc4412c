//! Faults at system calls: a command runs under ptrace and is killed at its k-th call, or the call
//! fails without being made.
//!
//! ```text
//! sh stops itself ── seize ── continue ── exec of the command ── call 1, 2, … of the whole tree
//! ```
//! Calls are counted over all processes that the command starts, in the order in which they enter
//! the kernel; for a command of one thread the k-th call is the same one in every run. Where threads
//! take turns, the k-th of its kind is at least a call of that kind.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::command::{Cmd, read, scratch};

mod clock;

/// Longer than any command takes under ptrace: one that waits for something that never comes.
const LIMIT: Duration = Duration::from_secs(30);

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process that makes the call is killed before it is made.
    Kill,
    /// The call is not made and returns this.
    Errno(Errno),
}

/// Which call it happens at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// After so many others.
    Number(usize),
    /// After so many others of this kind.
    Nth { call: i64, before: usize },
}

/// Where a fault was met.
#[derive(Debug)]
pub(crate) struct Struck {
    /// The process, or thread, that made the call.
    pub(crate) by: Pid,
    /// What the call was on, as far as that has a name.
    #[expect(dead_code, reason = "for whoever reads of a finding")]
    on: String,
}

/// Which processes of a tree are looked at, by the names of what they execute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Calls count from its execution on: not those of what leads to it.
    pub(crate) program: &'static str,
    /// Let go on its own: its calls do not count.
    pub(crate) payload: &'static str,
}

/// What became of a traced command.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The number of each call, in order.
    pub(crate) calls: Vec<i64>,
    /// Which of them the program's language makes before its first line, for which it does not answer.
    pub(crate) starting: Vec<bool>,
    /// All processes that were met, some of which may live on.
    pub(crate) met: Vec<Pid>,
    /// It did not end, and was killed for that.
    pub(crate) hung: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The call that was to fail, if the command came so far.
    pub(crate) struck: Option<Struck>,
    /// 128 + signal for one that was killed.
    pub(crate) code: i32,
}

/// Calls whose failure says nothing: those that can not fail, and those that end things.
const NEVER_FAIL: [i64; 17] = [
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
    libc::SYS_umask,
    libc::SYS_uname,
];

impl Traced {
    /// The numbers of so many of the calls, or with `E2E_FAULTS=all` of all.
    pub(crate) fn sample(&self, most: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.calls.len();
        let all = std::env::var("E2E_FAULTS").is_ok_and(|value| value == "all");
        (0..count).step_by(if all { 1 } else { count.div_ceil(most) })
    }
}

/// What can befall a call: a kill and, where it may fail, its likely error.
pub(crate) fn kill_or_error(call: i64) -> Vec<Fault> {
    let mut faults = vec![Fault::Kill];
    if may_fail(call) {
        faults.push(Fault::Errno(likely_error(call)));
    }
    faults
}

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
        libc::SYS_mknod | libc::SYS_mknodat => Errno::ENOSPC,
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
    Tracer::start(command, None, None).run()
}

/// Runs a command with a fault at its `number`-th call, counted from 0.
pub(crate) fn trace_with(command: Cmd, number: usize, fault: Fault) -> Traced {
    Tracer::start(command, Some((At::Number(number), fault)), None).run()
}

/// The same, or without a fault, within bounds, and until the command itself ends: what it has
/// started may live on.
pub(crate) fn observe(command: Cmd, plan: Option<(At, Fault)>, bounds: Bounds) -> Traced {
    Tracer::start(command, plan, Some(bounds)).run()
}

/// Runs a command to its end whose clock, and that of all it starts, is ahead by so many seconds.
pub(crate) fn ahead(command: Cmd, seconds: i64) -> Traced {
    with_clock(command, Arc::new(AtomicI64::new(seconds)))
}

/// The same until all that it has started has ended, too, with a clock that may be set meanwhile.
pub(crate) fn with_clock(command: Cmd, ahead: Arc<AtomicI64>) -> Traced {
    let mut tracer = Tracer::start(command, None, None);
    tracer.ahead = Some(ahead);
    tracer.run()
}

struct Tracer {
    /// By how many seconds clocks are ahead.
    ahead: Option<Arc<AtomicI64>>,
    first: Pid,
    alive: HashSet<Pid>,
    /// Those of whose end we were told before their birth.
    unborn: HashSet<Pid>,
    plan: Option<(At, Fault)>,
    bounds: Option<Bounds>,
    calls: Vec<i64>,
    /// How many there were of each kind.
    kinds: HashMap<i64, usize>,
    starting: Vec<bool>,
    met: Vec<Pid>,
    struck: Option<Struck>,
    /// Processes that execute something new, with the call that ends their start, and how often it is
    /// still to come.
    fresh: HashMap<Pid, (i64, usize)>,
    output: [File; 2],
    /// Set once the command itself runs: the shell's own calls are none of its.
    counting: bool,
    /// Processes inside a call, each with the error that the call is to return.
    inside: HashMap<Pid, Option<Errno>>,
}

impl Tracer {
    #[expect(clippy::zombie_processes, reason = "`run` waits for the whole tree by number")]
    fn start(command: Cmd, plan: Option<(At, Fault)>, bounds: Option<Bounds>) -> Tracer {
        let output = [scratch(), scratch()];
        let [stdout, stderr] = output.each_ref().map(|file| file.try_clone().expect("dup"));
        let (words, environment, stdin) = command.into_parts();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(words).envs(environment);
        shell.stdin(stdin).stdout(stdout).stderr(stderr);
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
            ahead: None,
            first,
            alive: HashSet::from([first]),
            unborn: HashSet::new(),
            plan,
            bounds,
            calls: Vec::new(),
            kinds: HashMap::new(),
            starting: Vec::new(),
            met: vec![first],
            struck: None,
            fresh: HashMap::new(),
            output,
            counting: false,
            inside: HashMap::new(),
        }
    }

    fn run(mut self) -> Traced {
        let mut code = None;
        // Only this thread's children: what other tests left running is theirs.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let (watch, ended) = watch(self.first);
        while !self.alive.is_empty() || self.finds_orphans(code.is_some()) {
            let status = match waitpid(None, Some(flags)) {
                Err(Errno::ECHILD) => break,
                status => status.expect("wait for the traced"),
            };
            let end = match status {
                WaitStatus::Exited(pid, status) => Some((pid, status)),
                WaitStatus::Signaled(pid, signal, _) => Some((pid, 128 + signal as i32)),
                _ => None,
            };
            match end {
                Some((pid, status)) => {
                    if !self.alive.remove(&pid) {
                        self.unborn.insert(pid);
                    }
                    if pid == self.first {
                        code = Some(status);
                        self.interrupt_others();
                    }
                }
                None if code.is_some() && self.bounds.is_some() => self.let_go(status),
                None => self.step(status),
            }
        }
        drop(ended);
        let [mut stdout, mut stderr] = self.output;
        Traced {
            calls: self.calls,
            starting: self.starting,
            met: self.met,
            hung: watch.join().expect("the watch does not panic"),
            stdout: read(&mut stdout),
            stderr: read(&mut stderr),
            struck: self.struck,
            code: code.expect("the command ended"),
        }
    }

    /// Looks for those of whose birth nobody has told us, since who bore them was killed at that moment.
    /// They are traced from birth: left alone they would stand still, with all locks that they inherited.
    fn finds_orphans(&mut self, ended: bool) -> bool {
        let tracer = format!("TracerPid:\t{}", nix::unistd::gettid());
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that is gone meanwhile needs nothing any more.
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            if status.lines().any(|line| line == tracer) && !status.contains("State:\tZ") {
                self.alive.insert(Pid::from_raw(pid));
                self.met.push(Pid::from_raw(pid));
            }
        }
        if ended {
            self.interrupt_others();
        }
        !self.alive.is_empty()
    }

    /// Only what has stopped can be let go.
    fn interrupt_others(&self) {
        if self.bounds.is_some() {
            for pid in &self.alive {
                // One that is gone is told of by wait.
                let _ = ptrace::interrupt(*pid);
            }
        }
    }

    fn let_go(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        if let WaitStatus::PtraceEvent(_, _, event) = status {
            self.meet(pid, event);
        }
        // A call that was to fail does so, also in one that is let go.
        if matches!(status, WaitStatus::PtraceSyscall(_)) && self.inside.contains_key(&pid) {
            self.leave(pid);
        } else if self.inside.get(&pid).is_some_and(Option::is_some) {
            let _ = ptrace::syscall(pid, None);
            return;
        }
        let signal = match status {
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => Some(signal),
            _ => None,
        };
        // One that is gone is told of by wait; one of a birth that we have not heard of yet, too.
        if ptrace::detach(pid, signal).is_ok() {
            self.alive.remove(&pid);
        }
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
                if is_exec && self.executes(pid) {
                    return;
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

    /// Looks at what is executed; true if it is none of the tracer's business any more.
    fn executes(&mut self, pid: Pid) -> bool {
        let image = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let is = |name: &str| image.file_name().is_some_and(|image| image == name);
        // Rust's start asks for the signal stack and then sets it; that of `runtime`, which has no path
        // where it runs from a clone of its mount, ignores SIGPIPE last.
        let own_start = is("runtime") || image == std::path::Path::new("/");
        let end = if own_start { (libc::SYS_rt_sigaction, 1) } else { (libc::SYS_sigaltstack, 2) };
        self.fresh.insert(pid, end);
        if self.ahead.is_some() {
            clock::without_vdso(pid);
        }
        match self.bounds {
            Some(bounds) if is(bounds.payload) && ptrace::detach(pid, None).is_ok() => {
                self.alive.remove(&pid);
                return true;
            }
            Some(bounds) if !self.counting && !is(bounds.program) => return false,
            _ => {}
        }
        if !self.counting {
            self.counting = true;
            // What ends next is the exec itself.
            self.inside.insert(pid, None);
        }
        false
    }

    /// Whether the call is of those that come before the program's first line.
    fn is_starting(&mut self, pid: Pid, call: i64) -> bool {
        let Some((end, left)) = self.fresh.get_mut(&pid) else { return false };
        if call == *end {
            *left -= 1;
        }
        if *left == 0 {
            self.fresh.remove(&pid);
        }
        true
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
            let child = Pid::from_raw(i32::try_from(child).expect("a pid fits"));
            if !self.unborn.remove(&child) {
                self.alive.insert(child);
            }
            self.met.push(child);
        }
    }

    fn enter(&mut self, pid: Pid) {
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        self.inside.insert(pid, None);
        if !self.counting {
            return;
        }
        let call = registers.orig_rax.cast_signed();
        let before = self.kinds.entry(call).or_insert(0);
        let here = [At::Number(self.calls.len()), At::Nth { call, before: *before }];
        *before += 1;
        self.calls.push(call);
        let starting = self.is_starting(pid, call);
        self.starting.push(starting);
        match self.plan {
            Some((wanted, fault)) if here.contains(&wanted) => {
                self.struck = Some(Struck { by: pid, on: subject(pid, call, &registers) });
                match fault {
                    Fault::Kill => drop(kill(pid, Signal::SIGKILL)),
                    // A run may make a call more or less than the one that was planned by: where
                    // it meets one that can't fail, nothing does.
                    Fault::Errno(_) if !may_fail(call) => {}
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
        if let Some(ahead) = &self.ahead {
            clock::advance(pid, ahead.load(Ordering::Relaxed));
        }
        if let Some(Some(errno)) = self.inside.remove(&pid) {
            let mut registers = ptrace::getregs(pid).expect("read registers");
            registers.rax = i64::from(-(errno as i32)).cast_unsigned();
            ptrace::setregs(pid, registers).expect("fail a call");
        }
    }
}

/// The path or the open file that a call is on: the first that its arguments name.
fn subject(pid: Pid, call: i64, registers: &libc::user_regs_struct) -> String {
    let path = match call {
        libc::SYS_openat | libc::SYS_openat2 | libc::SYS_mkdirat | libc::SYS_unlinkat => {
            registers.rsi
        }
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_renameat | libc::SYS_linkat => {
            registers.rsi
        }
        libc::SYS_open | libc::SYS_stat | libc::SYS_lstat | libc::SYS_mkdir => registers.rdi,
        libc::SYS_rename | libc::SYS_unlink | libc::SYS_rmdir | libc::SYS_readlink => registers.rdi,
        _ => {
            let open = std::fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi));
            return open.map_or_else(|_| String::new(), |path| path.display().to_string());
        }
    };
    let mut text = Vec::new();
    while let Ok(word) = ptrace::read(pid, (path + text.len() as u64) as ptrace::AddressType) {
        let bytes = word.to_ne_bytes();
        text.extend(bytes.iter().take_while(|byte| **byte != 0));
        if bytes.contains(&0) {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Kills the command if it takes too long; tells whether it had to, once the sender is dropped.
fn watch(command: Pid) -> (std::thread::JoinHandle<bool>, Sender<()>) {
    let (ended, end) = channel();
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            // Fails only when it is gone meanwhile, which is as good.
            let _ = kill(command, Signal::SIGKILL);
        }
        late
    });
    (watch, ended)
}
