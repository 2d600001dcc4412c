//! The programs as processes: found, started away from us, told apart, ended.

use std::fs::{self, File};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::port::Protocol;

/// How long a program has to go when it is told to.
const PATIENCE_MS: u16 = 2000;
/// As much of a program's complaints as one line should hold.
const MAX_COMPLAINT: u64 = 600;

/// A process, told apart from a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pid: i32,
    /// Since boot, in the kernel's ticks.
    start: u64,
}

impl Identity {
    /// Whoever has this number now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; the state is the first field behind it.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start })
    }

    /// The process whose number the program has written into the directory.
    pub(super) fn of_file(directory: &Path) -> Option<Self> {
        let pid = fs::read_to_string(directory.join("pid")).ok()?.trim().parse().ok()?;
        Self::of(pid)
    }

    pub(super) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends it and waits for that.
    pub(super) fn end(self) -> Result<()> {
        let pid = Pid::from_raw(self.pid).context("the record names no process")?;
        let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(()),
            opened => opened.context("open the process")?,
        };
        // Whoever has the number now is whom the descriptor stands for.
        if !self.is_alive() {
            return Ok(());
        }
        for signal in [Signal::TERM, Signal::KILL] {
            match rustix::process::pidfd_send_signal(&process, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).context("signal the process"),
            }
            let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            if nix::poll::poll(&mut ended, PATIENCE_MS).context("wait for the process")? > 0 {
                return Ok(());
            }
        }
        bail!("process {} does not end", self.pid)
    }
}

/// Where execvp would find it. A hook has no environment.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok())
}

/// The command with nothing of ours open but a file for its complaints: whoever started us waits
/// for the end of what we write.
pub(super) fn command(program: &Path, directory: &Path) -> Result<Command> {
    let log = directory.join("log");
    let log = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(command)
}

/// What the program complained of, as one line.
pub(super) fn complaint(directory: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(directory.join("log"))
        .and_then(|log| log.take(MAX_COMPLAINT).read_to_end(&mut bytes));
    match read {
        Ok(0) => "it does not say why".to_owned(),
        Ok(_) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.lines().map(str::trim).filter(|line| {
                // Old versions complain of every line that no system log took.
                !line.is_empty() && !line.contains("bytes to syslog")
            });
            lines.collect::<Vec<_>>().join("; ")
        }
        Err(error) => format!("and what it says can't be read: {error}"),
    }
}

/// Refuses a port that only root may bind.
pub(super) fn check_port(port: u16) -> Result<()> {
    const FIRST: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let text = fs::read_to_string(FIRST).with_context(|| format!("read {FIRST}"))?;
    let first: u32 = text.trim().parse().with_context(|| format!("read {FIRST}"))?;
    if u32::from(port) < first {
        bail!(
            "port {port} of the host is for root alone: without root there are those from \
             {first} on (sysctl net.ipv4.ip_unprivileged_port_start)"
        );
    }
    Ok(())
}

/// A port that nobody uses at this moment.
pub(super) fn free_port(host_ip: &str, protocol: Protocol) -> Result<u16> {
    let address = (host_ip, 0);
    let port = match protocol {
        Protocol::Udp => UdpSocket::bind(address).and_then(|socket| socket.local_addr()),
        _ => TcpListener::bind(address).and_then(|socket| socket.local_addr()),
    };
    Ok(port.with_context(|| format!("find a free port of {host_ip}"))?.port())
}
