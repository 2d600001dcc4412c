//! What answers each line with how many there were: a container, or a connection to one.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::runtime::Subject;

/// For one answer, in seconds: far more than it takes, under emulation too.
const LIMIT: i64 = 60;

pub(super) struct Counter {
    stdin: File,
    stdout: BufReader<File>,
}

impl Counter {
    /// Starts a detached container by `run` or `restore`, on pipes: standard streams that are files
    /// of the host's, as a test's are, could not be saved.
    #[track_caller]
    pub(super) fn start(it: &Subject, words: &[&str]) -> Self {
        let (theirs, stdin) = std::io::pipe().expect("make a pipe");
        let (stdout, out) = std::io::pipe().expect("make a pipe");
        // Held by the container as long as it lives, so it is the same pipe.
        let (mut stderr, err) = std::io::pipe().expect("make a pipe");
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "120"]).arg(&it.program).args(words);
        command.stdin(theirs).stdout(out).stderr(err);
        let status = command.status().expect("start the runtime");
        drop(command);
        if !status.success() {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("read stderr");
            panic!("{words:?}: {status}: {text}");
        }
        Counter { stdin: OwnedFd::from(stdin).into(), stdout: reader(stdout) }
    }

    /// The one at the other end of a connection or of a terminal.
    pub(super) fn beyond(line: impl Into<OwnedFd>) -> Self {
        let stdin = File::from(line.into());
        let stdout = reader(stdin.try_clone().expect("dup"));
        Counter { stdin, stdout }
    }

    /// What it says; the test fails if that takes too long.
    #[track_caller]
    pub(super) fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            if self.stdout.buffer().is_empty() {
                assert!(self.has_answer(LIMIT), "no answer within {LIMIT} seconds");
            }
            let mut byte = [0];
            self.stdout.read_exact(&mut byte).expect("read a line");
            line.extend(byte);
        }
        String::from_utf8(line).expect("a line is text").trim_end().to_owned()
    }

    /// Whether there is something to read, at the latest after so many seconds.
    pub(super) fn has_answer(&self, seconds: i64) -> bool {
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let mut fds = [PollFd::new(self.stdout.get_ref(), PollFlags::IN)];
        poll(&mut fds, Some(&limit)).expect("poll") == 1
    }

    pub(super) fn send(&mut self) {
        self.stdin.write_all(b"\n").expect("write a line");
    }

    /// The answer to one more line.
    #[track_caller]
    pub(super) fn next(&mut self) -> u32 {
        self.send();
        let line = self.line();
        line.parse().unwrap_or_else(|_| panic!("a number is expected, not {line:?}"))
    }
}

fn reader(stream: impl Into<OwnedFd>) -> BufReader<File> {
    BufReader::new(File::from(stream.into()))
}
