//! The system call filter that Docker users get, resolved for the capabilities a container has:
//! what may be called is listed, everything else fails with EPERM.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// `linux.seccomp` for a container whose bounding set is `capabilities`, on an architecture named
/// as images name it (`amd64`).
pub(crate) fn default_profile(capabilities: &[&str], architecture: &str) -> Value {
    let mut allowed: BTreeSet<&str> =
        ALWAYS.iter().flat_map(|calls| calls.split_whitespace()).collect();
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.contains(&capability) {
            allowed.extend(calls.split_whitespace());
        }
    }
    for (architectures, calls) in BY_ARCHITECTURE {
        if architectures.contains(&architecture) {
            allowed.extend(calls.split_whitespace());
        }
    }
    let allowed: Vec<&str> = allowed.into_iter().collect();
    let mut rules = vec![allow(&allowed, &[])];
    rules.extend(conditional_rules());
    if !capabilities.contains(&"CAP_SYS_ADMIN") {
        rules.extend(clone_rules(architecture));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": filtered_abis(architecture),
        "syscalls": rules,
    })
}

/// Sockets of all families but AF_ALG and AF_VSOCK: the first has been a way into the kernel more
/// than once, the second reaches the hypervisor past the container's network. Personalities that
/// do not weaken address randomisation, and the question which one is set.
fn conditional_rules() -> Vec<Value> {
    const AF_ALG: u64 = 38;
    const AF_VSOCK: u64 = 40;
    const PER_LINUX: u64 = 0;
    const PER_LINUX32: u64 = 8;
    const UNAME26: u64 = 0x2_0000;
    const QUERY: u64 = 0xffff_ffff;
    let socket = |comparison, family| allow(&["socket"], &[argument(0, comparison, family, 0)]);
    let personality = |value| allow(&["personality"], &[argument(0, "SCMP_CMP_EQ", value, 0)]);
    let mut rules = vec![
        socket("SCMP_CMP_LT", AF_ALG),
        socket("SCMP_CMP_EQ", AF_ALG + 1),
        socket("SCMP_CMP_GT", AF_VSOCK),
    ];
    let harmless = [PER_LINUX, PER_LINUX32, UNAME26, UNAME26 | PER_LINUX32, QUERY];
    rules.extend(harmless.map(personality));
    rules
}

/// New processes, but no new namespaces. `clone3` hides its flags behind a pointer that a filter
/// cannot follow; ENOSYS makes C libraries fall back to `clone`.
fn clone_rules(architecture: &str) -> [Value; 2] {
    // mnt, cgroup, uts, ipc, user, pid, net; the time namespace has no flag of `clone`.
    const NEW_NAMESPACES: u64 = 0x7e02_0000;
    let flags_index = if matches!(architecture, "s390" | "s390x") { 1 } else { 0 };
    let no_new = argument(flags_index, "SCMP_CMP_MASKED_EQ", NEW_NAMESPACES, 0);
    [
        allow(&["clone"], &[no_new]),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}),
    ]
}

fn allow(names: &[&str], args: &[Value]) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args})
}

fn argument(index: u32, comparison: &str, value: u64, value_two: u64) -> Value {
    json!({"index": index, "value": value, "valueTwo": value_two, "op": comparison})
}

/// The ABIs a kernel of this architecture serves besides its own. Docker lists none for ppc64le:
/// the runtime adds the native one.
pub(super) fn filtered_abis(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "amd64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "arm64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "mips64" => &["SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64N32"],
        "mips64le" => &["SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64N32"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        _ => &[],
    }
}

