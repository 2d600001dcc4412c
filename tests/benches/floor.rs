//! The floor below every runtime: the container of `runtime spec`, made with the fewest system calls and
//! nothing looked at, checked or recorded. What a runtime takes longer is its own; what this takes is the
//! kernel's, but for one start of the C library. It is for cgroup v2, x86-64 and root.
//!
//!     floor run ROOTFS PROGRAM...   make the container, execute the program in it, wait, clean up
//!     floor exec PID PROGRAM...     execute the program beside the process, wait

#![no_main]
#![allow(unsafe_code, reason = "the system calls are made bare, as nothing else is to be measured")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "descriptors and ids")]

use std::ffi::{CStr, c_char, c_int, c_long};
use std::ptr::{null, null_mut};

const CGROUP: &CStr = c"/sys/fs/cgroup/floor";

/// The namespaces that a process can be born in; that of cgroups comes after its cgroup.
const SPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the default configuration leaves: audit_write, kill, net_bind_service.
const CAPABILITIES: u32 = 1 << 29 | 1 << 5 | 1 << 10;
const LAST_CAPABILITY: c_long = 40;

const MOUNTS: [(&CStr, &CStr, libc::c_ulong, &CStr); 6] = [
    (c"proc", c"proc", 0, c""),
    (c"tmpfs", c"dev", libc::MS_NOSUID | libc::MS_STRICTATIME, c"mode=755,size=65536k"),
    (
        c"devpts",
        c"dev/pts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    ),
    (
        c"tmpfs",
        c"dev/shm",
        libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV,
        c"mode=1777,size=65536k",
    ),
    (c"mqueue", c"dev/mqueue", libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV, c""),
    (c"sysfs", c"sys", libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV | libc::MS_RDONLY, c""),
];
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];
const READ_ONLY: [&CStr; 5] =
    [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];
const MASKED_FILES: [&CStr; 6] = [
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/proc/sched_debug",
];
const MASKED_DIRECTORIES: [&CStr; 4] =
    [c"/proc/acpi", c"/proc/asound", c"/sys/firmware", c"/proc/scsi"];

/// The program of a device filter: major and minor number against those that every container has.
const FILTER: [[u8; 8]; 15] = [
    instruction(0x61, 0x12, 4, 0), // r2 = major
    instruction(0x61, 0x13, 8, 0), // r3 = minor
    instruction(0xb7, 0, 0, 0),    // r0 = refused
    instruction(0x15, 2, 9, 136),
    instruction(0x55, 2, 5, 1),
    instruction(0x15, 3, 7, 3),
    instruction(0x15, 3, 6, 5),
    instruction(0x15, 3, 5, 7),
    instruction(0x15, 3, 4, 8),
    instruction(0x15, 3, 3, 9),
    instruction(0x55, 2, 3, 5),
    instruction(0x15, 3, 1, 0),
    instruction(0x55, 3, 1, 2),
    instruction(0xb7, 0, 0, 1), // r0 = allowed
    instruction(0x95, 0, 0, 0),
];

const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> [u8; 8] {
    let (offset, value) = (offset.to_le_bytes(), value.to_le_bytes());
    [code, registers, offset[0], offset[1], value[0], value[1], value[2], value[3]]
}

/// Ends the process with the step's name if the call failed.
fn must(step: &str, result: impl TryInto<i64>) -> i64 {
    let result = result.try_into().unwrap_or(-1);
    if result < 0 {
        let text = ["floor: ", step, " failed\n"];
        for part in text {
            // SAFETY: the bytes are alive for the call.
            unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        }
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) };
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    if count < 4 {
        must("usage: floor run ROOTFS PROGRAM... | floor exec PID PROGRAM...: reading it", -1);
    }
    // SAFETY: the kernel gives `count` words and a null after them.
    let (verb, what, program) =
        unsafe { (CStr::from_ptr(*words.add(1)), CStr::from_ptr(*words.add(2)), words.add(3)) };
    if verb == c"exec" { exec(what, program) } else { run(what, program) }
}

