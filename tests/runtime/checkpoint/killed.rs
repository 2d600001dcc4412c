//! A CRIU, or a runtime, that is killed in the middle of its work.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use super::states::Killed;
use super::{Case, Counter};
use crate::harness::{Bundle, requires, wait_for_exit};
use crate::runtime::under_ours;

/// A checkpoint that stands still in the middle: it waits for the answer of a page server that has
/// none.
struct Midway {
    saving: Killed,
    /// CRIU's process.
    criu: i32,
    server: TcpStream,
}

impl Midway {
    fn start(case: &Case, counter: &mut Counter) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen");
        let port = listener.local_addr().expect("it has an address").port();
        let saving = Command::new(&case.it.program)
            .args(["checkpoint", "--manage-cgroups-mode", "ignore", "--tcp-established"])
            .args(["--page-server", &format!("127.0.0.1:{port}")])
            .args(["--image-path", &case.images, &case.id])
            .stderr(Stdio::piped())
            .spawn();
        let saving = Killed(saving.expect("start the runtime"));
        let (mut server, _) = listener.accept().expect("accept");
        // What comes first asks whether there are pages of an earlier time: the process to be saved
        // has been stopped, and CRIU's own code is at work in it.
        server.read_exact(&mut [0]).expect("read from CRIU");
        counter.send();
        assert!(!counter.has_answer(1), "it goes on while it is saved");
        let pid = saving.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("read the children of the runtime");
        let criu = children.trim().parse().expect("CRIU is its one child");
        Midway { saving, criu, server }
    }

    fn end(mut self) -> Output {
        let mut stderr = Vec::new();
        let mut pipe = self.saving.0.stderr.take().expect("it has a pipe");
        pipe.read_to_end(&mut stderr).expect("read stderr");
        let status = self.saving.0.wait().expect("wait for the runtime");
        Output { status, stdout: Vec::new(), stderr }
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid is positive");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
}

#[test]
fn a_criu_killed_midway_leaves_the_container_running() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "killed", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        let pid = it.pid(&case.id);
        let midway = Midway::start(&case, &mut counter);
        kill(midway.criu);
        let output = midway.end();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("criu ended without an answer: signal: killed"), "{text}");
        assert_eq!(counter.line(), "2");
        assert_eq!((it.status(&case.id).as_str(), it.pid(&case.id)), ("running", pid));
        assert_eq!(counter.next(), 3);
        // What is left of it is in nobody's way.
        case.checkpoint(&[]);
        let mut counter = case.restore(&[]);
        assert_eq!(counter.next(), 4);
        case.delete();
    });
}

#[test]
fn a_runtime_killed_midway_leaves_the_container_running() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "orphan", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        let mut midway = Midway::start(&case, &mut counter);
        midway.saving.0.kill().expect("kill the runtime");
        midway.saving.0.wait().expect("wait for the runtime");
        // CRIU undoes what it has done when it finds that nobody is there to hear of it.
        drop(midway.server);
        wait_for_exit(midway.criu);
        assert_eq!(counter.line(), "2");
        assert_eq!(it.status(&case.id), "running");
        case.checkpoint(&[]);
        let mut counter = case.restore(&[]);
        assert_eq!(counter.next(), 3);
        case.delete();
    });
}

#[test]
fn both_killed_midway_leave_a_container_that_can_be_resumed() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "both", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        let mut midway = Midway::start(&case, &mut counter);
        midway.saving.0.kill().expect("kill the runtime");
        kill(midway.criu);
        midway.saving.0.wait().expect("wait for the runtime");
        wait_for_exit(midway.criu);
        if it.status(&case.id) == "paused" {
            it.run(["resume", &case.id]).success();
        }
        assert_eq!(counter.line(), "2");
        assert_eq!(it.status(&case.id), "running");
        case.checkpoint(&["--leave-running"]);
        assert_eq!(counter.next(), 3);
        case.delete();
    });
}
