//! `bundle --init`: a first process that does what most programs don't when they are the first.

use super::{Image, Outcome, Scene, load, remove, scene};
use crate::harness::eventually;
use crate::harness::pty::Pty;

const NAME: &str = "e2e.test/init:1";

fn bundle(scene: &Scene, flags: &[&str], words: &[&str]) {
    let own = [&["--init", "--network", "none"], flags].concat();
    super::bundle(scene, &own, NAME, "b", words);
}

/// What a shell under it says.
fn said(scene: &Scene, flags: &[&str], script: &str) -> Outcome {
    bundle(scene, flags, &["sh", "-c", script]);
    let outcome = super::run(scene, "b");
    remove(scene, "b");
    outcome
}

#[test]
fn orphans_are_reaped_and_the_program_s_end_is_the_container_s() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        let orphan = "p=$(sh -c 'busybox true & echo $!'); i=0; \
                      while [ -e /proc/$p ] && [ $i -lt 200000 ]; do i=$((i+1)); done; \
                      [ -e /proc/$p ] && echo zombie || echo reaped; echo $$; exit 7";
        let told = said(scene, &[], orphan).code(7);
        let lines: Vec<&str> = told.stdout.lines().collect();
        assert_eq!(lines[0], "reaped", "{told:?}");
        assert_ne!(lines[1], "1", "{told:?}");
        said(scene, &["--read-only", "-u", "7:7"], "kill -9 $$").code(137);
        let own = "cat /proc/1/cmdline | tr '\\0' ' '; echo; echo x > /run/container-init";
        let told = said(scene, &["--privileged"], own);
        told.stdout_has("/run/container-init -- sh -c").stderr_has("Read-only file system");
        bundle(scene, &[], &["no-such-program"]);
        super::run(scene, "b").code(127).stderr_has("no-such-program");
        // No trace of it is in what would be committed.
        assert_eq!(scene.imgtool().arg("diff").arg(scene.path("b")).run().success().stdout, "");
        remove(scene, "b");
    });
}

#[test]
fn signals_reach_the_program_whose_handlers_are_called() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        let script = "trap 'echo told; exit 5' TERM; echo ready; while :; do busybox sleep 1; done";
        bundle(scene, &[], &["sh", "-c", script]);
        let id = scene.id("init");
        let run = scene.runtime().args(["run", "--supervise", "--detach", "--bundle"]);
        run.arg(scene.path("b")).arg(&id).run().success();
        let log = || scene.runtime().args(["logs", &id]).run().success().stdout;
        assert!(eventually(|| log().contains("ready")), "{}", log());
        scene.runtime().args(["stop", &id]).run().success();
        assert_eq!(scene.runtime().args(["wait", &id]).run().success().word(), "5");
        assert_eq!(log(), "ready\ntold\n");
        let command = scene.runtime().args(["list", "-f", "wide", "--filter"]);
        let row = command.arg(format!("name={id}")).run().success().stdout;
        assert!(row.contains("\"sh -c trap") && !row.contains("container-init"), "{row}");
        scene.runtime().args(["delete", &id]).run().success();
        remove(scene, "b");
    });
}

#[test]
fn a_shell_under_it_leads_its_terminal() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        bundle(scene, &["-t", "-i"], &["sh"]);
        let run = scene.runtime().args(["run", "--bundle"]).arg(scene.path("b"));
        let mut terminal = Pty::start(run.arg(scene.id("tty")), 24, 80);
        // Ctrl-C ends what runs in front, and not the shell.
        terminal.expect("# ");
        // Said by who is in front by then.
        terminal.type_in("sh -c \"echo go''ing; exec busybox sleep 1000\"\n");
        terminal.expect("going");
        terminal.type_in("\u{3}");
        terminal.type_in("echo still $((6 * 7)); exit 3\n");
        terminal.expect("still 42");
        let (code, seen) = terminal.end();
        assert_eq!(code, 3, "{seen}");
        assert!(!seen.contains("job control"), "{seen}");
        remove(scene, "b");
    });
}
