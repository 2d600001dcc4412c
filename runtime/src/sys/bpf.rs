//! bpf(2) for device programs on cgroups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// The kernel's limit of programs on one cgroup.
const MAX_PROGRAMS: usize = 64;

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// Destination in the low half, source in the high half.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// Verifies and loads a program for device accesses.
pub(crate) fn load_device_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let count = u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut load = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        count,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        attach_type: CGROUP_DEVICE,
        ..Load::default()
    };
    // SAFETY: `Load` is the head of the union's member for this command; its pointers lead to
    // `count` instructions and to a C string, both alive during the call.
    let fd = unsafe { bpf(PROG_LOAD, &mut load) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program beside those that are there, or in the place of `replaced`.
pub(crate) fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attach = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, |fd| fd.as_raw_fd()),
    };
    // SAFETY: `Attach` is the union's member for this command and has no pointers.
    unsafe { bpf(PROG_ATTACH, &mut attach) }.map(drop)
}

/// Takes a device program off the cgroup.
pub(crate) fn detach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut detach = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    // SAFETY: `Attach` is the union's member for this command and has no pointers.
    unsafe { bpf(PROG_DETACH, &mut detach) }.map(drop)
}

/// The ids of the device programs on the cgroup itself.
pub(crate) fn device_programs(cgroup: impl AsFd) -> io::Result<Vec<u32>> {
    /// Whole although we read only the count: 6.17 to 7.1 write `revision` whatever size we name.
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        target: RawFd,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
        program_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut query = Query {
        target: cgroup.as_fd().as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
        ..Query::default()
    };
    // SAFETY: `Query` is the union's member for this command; `ids` has room for the 64 numbers
    // that `count` allows, and lives during the call.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

/// The program with this id.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut by_id = ById { id, next_id: 0, open_flags: 0 };
    // SAFETY: `ById` is the union's member for this command and has no pointers.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct Attach {
    target: RawFd,
    program: RawFd,
    attach_type: u32,
    flags: u32,
    replaced: RawFd,
}

/// # Safety
/// `T` must be (the head of) the member of `union bpf_attr` that `command` reads and writes, with
/// valid pointers in it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller vouches for the content; the kernel takes what lies beyond the size we
    // name as zero, and descriptors it returns are close-on-exec.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}
