//! Signals by process descriptor, real-time ones included.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sends `signal` to the process that `pidfd` stands for, whatever its number means by now.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor lives during the call; the null siginfo is allowed and means the
    // same as kill(2); no flag is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
