//! A daemon of the test's own, in namespaces of its own: it says when it is ready as it would tell
//! systemd, and ends with the scene.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::Cmd;

pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts `program` and waits until it is ready. `unshare` are the namespaces besides a mount
    /// namespace that it gets; what it prints goes to `<dir>/log`.
    pub(crate) fn start(dir: &Path, unshare: &[&str], program: &str, words: &[String]) -> Self {
        fs::create_dir_all(dir).expect("make the daemon's directory");
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind a socket for the daemon's word");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("limit the wait");
        let log = File::create(dir.join("log")).expect("make the daemon's log");
        // A test that is killed takes its daemons along.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"])
            .args(unshare)
            .args(["--", program])
            .args(words)
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup the log"))
            .stderr(log)
            .spawn()
            .expect("start the daemon");
        let daemon = Self { child };
        let mut word = [0; 256];
        let ready = socket.recv(&mut word);
        let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        let length = ready.unwrap_or_else(|error| panic!("{program}: {error}\n{}", log()));
        assert!(word[..length].starts_with(b"READY=1"), "{program} is not ready:\n{}", log());
        daemon
    }

    /// A mount namespace that stays until it is dropped, for commands that mount without a daemon.
    pub(crate) fn holding_mounts() -> Self {
        let hold = "echo held; exec sleep infinity";
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
            .args(["--", "sh", "-c", hold])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("hold a mount namespace");
        let mut word = [0; 5];
        let mut stdout = child.stdout.take().expect("its stdout is a pipe");
        std::io::Read::read_exact(&mut stdout, &mut word).expect("wait for the namespace");
        Self { child }
    }

    /// `words`, run where this daemon sees its mounts.
    pub(crate) fn inside(&self, program: &str) -> Cmd {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.child.id());
        Cmd::new("nsenter").args([&namespace, "--", program])
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        // These fail only when it is gone already; one that does not end in time is made to.
        let _ = kill(pid, Signal::SIGTERM);
        let pidfd = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pidfd, rustix::process::PidfdFlags::empty());
        if let Ok(pidfd) = pidfd {
            let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cgroup below which an engine makes its containers': it stays empty and goes with this value,
/// so that a container's cgroup left behind is seen.
pub(crate) struct CgroupParent(String);

impl CgroupParent {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// As engines want it: absolute.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.0)
    }
}

impl Drop for CgroupParent {
    fn drop(&mut self) {
        let top = PathBuf::from("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(&top).into_iter().flatten().flatten().map(|e| e.path());
        for hierarchy in hierarchies.chain([top.clone()]) {
            // BuildKit has a parent of its own below; each exists in some hierarchies only. What
            // holds a container's cgroup stays, and the scene tells.
            let _ = fs::remove_dir(hierarchy.join(&self.0).join("buildkit"));
            let _ = fs::remove_dir(hierarchy.join(&self.0));
        }
    }
}
