//! Runs one list of hooks: the state document on stdin, exactly the hook's environment, a time
//! limit by poll, and an error that says which hook failed and what it printed.

use std::ffi::{CString, OsStr};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Hook;

use crate::{signals, sys};

/// What is kept of a hook's output for the error message; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// Runs the hooks called `name` in order and stops at the first that fails.
pub(crate) fn run(name: &str, hooks: &[Hook], state: &[u8], directory: &Path) -> Result<()> {
    run_with(name, hooks, state, directory, &[])
}

/// The same for hooks that get `environment` where they have none of their own.
pub(crate) fn run_with(
    name: &str,
    hooks: &[Hook],
    state: &[u8],
    directory: &Path,
    environment: &[CString],
) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, directory, environment)
            .with_context(|| format!("error running {name} hook #{index}"))?;
    }
    Ok(())
}

/// Runs all the hooks called `name`, whatever becomes of each, and returns what went wrong.
pub(crate) fn run_all(
    name: &str,
    hooks: &[Hook],
    state: &[u8],
    directory: &Path,
) -> Vec<anyhow::Error> {
    let outcome = |(index, hook)| {
        run_one(hook, state, directory, &[])
            .with_context(|| format!("error running {name} hook #{index}"))
            .err()
    };
    hooks.iter().enumerate().filter_map(outcome).collect()
}

fn run_one(hook: &Hook, state: &[u8], directory: &Path, environment: &[CString]) -> Result<()> {
    let mut child = command(hook, directory, environment)
        .spawn()
        .map_err(|error| anyhow!(error).context(format!("fork/exec {}", hook.path().display())))?;
    let limit = hook.timeout().map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
    let mut talk = match Talk::new(&mut child, state) {
        Ok(talk) => talk,
        Err(error) => return Err(kill(&mut child, error)),
    };
    let pid = rustix::process::Pid::from_child(&child);
    let watched = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .context("pidfd_open of the hook")
        .and_then(|pidfd| talk.until_exit(&pidfd, limit));
    if let Err(error) = watched {
        return Err(kill(&mut child, error));
    }
    let status = child.wait().context("wait for the hook")?;
    if status.success() {
        return Ok(());
    }
    bail!("{}, stdout: {}, stderr: {}", exit_text(status), talk.out.text(), talk.err.text())
}

fn command(hook: &Hook, directory: &Path, environment: &[CString]) -> Command {
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    let own = hook.env().as_deref().unwrap_or_default();
    for entry in own {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(key, value);
    }
    if own.is_empty() {
        let pairs = environment.iter().filter_map(|entry| {
            let entry = entry.to_bytes();
            let (key, value) = entry.split_at(entry.iter().position(|&byte| byte == b'=')?);
            Some((OsStr::from_bytes(key), OsStr::from_bytes(&value[1..])))
        });
        command.envs(pairs);
    }
    command
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Those that our caller left open for us or for the container are not for hooks.
    sys::keep_descriptors_from(&mut command);
    command
}

fn kill(child: &mut Child, error: anyhow::Error) -> anyhow::Error {
    match child.kill().and_then(|()| child.wait()) {
        Ok(_) => error,
        Err(also) => error.context(format!("kill the hook: {also}")),
    }
}

fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signals::description(signal)),
        (None, None) => "no exit status".to_owned(),
    }
}

/// The three pipes of a running hook.
struct Talk<'a> {
    stdin: Option<ChildStdin>,
    state: &'a [u8],
    out: Output<ChildStdout>,
    err: Output<ChildStderr>,
}

impl<'a> Talk<'a> {
    fn new(child: &mut Child, state: &'a [u8]) -> Result<Self> {
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            nonblocking(stdin.as_fd())?;
        }
        let out = Output::new(child.stdout.take())?;
        let err = Output::new(child.stderr.take())?;
        Ok(Talk { stdin, state, out, err })
    }

    /// Serves the pipes until the hook is dead; what it left in them is read then, without
    /// waiting for a daemon that it may have left behind with the other ends.
    fn until_exit(&mut self, pidfd: &OwnedFd, limit: Option<Duration>) -> Result<()> {
        let deadline = limit.map(|limit| (limit, Instant::now() + limit));
        loop {
            let timeout = match deadline {
                None => PollTimeout::NONE,
                Some((limit, end)) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        bail!("hook ran past specified timeout of {:.1}s", limit.as_secs_f64());
                    }
                    let millis = left.as_millis().saturating_add(1);
                    PollTimeout::try_from(millis.min(1 << 30)).unwrap_or(PollTimeout::MAX)
                }
            };
            let exited = self.wait(pidfd.as_fd(), timeout)?;
            self.feed()?;
            self.out.drain()?;
            self.err.drain()?;
            if exited {
                return Ok(());
            }
        }
    }

    fn wait(&self, pidfd: BorrowedFd, timeout: PollTimeout) -> Result<bool> {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::POLLIN)];
        if let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        for pipe in [self.out.fd(), self.err.fd()].into_iter().flatten() {
            fds.push(PollFd::new(pipe, PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds[0].any().unwrap_or(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error).context("poll the hook"),
        }
    }

    /// A hook need not read the state: a closed pipe is no error.
    fn feed(&mut self) -> Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        while !self.state.is_empty() {
            match stdin.write(self.state) {
                Ok(count) => self.state = &self.state[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error).context("write the state to the hook"),
            }
        }
        self.stdin = None;
        Ok(())
    }
}

struct Output<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
}

impl<R: Read + AsFd> Output<R> {
    fn new(pipe: Option<R>) -> Result<Self> {
        if let Some(pipe) = &pipe {
            nonblocking(pipe.as_fd())?;
        }
        Ok(Output { pipe, kept: Vec::new() })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = OUTPUT_LIMIT.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read the hook's output"),
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

fn nonblocking(fd: BorrowedFd) -> Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).context("F_GETFL")?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).context("F_SETFL")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn shell(script: &str) -> HookBuilder {
        let args = ["sh", "-c", script].map(str::to_owned);
        HookBuilder::default().path("/bin/sh").args(args)
    }

    fn run_script(script: &str, state: &[u8]) -> Result<()> {
        run("test", &[shell(script).build().unwrap()], state, Path::new("/"))
    }

    #[test]
    fn the_state_arrives_whole_even_when_larger_than_a_pipe() {
        let state = vec![b'x'; 300_000];
        run_script("test $(/usr/bin/wc -c) = 300000", &state).unwrap();
    }

    #[test]
    fn a_hook_that_does_not_read_is_no_error() {
        run_script("exit 0", &vec![b'x'; 300_000]).unwrap();
    }

    #[test]
    fn a_failing_hook_is_named_with_what_it_printed() {
        let hooks = [
            shell("exit 0").build().unwrap(),
            shell("echo a; echo b >&2; exit 3").build().unwrap(),
        ];
        let error = run("createRuntime", &hooks, b"{}", Path::new("/")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "error running createRuntime hook #1: exit status 3, stdout: a\n, stderr: b\n"
        );
    }

    #[test]
    fn the_environment_is_the_hooks_alone() {
        let hook = shell("test \"$A\" = 1 && test -z \"$HOME\"").env(["A=1".to_owned()]);
        run("test", &[hook.build().unwrap()], b"{}", Path::new("/")).unwrap();
    }

    #[test]
    fn a_hook_past_its_timeout_is_killed() {
        let hook = shell("exec sleep 100").env(["PATH=/bin".to_owned()]).timeout(1);
        let error = run("poststop", &[hook.build().unwrap()], b"{}", Path::new("/")).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("hook ran past specified timeout of 1.0s"), "{text}");
    }
}
