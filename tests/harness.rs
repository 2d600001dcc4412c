//! What every end-to-end test stands on: commands run as a user would, a scene of its own for each
//! test, and the proof that the host is afterwards what it was before.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) mod bundle;
pub(crate) mod cni;
pub(crate) mod command;
pub(crate) mod containerd;
pub(crate) mod cri;
pub(crate) mod daemon;
pub(crate) mod disk;
pub(crate) mod docker;
pub(crate) mod host;
pub(crate) mod hostile;
pub(crate) mod image;
pub(crate) mod netns;
pub(crate) mod ordinary;
pub(crate) mod podman;
pub(crate) mod pty;
pub(crate) mod registry;
pub(crate) mod requires;
pub(crate) mod scene;
pub(crate) mod tarball;
pub(crate) mod token;
pub(crate) mod tracer;
pub(crate) mod tree;
pub(crate) mod unified;
pub(crate) mod web;
pub(crate) mod witness;

pub(crate) use bundle::Bundle;
pub(crate) use command::{Cmd, Outcome};
pub(crate) use ordinary::{Ordinary, Subids};
pub(crate) use scene::{Scene, scene};
pub(crate) use unified::Unified;
pub(crate) use witness::Witness;

/// Waits for the end of a process that is not a child of the test.
pub(crate) fn wait_for_exit(pid: i32) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    let pid = Pid::from_raw(pid).expect("a pid is positive");
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return,
        other => other.expect("open a pidfd"),
    };
    let limit = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&limit)).expect("poll a pidfd"), 1, "{pid:?} lives on");
}

/// Asks again and again for what nothing tells of, for 30 seconds at most; gives the last answer.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = holds();
        if answer || Instant::now() > patience {
            return answer;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The descriptor that comes over a console socket, as a file.
pub(crate) fn receive_descriptor(stream: &UnixStream) -> File {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 256];
    let mut parts = [std::io::IoSliceMut::new(&mut text)];
    recvmsg(stream, &mut parts, &mut control, RecvFlags::empty()).expect("receive a message");
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.expect("a descriptor came along").into()
}
