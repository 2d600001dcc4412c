//! A fluent runner: start a program as a user would, wait with a limit, look at what came out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a command may take before the test calls it hung.
const LIMIT: Duration = Duration::from_secs(90);

/// One of our binaries: `$RUNTIME`, `$IMGTOOL`, `$NETSETUP`, else the one built beside this test.
pub(crate) fn binary(name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(name.to_uppercase()) {
        return path.into();
    }
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("a test lies in <profile>/deps");
    let path = profile.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace`", path.display());
    path
}

/// A command being put together.
pub(crate) struct Cmd {
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    terminal: bool,
    kill_after: Option<Duration>,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            words: vec![program.as_ref().to_owned()],
            env: Vec::new(),
            dir: None,
            stdin: Vec::new(),
            terminal: false,
            kill_after: None,
        }
    }

    /// A whole line of plain words: `Cmd::line("ip link add br0 type bridge")`.
    pub(crate) fn line(line: &str) -> Self {
        let mut words = line.split_whitespace();
        Self::new(words.next().expect("a line has a first word")).args(words)
    }

    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// The words so far, for a command that executes them.
    pub(crate) fn into_words(self) -> Vec<OsString> {
        self.words
    }

    /// The words, what is added to the environment and what is on standard input, for who starts
    /// the command otherwise.
    pub(crate) fn into_parts(self) -> (Vec<OsString>, Vec<(OsString, OsString)>, Stdio) {
        if self.stdin.is_empty() {
            return (self.words, self.env, Stdio::null());
        }
        let mut stdin = scratch();
        stdin.write_all(&self.stdin).and_then(|()| stdin.rewind()).expect("write standard input");
        (self.words, self.env, stdin.into())
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Kills it with SIGKILL if it takes longer than this: its code is then 137.
    pub(crate) fn kill_after(mut self, time: Duration) -> Self {
        self.kill_after = Some(time);
        self
    }

    /// The same command as seen from the network namespace at `/run/netns/<name>`.
    pub(crate) fn in_netns(mut self, name: &str) -> Self {
        let enter = ["nsenter", &format!("--net=/run/netns/{name}"), "--"].map(OsString::from);
        self.words = enter.into_iter().chain(self.words).collect();
        self
    }

    /// The same command run by another program.
    pub(crate) fn prefix(mut self, words: &[&str]) -> Self {
        let words = words.iter().map(OsString::from);
        self.words = words.chain(self.words).collect();
        self
    }

    /// Runs it on a terminal of its own, as `script` gives one.
    pub(crate) fn on_terminal(mut self) -> Self {
        let quote =
            |word: &OsString| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
        let line = self.words.iter().map(quote).collect::<Vec<_>>().join(" ");
        self.words = ["script", "-qec", &line, "/dev/null"].map(OsString::from).into();
        self.terminal = true;
        self
    }

    /// Starts it, with its output in `stdout`; the caller ends it.
    pub(crate) fn start(self, stdout: File) -> std::process::Child {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).envs(self.env).stdin(Stdio::null()).stdout(stdout);
        command.spawn().unwrap_or_else(|error| panic!("start {:?}: {error}", self.words))
    }

    /// Runs it to its end. Output goes to files, not pipes: a container left behind by a detached
    /// command holds its stdio open, and must not keep the test waiting.
    pub(crate) fn run(self) -> Outcome {
        let line = self.words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let (mut stdout, mut stderr) = (scratch(), scratch());
        let (stdin, keyboard) = self.open_stdin();
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .envs(self.env)
            .stdin(stdin)
            .stdout(Stdio::from(stdout.try_clone().expect("dup stdout")))
            .stderr(Stdio::from(stderr.try_clone().expect("dup stderr")));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("start {line}: {error}"));
        // Emulation makes a thousand links in minutes; there each test has a limit of its own besides.
        let emulated = std::env::var_os("E2E_VM").is_some();
        let limit = if emulated { 10 * LIMIT } else { LIMIT };
        let (status, late) = wait(child, self.kill_after.unwrap_or(limit));
        assert!(!late || self.kill_after.is_some(), "{line}: hung for {limit:?}");
        drop(keyboard);
        Outcome {
            line,
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: read(&mut stdout),
            stderr: read(&mut stderr),
        }
    }
}

impl Cmd {
    /// A file with what is to be read; for a terminal a pipe whose other end stays open, since
    /// `script` types an end-of-file character as soon as its own input ends.
    fn open_stdin(&self) -> (Stdio, Option<std::io::PipeWriter>) {
        if self.terminal {
            let (reader, mut writer) = std::io::pipe().expect("make a pipe");
            writer.write_all(&self.stdin).expect("type the input");
            return (reader.into(), Some(writer));
        }
        let mut file = scratch();
        file.write_all(&self.stdin).expect("write stdin");
        file.rewind().expect("rewind stdin");
        (file.into(), None)
    }
}

pub(super) fn scratch() -> File {
    tempfile::tempfile().expect("make a scratch file")
}

pub(super) fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind output");
    file.read_to_end(&mut bytes).expect("read output");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How it ended, and whether it took longer than `limit` and was killed for that.
fn wait(mut child: std::process::Child, limit: Duration) -> (ExitStatus, bool) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
    let (done, ended) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            // Fails only when the child is gone meanwhile, which is as good.
            let _ = kill(pid, Signal::SIGKILL);
        }
        late
    });
    let status = child.wait().expect("wait for the command");
    drop(done);
    (status, watch.join().expect("the watch does not panic"))
}

/// How a command ended: its exit code (128 + signal if killed) and all it wrote.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) line: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        let Self { line, stdout, stderr, .. } = &self;
        assert_eq!(self.code, code, "{line}: exit code\nstdout: {stdout}\nstderr: {stderr}");
        self
    }

    /// Failed, with one line on stderr that holds each of `words`.
    #[track_caller]
    pub(crate) fn refused(self, words: &[&str]) -> Self {
        assert_ne!(self.code, 0, "{} should fail\nstdout: {}", self.line, self.stdout);
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 1, "{}: one line on stderr, not:\n{}", self.line, self.stderr);
        for word in words {
            assert!(lines[0].contains(word), "{}: {word:?} in {:?}", self.line, lines[0]);
        }
        self
    }

    #[track_caller]
    pub(crate) fn stdout_has(self, text: &str) -> Self {
        let Self { line, stdout, stderr, .. } = &self;
        assert!(stdout.contains(text), "{line}: {text:?} on stdout:\n{stdout}\nstderr: {stderr}");
        self
    }

    #[track_caller]
    pub(crate) fn stderr_has(self, text: &str) -> Self {
        let Self { line, stderr, .. } = &self;
        assert!(stderr.contains(text), "{line}: {text:?} on stderr:\n{stderr}");
        self
    }

    /// stdout without the last line's end: an id, a path, a digest.
    pub(crate) fn word(&self) -> &str {
        self.stdout.trim_end()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("{}: JSON on stdout: {error}\n{}\n{}", self.line, self.stdout, self.stderr)
        })
    }
}
