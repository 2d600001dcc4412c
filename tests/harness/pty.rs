//! A terminal as a person has it: a program on one side, and on the other what is typed and seen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::command::Cmd;

pub(crate) struct Pty {
    master: File,
    child: Child,
    seen: String,
}

impl Pty {
    /// Runs it on a terminal of so many rows and columns, which is its controlling one.
    pub(crate) fn start(cmd: Cmd, rows: u16, columns: u16) -> Self {
        let (master, slave) = open();
        let dup = || Stdio::from(slave.try_clone().expect("dup the terminal"));
        let words = cmd.into_words();
        resize(&master, rows, columns);
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(words)
            .stdin(dup())
            .stdout(dup())
            .stderr(dup())
            .spawn()
            .expect("start a program on a terminal");
        Self { master: master.into(), child, seen: String::new() }
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns);
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type");
    }

    /// Waits until this is seen, and returns all up to its end, which it forgets.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> String {
        while !self.seen.contains(text) {
            assert!(self.read(), "{text:?} is not seen, but:\n{}", self.seen);
        }
        let end = self.seen.find(text).unwrap_or_default() + text.len();
        self.seen.drain(..end).collect()
    }

    /// The same; that `end` is seen first is a failure.
    #[track_caller]
    pub(crate) fn expect_before(&mut self, text: &str, end: &str) -> String {
        while !self.seen.contains(text) {
            assert!(!self.seen.contains(end), "{text:?} is not seen, but:\n{}", self.seen);
            assert!(self.read(), "{text:?} is not seen, but:\n{}", self.seen);
        }
        self.expect(text)
    }

    /// The next whole line that begins with this.
    #[track_caller]
    pub(crate) fn line(&mut self, start: &str) -> String {
        loop {
            let mut lines = self.seen.split_inclusive('\n');
            let found = lines.find(|line| line.starts_with(start) && line.ends_with('\n'));
            if let Some(found) = found.map(str::to_owned) {
                let end = self.seen.find(&found).unwrap_or_default() + found.len();
                self.seen.drain(..end);
                return found.trim_end().to_owned();
            }
            assert!(self.read(), "no line {start:?} is seen, but:\n{}", self.seen);
        }
    }

    /// Waits for the program's end: its exit code, and what was seen last.
    pub(crate) fn end(mut self) -> (i32, String) {
        while self.read() {}
        let status = self.child.wait().expect("wait for the program");
        (status.code().unwrap_or(-1), std::mem::take(&mut self.seen))
    }

    /// False when there will be no more.
    fn read(&mut self) -> bool {
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN)];
        let ready = poll(&mut fds, Some(&limit)).expect("poll the terminal");
        assert_eq!(ready, 1, "nothing is seen for a minute; last:\n{}", self.seen);
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(count) if count > 0 => {
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
                true
            }
            // EIO: nobody has the other side open any more.
            _ => false,
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // A program that has ended can't be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open() -> (OwnedFd, OwnedFd) {
    let pair = nix::pty::openpty(None, None).expect("open a terminal");
    for end in [&pair.master, &pair.slave] {
        rustix::io::fcntl_setfd(end, FdFlags::CLOEXEC).expect("set FD_CLOEXEC");
    }
    (pair.master, pair.slave)
}

fn resize(master: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("set the terminal's size");
}
