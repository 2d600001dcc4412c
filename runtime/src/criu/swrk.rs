//! The process `criu swrk FD`: started for one request, spoken to, and waited for.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    Shutdown, SocketFlags, SocketType,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::rpc::{self, Answer, Feature, Kind};
use crate::channel::{Channel, Message};
use crate::sys::{self, Cloned, Parent};

/// No message of CRIU's comes near to it.
const MAX_MESSAGE: usize = 64 * 1024;

/// Its descriptors 0, 1 and 2, which a restored container may take over.
pub(super) enum Streams<'a> {
    Null,
    /// Ours, as they are.
    Inherited,
    Given([BorrowedFd<'a>; 3]),
}

/// How it is to be started.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) streams: Streams<'a>,
    /// Open in its process too, under the same numbers.
    pub(super) kept: &'a [OwnedFd],
    /// `CLONE_NEW*`
    pub(super) namespaces: u64,
    /// What is done in its process first.
    pub(super) before: &'a dyn Fn() -> Result<()>,
}

impl<'a> Launch<'a> {
    pub(super) fn plain(program: &'a Path) -> Self {
        Launch { program, streams: Streams::Null, kept: &[], namespaces: 0, before: &|| Ok(()) }
    }

    /// Starts it; what goes wrong before it runs is told here.
    pub(super) fn start(&self) -> Result<Swrk> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("socketpair")?;
        let (listen, report) = Channel::pair()?;
        let cloned = sys::clone3(self.namespaces, None, Parent::Caller);
        let swrk = match cloned.context("clone3")? {
            Cloned::Child => {
                drop((ours, listen));
                let error = self.become_criu(&theirs);
                // Whoever would read it is gone if it can't be sent.
                let _ = report.send(&Message::Failed(crate::error::render(&error)));
                sys::exit_now(1)
            }
            Cloned::Parent { pid, pidfd } => {
                Swrk { pid, process: Process { pidfd, waited: false }, socket: ours }
            }
        };
        drop((theirs, report));
        match listen.receive()? {
            // Closed by execve.
            None => Ok(swrk),
            Some(Message::Failed(text)) => bail!(text),
            Some(other) => bail!("unexpected message {other:?}"),
        }
    }

    /// Comes back only with what went wrong.
    fn become_criu(&self, socket: &OwnedFd) -> Error {
        self.prepare(socket).map_or_else(
            |error| error,
            |mut command| {
                anyhow!(command.exec()).context(format!("exec {}", self.program.display()))
            },
        )
    }

    fn prepare(&self, socket: &OwnedFd) -> Result<Command> {
        (self.before)()?;
        let mut command = Command::new(self.program);
        command.arg("swrk").arg(socket.as_raw_fd().to_string());
        match &self.streams {
            Streams::Null => {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            }
            Streams::Inherited => {}
            Streams::Given([stdin, stdout, stderr]) => {
                let copy = |fd: &BorrowedFd| fd.try_clone_to_owned().context("dup");
                command.stdin(copy(stdin)?).stdout(copy(stdout)?).stderr(copy(stderr)?);
            }
        }
        // What our caller left open for others is not for CRIU, nor for what it restores.
        sys::close_on_exec_from(3).context("close_range")?;
        for descriptor in self.kept.iter().chain([socket]) {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).context("F_SETFD")?;
        }
        sys::reset_signals().context("reset the signals")?;
        Ok(command)
    }
}

/// Ended with us, if not waited for.
struct Process {
    pidfd: OwnedFd,
    waited: bool,
}

impl Process {
    fn wait(&mut self) -> Result<Option<WaitIdStatus>> {
        self.waited = true;
        rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        })
        .context("wait for criu")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.waited {
            // Fails only if it has ended already.
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _ = self.wait();
        }
    }
}

/// CRIU's own failure.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failed {
    pub(super) text: String,
    /// In CRIU's words; older ones tell it to their log only.
    pub(super) reason: String,
}

/// A step of its work, at which CRIU waits for us.
pub(super) struct Step<'a> {
    pub(super) name: &'a str,
    /// The process that it is about.
    pub(super) pid: Option<i32>,
    pub(super) descriptor: Option<OwnedFd>,
}

/// The running process and the line to it.
pub(super) struct Swrk {
    pub(super) pid: i32,
    process: Process,
    socket: OwnedFd,
}