fn clone(flags: u64, cgroup: i64) -> i64 {
    // SAFETY: the structure is of numbers alone, for which 0 is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.cgroup = cgroup.unsigned_abs();
    arguments.exit_signal = libc::SIGCHLD as u64;
    let size = size_of::<libc::clone_args>();
    // SAFETY: the arguments are alive for the call; without a stack the child goes on on a copy of ours.
    must("clone3", unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) })
}

fn wait(pid: i64) -> c_int {
    let mut status = 0;
    // SAFETY: the status is alive for the call.
    must("wait4", unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, 0) });
    libc::WEXITSTATUS(status)
}

fn run(rootfs: &CStr, program: *const *const c_char) -> c_int {
    // SAFETY: all strings are literals or words of the command line.
    unsafe {
        must("mkdir of the cgroup", libc::mkdir(CGROUP.as_ptr(), 0o755));
        let cgroup = must(
            "open of the cgroup",
            libc::open(CGROUP.as_ptr(), libc::O_DIRECTORY | libc::O_CLOEXEC),
        );
        filter_devices(cgroup);
        let pid = clone(u64::from(SPACES.unsigned_abs()) | INTO_CGROUP, cgroup);
        if pid == 0 {
            fill(rootfs);
            execute(program);
        }
        let code = wait(pid);
        must("rmdir of the cgroup", libc::rmdir(CGROUP.as_ptr()));
        code
    }
}

/// Attaches the filter to the cgroup.
unsafe fn filter_devices(cgroup: i64) {
    const LOAD: c_long = 5;
    const ATTACH: c_long = 8;
    const DEVICE_PROGRAM: u32 = 15;
    const DEVICE_HOOK: u32 = 6;
    let mut load = [0_u8; 128];
    load[..4].copy_from_slice(&DEVICE_PROGRAM.to_ne_bytes());
    load[4..8].copy_from_slice(&(FILTER.len() as u32).to_ne_bytes());
    load[8..16].copy_from_slice(&(FILTER.as_ptr() as u64).to_ne_bytes());
    load[16..24].copy_from_slice(&(c"MIT".as_ptr() as u64).to_ne_bytes());
    // SAFETY: the attributes and what they point to are alive for the call.
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, LOAD, load.as_ptr(), load.len()) };
    let loaded = must("load of the device filter", loaded);
    let mut attach = [0_u8; 20];
    for (place, value) in [cgroup as u32, loaded as u32, DEVICE_HOOK, 2].into_iter().enumerate() {
        attach[place * 4..][..4].copy_from_slice(&value.to_ne_bytes());
    }
    // SAFETY: the attributes are alive for the call.
    let attached = unsafe { libc::syscall(libc::SYS_bpf, ATTACH, attach.as_ptr(), attach.len()) };
    must("attach of the device filter", attached);
}

unsafe fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> c_int {
    // SAFETY: all of them end with a zero.
    unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    }
}

