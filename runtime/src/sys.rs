//! The system calls that neither nix nor rustix has. This file and its children are the only ones
//! that may say `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

pub(crate) mod bpf;
#[cfg(all(target_env = "gnu", not(any(test, fuzzing))))]
mod entry;
pub(crate) mod inherited;
pub(crate) mod pidfd;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
#[cfg(all(target_arch = "x86_64", not(fuzzing)))]
pub(crate) mod start;

/// What `clone3` gives to the two sides.
pub(crate) enum Cloned {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Which parent the new process gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    Caller,
    /// The caller's own parent.
    Grandparent,
}

/// Forks into new namespaces, and into `cgroup` if given. The child goes on with a copy of our
/// memory: the caller has one thread, so all locks in it are free.
pub(crate) fn clone3(
    namespaces: u64,
    cgroup: Option<BorrowedFd>,
    parent: Parent,
) -> io::Result<Cloned> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD.cast_unsigned() as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD.cast_unsigned().into(),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    if parent == Parent::Grandparent {
        args.flags |= libc::CLONE_PARENT.cast_unsigned() as u64;
        // The kernel takes the signal from the caller's own creation then, and insists on 0 here.
        args.exit_signal = 0;
    }
    // SAFETY: `args` is a live struct of the size we name, its pointers are live or null. Neither
    // CLONE_VM nor a stack is asked for, so the child runs on its own copy of this stack.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<CloneArgs>())
    };
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel has just put a new descriptor there, and nobody else knows of it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a change of attributes reaches the mounts beneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    This,
    Recursive,
}

/// Sets and clears attributes of the mount whose root `mount` is.
pub(crate) fn mount_setattr(
    mount: BorrowedFd,
    depth: Depth,
    set: MountAttrFlags,
    clear: MountAttrFlags,
) -> io::Result<()> {
    let (attr_set, attr_clr) = (set.bits().into(), clear.bits().into());
    mount_setattr_raw(mount, depth, &MountAttr { attr_set, attr_clr, ..MountAttr::default() })
}

/// Changes the propagation type of the mount whose root `mount` is.
pub(crate) fn mount_setattr_propagation(
    mount: BorrowedFd,
    depth: Depth,
    propagation: MountPropagationFlags,
) -> io::Result<()> {
    let propagation = propagation.bits().into();
    mount_setattr_raw(mount, depth, &MountAttr { propagation, ..MountAttr::default() })
}

/// Has files belong to other ids, by the maps of a user namespace (5.12).
pub(crate) fn mount_setattr_idmap(
    mount: BorrowedFd,
    depth: Depth,
    user_namespace: BorrowedFd,
) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let userns_fd = user_namespace.as_raw_fd().cast_unsigned().into();
    mount_setattr_raw(
        mount,
        depth,
        &MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() },
    )
}

/// The kernel's structure.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr_raw(mount: BorrowedFd, depth: Depth, attr: &MountAttr) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a static string, `attr` is live and of the size we name.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check(result)
}

/// Marks every descriptor from `first` on as close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: takes three numbers; descriptors stay open, so no owner is left with a dead one.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result)
}

/// Closes all descriptors from `first` on but these. Only for one who has been cloned and whose
/// copies of the owners of the others are never dropped.
pub(crate) fn close_inherited_but(kept: &[BorrowedFd], first: u32) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    let mut next = first;
    for number in numbers.into_iter().filter(|number| *number >= first) {
        if number > next {
            // SAFETY: takes three numbers; our callers vouch for the owners.
            check(unsafe { libc::syscall(libc::SYS_close_range, next, number - 1, 0) })?;
        }
        next = number + 1;
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_close_range, next, u32::MAX, 0) })
}

/// Lets the program of `command` have none of our descriptors but the standard ones.
pub(crate) fn keep_descriptors_from(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: what runs between fork and exec is one system call that touches no memory.
    unsafe { command.pre_exec(|| close_on_exec_from(3)) };
}

