//! Scheduling of CPU, I/O and memory nodes, and the execution domain.

use std::ffi::{c_int, c_ulong};
use std::io;

/// What `sched_setattr` takes in its first version (3.14).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SchedulerAttributes {
    /// Filled in by the call.
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

const SIZE: u32 = 48;
const _: () = assert!(size_of::<SchedulerAttributes>() == SIZE as usize);

/// Sets our own policy.
pub(crate) fn sched_setattr(attributes: &SchedulerAttributes) -> io::Result<()> {
    let attributes = SchedulerAttributes { size: SIZE, ..*attributes };
    // SAFETY: the structure is live, of the kernel's layout and says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) })
}

/// Sets our own I/O class and priority.
pub(crate) fn ioprio_set(priority: c_int) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    // SAFETY: takes three numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) })
}

/// Sets from which nodes our memory comes; one bit per node.
pub(crate) fn set_mempolicy(mode: c_int, nodes: &[c_ulong]) -> io::Result<()> {
    // The kernel takes one off.
    let bits = nodes.len() * c_ulong::BITS as usize + 1;
    // SAFETY: the mask is live and has at least `bits - 1` bits, which is what is read of it.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) })
}

/// Sets our own execution domain.
pub(crate) fn personality(domain: c_ulong) -> io::Result<()> {
    // SAFETY: takes one number.
    let before = unsafe { libc::personality(domain) };
    check(before.min(0).into())
}

/// Sets the CPUs that we may run on, one bit per CPU. The kernel leaves out those that it does not
/// have.
pub(crate) fn sched_setaffinity(cpus: &[c_ulong]) -> io::Result<()> {
    // SAFETY: the mask is live and of the size we name.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr())
    })
}

/// The CPUs that we may run on.
pub(crate) fn sched_getaffinity(cpus: &mut [c_ulong]) -> io::Result<()> {
    // SAFETY: the mask is live, ours to write and of the size we name.
    check(unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(cpus), cpus.as_mut_ptr())
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
