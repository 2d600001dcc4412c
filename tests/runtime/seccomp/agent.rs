//! An agent that decides for the kernel, as a supervisor of containers would: it is handed a
//! filter's listener over a socket and answers the calls that arrive there.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

/// A thread that serves as many filters as it was told to expect.
pub(in crate::runtime) struct Agent(JoinHandle<Vec<JoinHandle<Session>>>);

/// What an agent lived through with one filter.
pub(in crate::runtime) struct Session {
    /// The message that the listener came with.
    pub(in crate::runtime) told: Value,
    /// The numbers of the calls it was asked about.
    pub(in crate::runtime) asked: Vec<i64>,
}

impl Agent {
    pub(in crate::runtime) fn listen(path: &Path, filters: usize) -> Self {
        let socket = UnixListener::bind(path).expect("bind the agent's socket");
        Self(std::thread::spawn(move || {
            let serve = |_| {
                let (stream, _) = socket.accept().expect("accept a runtime");
                let (told, listener) = receive(&stream);
                std::thread::spawn(move || Session { told, asked: answer_all(&listener) })
            };
            (0..filters).map(serve).collect()
        }))
    }

    /// Waits until all the expected filters have come and their last processes have gone.
    pub(in crate::runtime) fn sessions(self) -> Vec<Session> {
        let threads = self.0.join().expect("the agent does not panic");
        threads.into_iter().map(|thread| thread.join().expect("a session ends well")).collect()
    }
}

/// One message: JSON, and the listener beside it.
fn receive(stream: &UnixStream) -> (Value, OwnedFd) {
    let mut text = [0; 16 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let received = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC);
    let length = received.expect("receive a message").bytes;
    let listener = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let told = serde_json::from_slice(&text[..length]).expect("the message is JSON");
    (told, listener.expect("a listener came along"))
}

/// Answers until nobody is left under the filter: `mkdir` with an error that no kernel gives for
/// it, all else by letting the kernel do it.
fn answer_all(listener: &OwnedFd) -> Vec<i64> {
    let mut asked = Vec::new();
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut fds, None).expect("poll the listener");
        if !fds[0].revents().contains(PollFlags::IN) {
            return asked;
        }
        let call = match ioctl::next_call(listener.as_raw_fd()) {
            // The caller was killed meanwhile.
            Err(Errno::ENOENT | Errno::EINTR) => continue,
            other => other.expect("receive a call"),
        };
        let number = i64::from(call.data.nr);
        asked.push(number);
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
        if number == libc::SYS_mkdir {
            response.error = -libc::ENOMEDIUM;
        } else {
            response.flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("a bit");
        }
        match ioctl::respond(listener.as_raw_fd(), &response) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => panic!("answer a call: {error}"),
        }
    }
}

#[allow(unsafe_code)]
mod ioctl {
    use std::os::fd::RawFd;

    use nix::errno::Errno;

    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);

    /// The call that waits longest.
    pub(super) fn next_call(listener: RawFd) -> Result<libc::seccomp_notif, Errno> {
        // SAFETY: the type is plain numbers, for all of which zero is a value; the kernel insists
        // on zeros and fills it in within the call.
        unsafe {
            let mut call = std::mem::zeroed();
            receive(listener, &raw mut call)?;
            Ok(call)
        }
    }

    pub(super) fn respond(
        listener: RawFd,
        response: &libc::seccomp_notif_resp,
    ) -> Result<(), Errno> {
        let mut response = *response;
        // SAFETY: the kernel only reads the response, which lives until the call returns.
        unsafe { send(listener, &raw mut response) }.map(drop)
    }
}