/// Has the program of `command` lead a process group of its own, the one that the terminal on its
/// standard input listens to, if there is one, and start with no signal blocked.
pub(crate) fn lead_a_group(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let lead = || {
        // SAFETY: all of these calls may stand between fork and exec; the set is initialised
        // before its use.
        unsafe {
            check(libc::setpgid(0, 0).into())?;
            // Who is not in the foreground yet is stopped for this change, unless it ignores that.
            // Where there is no terminal to lead the call changes nothing.
            libc::signal(libc::SIGTTOU, libc::SIG_IGN);
            libc::tcsetpgrp(0, libc::getpid());
            libc::signal(libc::SIGTTOU, libc::SIG_DFL);
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut none);
            let set = libc::SIG_SETMASK;
            check(libc::sigprocmask(set, &raw const none, std::ptr::null_mut()).into())
        }
    };
    // SAFETY: as above; no memory is allocated.
    unsafe { command.pre_exec(lead) };
}

/// Sends a signal of any number, real-time ones too.
pub(crate) fn kill(pid: rustix::process::Pid, signal: i32) -> io::Result<()> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) }.into())
}

/// Replaces the session keyring by a new one of this name and lets our user find it.
pub(crate) fn join_session_keyring(name: &std::ffi::CStr) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    const SETPERM: libc::c_long = 5;
    const DESCRIBE: libc::c_long = 6;
    const USER_SEARCH: u32 = 0x0008_0000;
    // SAFETY: the name is a live string ended by NUL.
    let key = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    check(key)?;
    let mut description = [0_u8; 512];
    // SAFETY: the kernel writes no more than the length we name into the live buffer.
    let length = unsafe {
        libc::syscall(libc::SYS_keyctl, DESCRIBE, key, description.as_mut_ptr(), description.len())
    };
    check(length)?;
    // "type;uid;gid;permissions;name"
    let permissions = description
        .split(|&byte| byte == b';')
        .nth(3)
        .and_then(|field| std::str::from_utf8(field).ok())
        .and_then(|field| u32::from_str_radix(field, 16).ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: takes three numbers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, key, permissions | USER_SEARCH) })
}

/// Turns the interface `lo` of our network namespace on.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all of ifreq is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    #[expect(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
    let up = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = up;
    // SAFETY: the request is live and has its name and flags set, which is all that SIOCSIFFLAGS reads.
    check(unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request))
            .into()
    })
}

/// Rust's start-up ignores SIGPIPE and exec keeps what is ignored: undo it, and unblock everything.
pub(crate) fn reset_signals() -> io::Result<()> {
    // SAFETY: the default action runs no code of ours; the set is initialised before its use.
    unsafe {
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()).into())
    }
}

/// Lets the signals that ask for an end do so: the kernel spares the first process of a pid
/// namespace the default action. execve puts that back.
pub(crate) fn end_on_signals() -> io::Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(128 + signal) }
    }
    let handler = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the handler has the signature of one and calls only what a handler may.
        if unsafe { libc::signal(signal, handler) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Joins all of the `namespaces` of the process behind `pidfd` in one step.
pub(crate) fn join_namespaces(pidfd: BorrowedFd, namespaces: u64) -> io::Result<()> {
    let flags = libc::c_int::try_from(namespaces)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: takes two numbers; it changes what we see of the system, not our memory.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), flags) }.into())
}

/// Leaves namespaces for new ones.
pub(crate) fn unshare(namespaces: u64) -> io::Result<()> {
    let flags = libc::c_int::try_from(namespaces)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: only namespace flags are passed by our callers; descriptors and memory stay shared.
    check(unsafe { libc::unshare(flags) }.into())
}

/// Closes a descriptor whose owner is the parent that we were cloned from.
pub(crate) fn close_inherited(descriptor: BorrowedFd) {
    // SAFETY: the owner in our copy of the memory is never dropped: the callers never return. An
    // error can only say that it was closed already.
    unsafe { libc::close(descriptor.as_raw_fd()) };
}

/// Ends the process at once, without the destructors of the side it was cloned from.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: never returns and runs nothing of ours.
    unsafe { libc::_exit(status) }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
