//! The small effects on the host around a new process: its pipe, pid file, sockets.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::{Console, Stdio};
use crate::cgroup::Cgroup;
use crate::host::Host;
use crate::state::EXEC_FIFO;

/// Descriptors that are to pass through must be there, and be the caller's.
pub(super) fn check_preserved(count: u32) -> Result<()> {
    for number in 3..3_u32.saturating_add(count) {
        if !is_inherited(number)? {
            bail!("unable to preserve fd {number}: it was not passed to us");
        }
    }
    Ok(())
}

/// All that we open ourselves is close-on-exec.
pub(crate) fn is_inherited(number: u32) -> Result<bool> {
    let path = format!("/proc/self/fdinfo/{number}");
    let info = match crate::pseudo::read_to_string(&path) {
        Ok(info) => info,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("read {path}")),
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    let flags = flags.with_context(|| format!("find the flags in {path}"))?;
    Ok(flags & libc::O_CLOEXEC.cast_unsigned() == 0)
}

/// The pipe on which the container's first process waits, as a handle.
pub(super) fn make_fifo(directory: &Path, (uid, gid): (u32, u32)) -> Result<OwnedFd> {
    let path = directory.join(EXEC_FIFO);
    let mode = Mode::from_raw_mode(0o622);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0)
        .with_context(|| format!("mkfifo {}", path.display()))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = rustix::fs::open(&path, flags, Mode::empty())
        .with_context(|| format!("open {}", path.display()))?;
    // mknod subtracts the umask, and root of a user namespace must be able to open it.
    rustix::fs::chmod(&path, mode).with_context(|| format!("chmod {}", path.display()))?;
    if (uid, gid) != (0, 0) {
        match rustix::fs::chown(&path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // Without root it stays ours, and its mode lets the container's root, who is another of our
            // ids, open it all the same.
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {}
            given => given.with_context(|| format!("chown {}", path.display()))?,
        }
    }
    Ok(fifo)
}

/// What the process's descriptors 0, 1 and 2 are as /proc shows it, which is how CRIU names a pipe that
/// comes from outside; nothing if it gets a terminal in their place.
pub(crate) fn external_descriptors(stdio: &Stdio, terminal: bool) -> Vec<String> {
    if terminal {
        return Vec::new();
    }
    let numbers = match stdio {
        Stdio::Inherit => [0, 1, 2],
        Stdio::Fds(fds) => fds.each_ref().map(|fd| fd.as_fd().as_raw_fd()),
    };
    // A descriptor that is closed is none.
    let link = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
    numbers.map(|number| link(number).to_string_lossy().into_owned()).into()
}

/// The socket that takes the terminal, if there is one of each.
pub(crate) fn connect_console(console: &Console, terminal: bool) -> Result<Option<OwnedFd>> {
    match console {
        Console::Socket(path) if terminal => {
            connect(path).context("connect to the console socket").map(Some)
        }
        _ => Ok(None),
    }
}

/// A connection to a socket in the file system.
pub(super) fn connect(path: &Path) -> Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("socket")?;
    let address = SocketAddrUnix::new(path)
        .with_context(|| format!("name of the socket {}", path.display()))?;
    rustix::net::connect(&socket, &address)
        .with_context(|| format!("dial unix {}: connect", path.display()))?;
    Ok(socket)
}

/// Sends one descriptor with its text.
pub(crate) fn send_descriptor(
    socket: BorrowedFd,
    descriptor: BorrowedFd,
    text: &[u8],
) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = rustix::io::retry_on_intr(|| {
        let parts = [IoSlice::new(text)];
        rustix::net::sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)
    })
    .context("send a descriptor")?;
    if sent != text.len() {
        bail!("send a descriptor: only {sent} of {} bytes went", text.len());
    }
    Ok(())
}

/// How likely the kernel is to choose the process when memory runs out.
pub(super) fn set_oom_score(pid: i32, score: Option<i32>, host: &Host) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        // Only the privileged may lower it, and for the rest the container runs as well.
        Err(error) if host.rootless && error.kind() == std::io::ErrorKind::PermissionDenied => {
            Ok(())
        }
        other => other.with_context(|| format!("write {path}")),
    }
}

/// Writes the pid file, which is never seen half written nor through a link.
pub(crate) fn publish(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let name = path.file_name().with_context(|| format!("pid file {}", path.display()))?;
    let temporary = path.with_file_name(format!(".{}", name.display()));
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", temporary.display()));
        }
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .with_context(|| format!("create {}", temporary.display()))?;
    file.write_all(pid.to_string().as_bytes())
        .with_context(|| format!("write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("write {}", path.display()))
}

/// True if the kernel's count for the cgroup says that memory ran out; a count that can't be read
/// leaves the cause open.
pub(crate) fn oom_killed(cgroup: &Cgroup) -> bool {
    let Some(directory) = cgroup.path("memory") else { return false };
    ["memory.events", "memory.oom_control"].iter().any(|name| {
        std::fs::read_to_string(directory.join(name)).is_ok_and(|text| {
            text.lines()
                .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        })
    })
}