/// Calls that any container may make, by purpose.
const ALWAYS: [&str; 17] = [
    // Processes: begin, end, wait, be traced. What of this crosses to other users' processes, the
    // kernel checks itself.
    "execve execveat exit exit_group fork vfork wait4 waitid waitpid ptrace process_vm_readv
     process_vm_writev process_mrelease pidfd_open pidfd_send_signal restart_syscall",
    // Identity, sessions and groups.
    "getpid getppid gettid getpgid getpgrp setpgid getsid setsid getuid getuid32 geteuid geteuid32
     getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32 getgroups
     getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid
     setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups
     setgroups32 capget capset",
    // Restrictions on oneself and thread state.
    "prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
     set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area rseq
     uretprobe riscv_hwprobe",
    // Signals.
    "kill tkill tgkill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
     rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack
     sigprocmask sigreturn signalfd signalfd4 pause alarm",
    // Scheduling, limits and usage.
    "sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam
     sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
     sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 sched_yield
     getpriority setpriority ioprio_get ioprio_set getrlimit ugetrlimit setrlimit prlimit64
     getrusage times getcpu membarrier",
    // Memory.
    "brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock
     munlockall mseal remap_file_pages pkey_alloc pkey_free pkey_mprotect memfd_create
     memfd_secret map_shadow_stack",
    // Time and timers.
    "time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
     clock_nanosleep clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64
     getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
     timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
     timerfd_settime timerfd_settime64",
    // Opening, creating and removing files.
    "open openat openat2 creat close close_range name_to_handle_at mkdir mkdirat rmdir mknod
     mknodat link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 readlink
     readlinkat chdir fchdir getcwd umask",
    // Descriptors.
    "dup dup2 dup3 fcntl fcntl64 ioctl flock pipe pipe2 eventfd eventfd2",
    // Reading and writing.
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek
     readahead copy_file_range sendfile sendfile64 splice tee vmsplice fadvise64 fadvise64_64
     fallocate truncate truncate64 ftruncate ftruncate64 sync syncfs sync_file_range fsync
     fdatasync getdents getdents64 cachestat",
    // Attributes.
    "stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx access faccessat
     faccessat2 chmod fchmod fchmodat fchmodat2 chown chown32 lchown lchown32 fchown fchown32
     fchownat utime utimes futimesat utimensat utimensat_time64 getxattr lgetxattr fgetxattr
     getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr
     listxattrat removexattr lremovexattr fremovexattr removexattrat",
    // File systems, looked at.
    "statfs statfs64 fstatfs fstatfs64 statmount listmount inotify_init inotify_init1
     inotify_add_watch inotify_rm_watch fanotify_mark",
    // Waiting for descriptors, and Linux's own asynchronous I/O. io_uring is left out: it runs
    // other calls past the filter.
    "select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create
     epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
     io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    // Futexes.
    "futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue",
    // Sockets; `socketcall` is how i386 makes them all.
    "socketcall socketpair bind listen accept accept4 connect shutdown getsockname getpeername
     getsockopt setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg
     recvmmsg_time64",
    // System V and POSIX queues, semaphores and shared memory.
    "ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat
     shmctl shmdt shmget mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend
     mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64",
    // The system, asked.
    "uname sysinfo getrandom",
];

/// Calls that come with a capability. Without it most would fail anyway; what is closed here is
/// the way to the kernel's code behind them.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "clone clone3 unshare setns mount umount umount2 mount_setattr move_mount open_tree fsopen
         fsconfig fsmount fspick quotactl quotactl_fd sethostname setdomainname syslog bpf
         perf_event_open fanotify_init lookup_dcookie lsm_get_self_attr lsm_set_self_attr
         lsm_list_modules",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy set_mempolicy set_mempolicy_home_node mbind"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Calls that only some architectures have.
const BY_ARCHITECTURE: [(&[&str], &str); 6] = [
    (&["ppc64le"], "sync_file_range2 swapcontext"),
    (
        &["arm", "arm64"],
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
    (&["amd64"], "arch_prctl"),
    (&["amd64", "386"], "modify_ldt"),
    (&["s390x"], "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (&["riscv64"], "riscv_flush_icache"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: [&str; 4] = ["CAP_CHOWN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SYS_CHROOT"];

    /// Names that are allowed whatever their arguments.
    fn allowed(capabilities: &[&str], architecture: &str) -> BTreeSet<String> {
        let profile = default_profile(capabilities, architecture);
        let rules = profile["syscalls"].as_array().unwrap().iter();
        let plain = rules.filter(|rule| rule["args"] == json!([]));
        plain
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn no_call_is_listed_twice() {
        let names: Vec<&str> = ALWAYS.iter().flat_map(|calls| calls.split_whitespace()).collect();
        let mut seen = BTreeSet::new();
        for name in &names {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn what_has_broken_containers_open_is_closed() {
        let allowed = allowed(&DOCKER, "amd64");
        for name in [
            "add_key",
            "bpf",
            "clone",
            "clone3",
            "io_uring_setup",
            "kexec_load",
            "keyctl",
            "mount",
            "open_by_handle_at",
            "perf_event_open",
            "personality",
            "pivot_root",
            "request_key",
            "setns",
            "socket",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!allowed.contains(name), "{name}");
        }
        for name in ["chroot", "ptrace", "openat2", "arch_prctl", "modify_ldt"] {
            assert!(allowed.contains(name), "{name}");
        }
    }

    #[test]
    fn a_capability_opens_its_calls_and_no_others() {
        let before = allowed(&DOCKER, "amd64");
        let after = allowed(&["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_SYS_TIME"], "amd64");
        let opened: Vec<_> = after.difference(&before).map(String::as_str).collect();
        assert_eq!(opened, ["clock_settime", "clock_settime64", "settimeofday", "stime"]);
        assert!(allowed(&["CAP_SYS_ADMIN"], "amd64").contains("clone3"));
        assert!(!allowed(&[], "amd64").contains("chroot"));
    }

    #[test]
    fn without_sys_admin_clone_makes_no_namespace_and_clone3_seems_absent() {
        let profile = default_profile(&DOCKER, "s390x");
        let rules = profile["syscalls"].as_array().unwrap();
        let rule = |name: &str| rules.iter().find(|rule| rule["names"] == json!([name])).unwrap();
        assert_eq!(rule("clone")["args"][0]["index"], 1);
        assert_eq!(rule("clone")["args"][0]["value"], 0x7e02_0000);
        assert_eq!(rule("clone3")["errnoRet"], 38);
        assert_eq!(default_profile(&DOCKER, "amd64")["syscalls"][9]["args"][0]["index"], 0);
    }
}