impl Swrk {
    /// Sends the request and serves what it leads to. `on_step` is told of each step.
    pub(super) fn converse(
        &mut self,
        kind: Kind,
        request: &[u8],
        on_step: &mut dyn FnMut(Step) -> Result<()>,
    ) -> Result<Answer> {
        self.send(request)?;
        loop {
            let Some((answer, descriptor)) = self.receive()? else {
                let text = format!("criu ended without an answer: {}", self.end()?);
                return Err(Failed { text, reason: String::new() }.into());
            };
            if answer.kind == Some(Kind::Notify) {
                let step = Step { name: &answer.step, pid: answer.pid, descriptor };
                crate::log::debug(format_args!("notify: {}", step.name));
                if let Err(error) = on_step(step) {
                    self.refuse()?;
                    return Err(error);
                }
                self.send(&rpc::notified(true))?;
                continue;
            }
            if !answer.success {
                let text = format!("criu failed: type {} errno {}", kind.name(), answer.errno);
                self.process.wait()?;
                let reason = answer.message.trim().to_owned();
                return Err(Failed { text, reason }.into());
            }
            if answer.kind != Some(kind) {
                bail!("criu answers something else than {}", kind.name());
            }
            self.finish(kind)?;
            return Ok(answer);
        }
    }

    /// Stops its work at this step. It undoes what it has done, and tells of further steps meanwhile.
    fn refuse(&mut self) -> Result<()> {
        self.send(&rpc::notified(false))?;
        while let Some((answer, _)) = self.receive()? {
            if answer.kind != Some(Kind::Notify) {
                break;
            }
            self.send(&rpc::notified(true))?;
        }
        self.process.wait().map(drop)
    }

    /// After a pre-dump it would wait for the next one, and takes it for a failure that none comes.
    fn finish(&mut self, kind: Kind) -> Result<()> {
        rustix::net::shutdown(&self.socket, Shutdown::Write).context("shutdown")?;
        let status = self.process.wait()?;
        let code = status.and_then(|status| status.exit_status());
        if code != Some(0) && kind != Kind::PreDump {
            let text = format!("criu failed: {}", describe(status));
            return Err(Failed { text, reason: String::new() }.into());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<String> {
        Ok(describe(self.process.wait()?))
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        let sent = rustix::io::retry_on_intr(|| {
            let parts = [IoSlice::new(message)];
            let mut none = rustix::net::SendAncillaryBuffer::default();
            rustix::net::sendmsg(&self.socket, &parts, &mut none, SendFlags::NOSIGNAL)
        });
        match sent {
            Ok(_) => Ok(()),
            // What it said before it went may still be there to be read.
            Err(rustix::io::Errno::PIPE) => Ok(()),
            Err(error) => Err(error).context("send a message to criu"),
        }
    }

    /// `None` at the end.
    fn receive(&self) -> Result<Option<(Answer, Option<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            rustix::net::recvmsg(&self.socket, &mut parts, &mut ancillary, flags)
        });
        let received = match received {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other.context("receive a message from criu")?,
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            bail!("a message of criu's is longer than {MAX_MESSAGE} bytes");
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let answer = Answer::parse(&bytes[..received.bytes]).context("read a message of criu's")?;
        Ok(Some((answer, descriptor)))
    }
}

fn describe(status: Option<WaitIdStatus>) -> String {
    let code = status.as_ref().and_then(WaitIdStatus::exit_status);
    let signal = status.as_ref().and_then(WaitIdStatus::terminating_signal);
    match (code, signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            format!("signal: {}", crate::signals::description(signal))
        }
        (None, None) => "no exit status".to_owned(),
    }
}

/// Asks an installed CRIU for its version.
pub(super) fn version(program: &Path) -> Result<u32> {
    let request = rpc::request(Kind::Version);
    let answer = ask(program, Kind::Version, &request)?;
    answer.version.context("criu does not tell its version")
}

/// Fails unless CRIU and the kernel can do it.
pub(super) fn require(program: &Path, feature: Feature) -> Result<()> {
    let request = rpc::feature_request(feature);
    let answer = ask(program, Kind::FeatureCheck, &request).context("CRIU feature check failed")?;
    if !answer.has(feature) {
        bail!("criu is missing features: [{}]", feature.name());
    }
    Ok(())
}

fn ask(program: &Path, kind: Kind, request: &[u8]) -> Result<Answer> {
    let mut swrk = Launch::plain(program).start()?;
    swrk.converse(kind, request, &mut |_| Ok(()))
}
