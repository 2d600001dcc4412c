//! The calls that need `unsafe`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

/// Makes host names resolve by `/etc/hosts` and DNS alone, both of which are
/// inside libc. Other modules of nsswitch.conf would be loaded from the host
/// at run time, which a static binary must not do: they bring a second libc.
#[cfg(target_env = "gnu")]
pub(crate) fn resolve_hosts_without_modules() -> std::io::Result<()> {
    unsafe extern "C" {
        fn __nss_configure_lookup(
            database: *const libc::c_char,
            services: *const libc::c_char,
        ) -> libc::c_int;
    }
    // SAFETY: both are constant C strings; libc copies what it keeps of them.
    let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    if failed != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Other C libraries have no modules.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn resolve_hosts_without_modules() -> std::io::Result<()> {
    Ok(())
}

/// How far [`write_back`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBack {
    /// Begun, and not waited for.
    Begin,
    /// Ended.
    End,
}

/// Sends what was written to a part of the file, or from `offset` on if `length` is 0, on its way to the disk. It says
/// nothing of what the disk keeps in a power cut: that takes an fsync, which then finds little to do.
pub(crate) fn write_back(file: &File, offset: u64, length: u64, how: WriteBack) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    let flags = match how {
        WriteBack::Begin => libc::SYNC_FILE_RANGE_WRITE,
        WriteBack::End => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    // SAFETY: a descriptor that is open as long as `file`, and numbers.
    // What fails here, or that a file system can't do, is seen by the fsync.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
}

/// A program to be, in a process that stays in the namespaces we have now: it is executed when
/// we are in others.
pub(crate) struct Held {
    pid: Pid,
    go: io::PipeWriter,
    errors: File,
}

impl Held {
    /// Starts the process. No thread may have been started yet.
    pub(crate) fn start(program: &CStr, words: &[CString]) -> io::Result<Self> {
        let (mut wait, go) = io::pipe()?;
        let (errors, stderr) = io::pipe()?;
        // SAFETY: there is one thread, so no lock is held by one that the child does not have.
        match unsafe { nix::unistd::fork() }? {
            ForkResult::Child => {
                drop(go);
                // If we are gone or gave up, nothing comes.
                if matches!(wait.read(&mut [0]), Ok(1)) {
                    let _ = nix::unistd::dup2_stderr(stderr.as_fd());
                    let _ = nix::unistd::execv(program, words);
                }
                // SAFETY: ends the process, without what our own exit would do a second time.
                unsafe { libc::_exit(127) }
            }
            ForkResult::Parent { child } => {
                let errors = File::from(std::os::fd::OwnedFd::from(errors));
                Ok(Self { pid: child, go, errors })
            }
        }
    }

    /// Has it executed and waits for its end; the error is what it said.
    pub(crate) fn release(mut self) -> Result<(), String> {
        self.go.write_all(b"x").map_err(|error| error.to_string())?;
        let mut said = String::new();
        self.errors.read_to_string(&mut said).map_err(|error| error.to_string())?;
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(status) if said.trim().is_empty() => Err(format!("{status:?}")),
            Ok(_) => Err(said.trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Has the files of a mount belong to other ids, by the maps of a user namespace (5.12).
pub(crate) fn map_mount(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd().cast_unsigned().into(),
    };
    // SAFETY: the path is a constant C string, the structure is the kernel's and of the size given; both
    // outlive the call, which keeps neither.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has `prepare` write the maps of a new user namespace, in which a process of this number waits, and
/// opens it. Nobody lives in it when this returns.
pub(crate) fn user_namespace(prepare: impl FnOnce(Pid) -> io::Result<()>) -> io::Result<File> {
    let (mut ready, mut tell) = io::pipe()?;
    let (mut wait, go) = io::pipe()?;
    // SAFETY: the child makes system calls alone, on descriptors that it has: it takes no lock and
    // allocates nothing.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => {
            drop((ready, go));
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).is_ok() {
                // Until the other end is closed; if ours fails, theirs says why.
                let _ = tell.write_all(b"x").and_then(|()| wait.read(&mut [0]));
            }
            // SAFETY: ends the process, without what our own exit would do a second time.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((tell, wait));
            let made = match ready.read(&mut [0]) {
                Ok(1) => prepare(child).and_then(|()| File::open(format!("/proc/{child}/ns/user"))),
                Ok(_) => Err(io::Error::other("the system allows no further user namespace")),
                Err(error) => Err(error),
            };
            drop(go);
            waitpid(child, None)?;
            made
        }
    }
}

/// Keeps a child from living on without us, from its start until it has arranged for that itself.
pub(crate) struct Alive {
    _ours: io::PipeWriter,
}

/// Makes the process that `command` will be end with the calling thread. It is to be started in a
/// PID namespace of its own, where it finds a `/proc` that shows that namespace; with it ends all
/// else in there.
pub(crate) fn first_of_its_namespace(command: &mut std::process::Command) -> io::Result<Alive> {
    use std::os::unix::process::CommandExt;

    let (theirs, ours) = io::pipe()?;
    let inherited = ours.as_raw_fd();
    let prepare = move || {
        // SAFETY: a plain number, and no pointer.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // We may have died before that: then nobody but this process holds the other end.
        // SAFETY: the descriptor was inherited; nothing in this process uses it.
        unsafe { libc::close(inherited) };
        let mut end = libc::pollfd { fd: theirs.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: `end` is one entry and lives on.
        if unsafe { libc::poll(&raw mut end, 1, 0) } != 0 {
            return Err(io::Error::other("the build is gone"));
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let flags = nix::mount::MsFlags::MS_NOSUID
            | nix::mount::MsFlags::MS_NODEV
            | nix::mount::MsFlags::MS_NOEXEC;
        nix::mount::mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, None::<&CStr>)?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls alone: it takes no lock and allocates
    // nothing, but for the text of an error after which nothing is executed.
    unsafe { command.pre_exec(prepare) };
    Ok(Alive { _ours: ours })
}
