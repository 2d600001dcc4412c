//! seccomp(2). Unlike seccompiler's call, this one leaves no_new_privs alone: a container may be
//! filtered and have working setuid programs.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_long, c_ulong};
use seccompiler::sock_filter;

/// Puts the calling thread under `program`. With `NEW_LISTENER` in `flags` the kernel answers with
/// the descriptor on which notified calls arrive, close-on-exec.
pub(crate) fn set_filter(program: &[sock_filter], flags: c_ulong) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog =
        libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    let answer = seccomp(flags, &raw const fprog)?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = RawFd::try_from(answer).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows all of `flags`: it looks at them before it reads the program.
pub(crate) fn knows_flags(flags: c_ulong) -> bool {
    // This flag alone is refused for want of the other.
    let needs_listener = flags & libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0;
    let listener = if needs_listener { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    seccomp(flags | listener, ptr::null())
        .is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

fn seccomp(flags: c_ulong, program: *const libc::sock_fprog) -> io::Result<c_long> {
    // SAFETY: the kernel only reads `program`, which is null or points to a program that lives
    // until the call returns; seccompiler's sock_filter has the kernel's layout (repr(C)).
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
