//! Hands a filter's listener to the agent that the profile names: one message with the state of
//! the container and the descriptor beside it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Serialize;
use serde_json::Value;

use crate::plan::seccomp::Listener;

/// Tells the agent of process `pid`, filtered under `fd`. `state` is the container's state as
/// JSON, as hooks get it: `creating` for init, `running` for a process that joins.
pub(crate) fn hand_over(
    listener: &Listener,
    fd: BorrowedFd,
    oci_version: &str,
    pid: i32,
    state: &[u8],
) -> Result<()> {
    let message = ProcessState {
        oci_version,
        fds: ["seccompFd"],
        pid,
        metadata: &listener.metadata,
        state: serde_json::from_slice(state).context("read the state for the seccomp agent")?,
    };
    let message = serde_json::to_vec(&message).context("write the state for the seccomp agent")?;
    let socket = UnixStream::connect(&listener.path)
        .context("failed to connect with seccomp agent specified in the seccomp profile")?;
    send(&socket, &message, fd)
        .with_context(|| format!("cannot send seccomp fd to {}", listener.path))
}

/// The runtime-spec's container process state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    /// What the descriptors of the message are, in their order.
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: Value,
}

/// The agent reads once and takes what it got for the whole, so a part is a failure.
fn send(socket: &UnixStream, message: &[u8], fd: BorrowedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [fd];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let parts = [IoSlice::new(message)];
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket.as_fd(), &parts, &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    ensure!(sent == message.len(), "only {sent} of {} bytes were taken", message.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_agent_gets_the_state_and_a_missing_one_is_named() {
        let directory = std::env::temp_dir().join(format!("agent-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        let listener = Listener { path: path.to_str().unwrap().into(), metadata: "m".into() };
        let state = br#"{"status":"creating"}"#;
        let (end, _other) = UnixStream::pair().unwrap();
        let tell = || hand_over(&listener, end.as_fd(), "1.2.0", 7, state);

        let error = format!("{:#}", tell().unwrap_err());
        assert!(error.starts_with("failed to connect with seccomp agent"), "{error}");

        let agent = UnixListener::bind(&path).unwrap();
        tell().unwrap();
        let mut message = String::new();
        agent.accept().unwrap().0.read_to_string(&mut message).unwrap();
        let message: Value = serde_json::from_str(&message).unwrap();
        let expected = json!({"ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 7,
            "metadata": "m", "state": {"status": "creating"}});
        assert_eq!(message, expected);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
