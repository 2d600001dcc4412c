//! The terminal, taken from the container's own devpts and never by the path of its other side
//! (CVE-2025-52565).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::pty::OpenptFlags;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use rustix::termios::Winsize;

use super::devices::{empty_file, open_dev};
use super::mounts::{attach, clone_handle};
use super::rootfs::verified_null;
use crate::procfs::Procfs;
use crate::rooted::Root;

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Both sides of a terminal.
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Opens a terminal of the devpts mounted at `devpts`, or else of that at /dev/pts.
pub(crate) fn open(
    root: &Root,
    devpts: Option<BorrowedFd>,
    size: Option<(u16, u16)>,
) -> Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = match devpts {
        Some(devpts) => rustix::fs::openat(devpts, "ptmx", flags, Mode::empty()),
        None => root.open(Path::new("dev/pts/ptmx"), flags),
    }
    .context("open /dev/pts/ptmx")?;
    let kind = rustix::fs::fstatfs(&master).context("fstatfs /dev/pts/ptmx")?.f_type;
    if u64::try_from(kind).ok() != Some(DEVPTS_SUPER_MAGIC) {
        bail!("/dev/pts/ptmx of the container is no terminal");
    }
    rustix::pty::unlockpt(&master).context("unlock the terminal")?;
    let slave_flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, slave_flags)
        .context("open the terminal's other side")?;
    if let Some((height, width)) = size {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).context("set the terminal's size")?;
    }
    Ok(Terminal { master, slave })
}

/// Binds the terminal onto /dev/console.
pub(crate) fn bind_console(root: &Root, terminal: &Terminal) -> Result<()> {
    let dev = open_dev(root)?;
    let target = empty_file(dev.as_fd(), Path::new("console"))?;
    let console = clone_handle(terminal.slave.as_fd()).context("clone the terminal's mount")?;
    attach(console.as_fd(), target.as_fd()).context("bind /dev/console")
}

/// Makes the terminal our controlling one and our standard streams.
pub(crate) fn take(terminal: Terminal, uid: u32) -> Result<OwnedFd> {
    // The kernel gave it the group of the devpts, which stays.
    let owner = Some(rustix::fs::Uid::from_raw(uid));
    rustix::fs::fchown(&terminal.slave, owner, None).context("chown the terminal")?;
    rustix::process::ioctl_tiocsctty(&terminal.slave).context("set the controlling terminal")?;
    use_as_stdio([terminal.slave.as_fd(), terminal.slave.as_fd(), terminal.slave.as_fd()])?;
    Ok(terminal.master)
}

/// Standard streams that are the host's /dev/null become the container's: what it has open is to lie
/// in its own mounts, or it could not be saved.
pub(crate) fn own_null(root: &Root, procfs: &Procfs) -> Result<()> {
    let mut null = None;
    for (number, stream) in (0..).zip([stdin(), stdout(), stderr()]) {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        if !is_null(&stat) {
            continue;
        }
        let own = match &null {
            Some(own) => own,
            None => {
                let handle = verified_null(root)?;
                null.insert(procfs.descriptors()?.reopen(handle.as_fd(), OFlags::RDWR)?)
            }
        };
        match number {
            0 => dup2_stdin(own),
            1 => dup2_stdout(own),
            _ => dup2_stderr(own),
        }
        .context("replace a standard stream by the container's /dev/null")?;
    }
    Ok(())
}

/// Whether it is the device that swallows everything.
pub(crate) fn is_null(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3)
}

/// Puts the three onto descriptors 0, 1 and 2.
pub(crate) fn use_as_stdio(streams: [BorrowedFd; 3]) -> Result<()> {
    let [stdin, stdout, stderr] = streams;
    dup2_stdin(stdin).context("replace stdin")?;
    dup2_stdout(stdout).context("replace stdout")?;
    dup2_stderr(stderr).context("replace stderr")
}