/// Makes the container around the process.
unsafe fn fill(rootfs: &CStr) {
    // SAFETY: all pointers are to literals, to words of the command line or to what lives here.
    unsafe {
        must("setsid", libc::setsid());
        // Its root is the cgroup that the process is in by now.
        must("unshare of the cgroup", libc::unshare(libc::CLONE_NEWCGROUP));
        must("keyctl", libc::syscall(libc::SYS_keyctl, 1, c"floor".as_ptr()));
        let socket =
            must("socket", libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0));
        let mut link: libc::ifreq = std::mem::zeroed();
        libc::strcpy(link.ifr_name.as_mut_ptr(), c"lo".as_ptr());
        link.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        must("setting lo up", libc::ioctl(socket as c_int, libc::SIOCSIFFLAGS, &raw const link));
        must("mount of /", mount(c"", c"/", c"", libc::MS_REC | libc::MS_SLAVE, c""));
        must("bind of the root", mount(rootfs, rootfs, c"", libc::MS_BIND | libc::MS_REC, c""));
        must("chdir", libc::chdir(rootfs.as_ptr()));
        for (kind, target, flags, data) in &MOUNTS {
            if target.to_bytes().starts_with(b"dev/") {
                must("mkdir", libc::mkdir(target.as_ptr(), 0o755));
            }
            must("mount", mount(kind, target, kind, *flags, data));
        }
        let cgroup = c"sys/fs/cgroup";
        let shut = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
        must("mount of the cgroup", mount(c"cgroup", cgroup, c"cgroup2", shut, c""));
        let locked = shut | READ_ONLY_BIND;
        must("remount of the cgroups", mount(c"", cgroup, c"", locked, c""));
        libc::umask(0);
        for (path, major, minor) in &DEVICES {
            let device = libc::makedev(*major, *minor);
            must("mknod", libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, device));
        }
        for (to, path) in &LINKS {
            must("symlink", libc::symlink(to.as_ptr(), path.as_ptr()));
        }
        let here = c".".as_ptr();
        must("pivot_root", libc::syscall(libc::SYS_pivot_root, here, here));
        must("umount of the host", libc::umount2(here, libc::MNT_DETACH));
        must("remount of the root", mount(c"", c"/", c"", READ_ONLY_BIND, c""));
        must("sethostname", libc::sethostname(c"runtime".as_ptr(), 7));
        for path in &READ_ONLY {
            if mount(path, path, c"", libc::MS_BIND | libc::MS_REC, c"") == 0 {
                must("remount", mount(c"", path, c"", READ_ONLY_BIND, c""));
            }
        }
        for path in &MASKED_FILES {
            mount(c"/dev/null", path, c"", libc::MS_BIND, c"");
        }
        for path in &MASKED_DIRECTORIES {
            mount(c"tmpfs", path, c"tmpfs", libc::MS_RDONLY, c"nr_inodes=1,mode=755");
        }
        confine();
    }
}

const READ_ONLY_BIND: libc::c_ulong = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;

/// Gives up what the configuration does not leave.
unsafe fn confine() {
    // SAFETY: the only pointers are to the two structs here.
    unsafe {
        must("no_new_privs", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        for capability in 0..=LAST_CAPABILITY {
            if capability > 31 || CAPABILITIES & (1 << capability) == 0 {
                must("capability", libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0));
            }
        }
        must("setgroups", libc::syscall(libc::SYS_setgroups, 0, null::<u32>()));
        let header = [0x2008_0522_u32, 0];
        let data = [CAPABILITIES, CAPABILITIES, 0, 0, 0, 0];
        must("capset", libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()));
        libc::umask(0o022);
        must("close_range", libc::syscall(libc::SYS_close_range, 3, u32::MAX, 4));
    }
}

unsafe fn execute(program: *const *const c_char) -> ! {
    let environment = [
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(),
        c"TERM=xterm".as_ptr(),
        null(),
    ];
    // SAFETY: both lists end with a null.
    must("execve", unsafe { libc::execve(*program, program, environment.as_ptr()) });
    // SAFETY: ends the process.
    unsafe { libc::_exit(1) }
}

fn exec(pid: &CStr, program: *const *const c_char) -> c_int {
    // SAFETY: pointers are to literals and to words of the command line.
    unsafe {
        let process =
            must("pidfd_open", libc::syscall(libc::SYS_pidfd_open, libc::atoi(pid.as_ptr()), 0));
        let cgroup = must(
            "open of the cgroup",
            libc::open(CGROUP.as_ptr(), libc::O_DIRECTORY | libc::O_CLOEXEC),
        );
        must("setns", libc::setns(process as c_int, SPACES | libc::CLONE_NEWCGROUP));
        let child = clone(INTO_CGROUP, cgroup);
        if child == 0 {
            must("setsid", libc::setsid());
            must("keyctl", libc::syscall(libc::SYS_keyctl, 1, null_mut::<c_char>()));
            confine();
            execute(program);
        }
        wait(child)
    }
}
