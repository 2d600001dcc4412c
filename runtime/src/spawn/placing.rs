//! Forking straight into a cgroup (5.7), which spares the wait that a move costs.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::{self, Cloned, Parent};

/// A process that has just been forked.
pub(super) struct Forked {
    /// Which of the two we are.
    pub(super) cloned: Cloned,
    /// False if it still has to be moved into its cgroup.
    pub(super) placed: bool,
}

/// Forks into `cgroup`, if there is one. Where the kernel or the cgroup does not take a newborn,
/// it stays with us: a move, which comes then, has retries, exceptions for the unprivileged, and
/// errors that name the file.
pub(super) fn fork(namespaces: u64, cgroup: Option<BorrowedFd>) -> io::Result<Forked> {
    match sys::clone3(namespaces, cgroup, Parent::Caller) {
        Err(error) if cgroup.is_some() && concerns_cgroup(&error) => {
            let cloned = sys::clone3(namespaces, None, Parent::Caller)?;
            Ok(Forked { cloned, placed: false })
        }
        other => Ok(Forked { cloned: other?, placed: cgroup.is_some() }),
    }
}

/// Some of these may have another cause too: then the second try tells.
fn concerns_cgroup(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EACCES
                | libc::EPERM
                | libc::EBUSY
                | libc::EOPNOTSUPP
                | libc::ENODEV
                | libc::E2BIG
                | libc::EINVAL
        )
    )
}
