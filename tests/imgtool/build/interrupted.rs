//! A build that is ended at each of its lines, by a kill and by Ctrl-C: nothing of it stays beyond the next
//! command, what is in the store is whole, and built again it comes to what it would have come to.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{NAME, build, busybox, commands, context, made};
use crate::harness::pty::Pty;
use crate::harness::{Scene, eventually, scene};

/// Steps of all kinds, stages side by side, and processes that outlive their shell. `MARK` is no program's
/// argument but theirs.
const FILE: &str = "FROM e2e.test/busybox AS one\n\
    RUN --mount=type=cache,target=/c (sleep MARK &) && echo one && echo 1 > /one && echo 1 > /c/f\n\
    FROM e2e.test/busybox AS two\n\
    COPY a /a\n\
    RUN --mount=type=tmpfs,target=/t --mount=target=/w echo two && cp /w/a /t/ && cp /t/a /two\n\
    FROM e2e.test/busybox\n\
    WORKDIR /srv\n\
    COPY --from=one /one .\n\
    COPY --from=two /two /a ./\n\
    RUN --mount=type=secret,id=s,required echo last && rm one && cat /run/secrets/s > /last\n";

fn words(scene: &Scene) -> Vec<String> {
    vec!["--secret".to_owned(), format!("id=s,src={}", scene.path("context/a").display())]
}

/// Builds anew up to a line, and ends it there; false if it came to its end before.
fn ended_at(scene: &Scene, line: usize, signal: Signal) -> bool {
    let build = scene.imgtool().args(["build", "--no-cache", "--progress", "plain"]);
    let build = build.args(words(scene)).arg(scene.path("context"));
    let (words, env, stdin) = build.into_parts();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).envs(env).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let seen = lines.by_ref().take(line).count();
    let group = Pid::from_raw(child.id().try_into().unwrap());
    // One that has ended can't be signalled.
    let _ = killpg(group, signal);
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(signal as i32) || status.success(), "{status} at line {line}");
    seen == line && !status.success()
}

/// What was left is gone with the next command.
#[track_caller]
fn nothing_is_left(scene: &Scene, mark: &str) {
    let runs = || commands().iter().any(|line| line.contains(mark));
    assert!(eventually(|| !runs()), "processes: {:#?}", commands());
    scene.imgtool().arg("images").run().success();
    scene.imgtool().arg("verify").run().success();
    scene.imgtool().args(["tag", "e2e.test/busybox", "e2e.test/busybox:again"]).run().success();
    let staging = fs::read_dir(scene.store().join("staging")).unwrap();
    let staging: Vec<_> = staging.map(|entry| entry.unwrap().path()).collect();
    assert!(staging.is_empty(), "{staging:?}");
}

#[test]
fn a_build_ended_at_any_line_leaves_nothing_and_is_built_again() {
    scene(|scene| {
        busybox(scene);
        let mark = format!("5{}", std::process::id());
        context(scene, &[("Dockerfile", &FILE.replace("MARK", &mark)), ("a", "A")]);
        let secret = words(scene);
        let secret: Vec<&str> = secret.iter().map(String::as_str).collect();
        build(scene, &secret).success();
        let whole = made(scene);
        let mut count = 0;
        for line in 1.. {
            // Each signal at every other line, and both at the first.
            let signal = if line % 2 == 0 { Signal::SIGINT } else { Signal::SIGKILL };
            if !ended_at(scene, line, signal) {
                break;
            }
            count += 1;
            nothing_is_left(scene, &mark);
        }
        assert!(count >= 20, "only {count} lines");
        // What the cache kept of those is good.
        let again = build(scene, &secret).success();
        assert!(again.stderr.contains(" CACHED"), "{}", again.stderr);
        assert_eq!(made(scene), whole);
        scene.imgtool().args(["prune", "--force", "--build-cache"]).run().success();
        build(scene, &secret).success();
        assert_eq!(made(scene), whole);
        nothing_is_left(scene, &mark);
        scene.imgtool().args(["rmi", NAME]).run().success();
    });
}

#[test]
fn ctrl_c_on_a_terminal_ends_the_build_and_its_command() {
    scene(|scene| {
        busybox(scene);
        let mark = format!("4{}", std::process::id());
        let file = format!("FROM e2e.test/busybox\nRUN echo begun; trap '' INT; sleep {mark}\n");
        context(scene, &[("Dockerfile", &file)]);
        let store = format!("IMGTOOL_ROOT={}", scene.store().display());
        let build = scene.imgtool().arg("build").arg(scene.path("context"));
        let mut terminal = Pty::start(build.prefix(&["env", "TERM=xterm", &store]), 24, 80);
        terminal.expect("# begun");
        terminal.type_in("\u{3}");
        let (code, seen) = terminal.end();
        assert_ne!(code, 0, "{seen}");
        nothing_is_left(scene, &mark);
    });
}
