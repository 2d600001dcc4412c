//! Descriptors that our caller has left open for us.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Takes the one of this number, which the caller has found to be inherited.
pub(crate) fn adopt(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: asks for flags, by number.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and no owner of ours has it: all that we open ourselves is close-on-exec,
    // which this one is not.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
