//! `attach`: a terminal that is left by its keys, found again, and given another size.

use super::super::under_ours;
use super::verbs::shell;
use crate::harness::pty::Pty;
use crate::harness::{Bundle, eventually};

/// Answers each line: `size` by that of the terminal, `exit` by its end.
const ANSWERS: &str = "echo ready; while read line; do case $line in \
                       size) stty size;; exit) exit 5;; *) echo \"heard $line\";; esac; done";

#[test]
fn a_terminal_is_left_by_its_keys_found_again_and_resized() {
    under_ours(|it| {
        let id = it.scene.id("tty");
        let bundle = shell(it.scene, ANSWERS).edit("/process/terminal", true);
        let run = it.cmd(["run", "--supervise", "--bundle"]).arg(bundle.write()).arg(&id);
        let mut first = Pty::start(run, 20, 70);
        first.expect("ready");
        first.type_in("size\n");
        first.expect("20 70");
        first.type_in("\x10\x11");
        let (code, seen) = first.end();
        assert_eq!(code, 0, "{seen}");
        assert!(it.wide(&id).contains(" Up "), "{}", it.wide(&id));

        let mut second = Pty::start(it.cmd(["attach", &id]), 33, 99);
        second.type_in("hello\n");
        second.expect("heard hello");
        second.type_in("size\n");
        second.expect("33 99");
        second.resize(40, 120);
        // Its signal and what is typed come by two ways: asked until the answer is the new one.
        let resized = eventually(|| {
            second.type_in("size\n");
            second.expect("size\r\n");
            second.line("") == "40 120"
        });
        assert!(resized, "the new size is not seen");
        second.type_in("exit\n");
        let (code, seen) = second.end();
        assert_eq!(code, 5, "{seen}");
        assert!(it.wide(&id).contains("Exited (5) "), "{}", it.wide(&id));
        it.run(["attach", &id]).refused(&["has ended", "runtime logs"]);
        it.run(["delete", &id]).success();
    });
}

/// Runs the words that follow, says which process they are, and then what it is typed.
const THEN_READ: &str = "sh -c 'echo \"process $$\"; exec \"$@\"' sh \"$@\"; \
                         IFS= read -r line; echo \"left [$line]\"";

#[test]
fn what_is_typed_after_the_end_is_for_whoever_reads_the_terminal_next() {
    for flags in [&[][..], &["--supervise"]] {
        under_ours(|it| {
            let id = it.scene.id("typed");
            let bundle = shell(it.scene, ANSWERS).edit("/process/terminal", true);
            let run = it.cmd(["run"]).args(flags).arg("--bundle").arg(bundle.write()).arg(&id);
            let mut terminal = Pty::start(run.prefix(&["sh", "-c", THEN_READ, "sh"]), 24, 80);
            let runtime = terminal.line("process ")["process ".len()..].parse::<i32>().unwrap();
            terminal.expect("ready");
            // Nobody passes on what is typed until it is continued.
            let container = it.state(&id)["pid"].as_i64().unwrap();
            let runtime = nix::unistd::Pid::from_raw(runtime);
            let kill = |signal| nix::sys::signal::kill(runtime, signal).unwrap();
            kill(nix::sys::signal::Signal::SIGSTOP);
            assert!(eventually(|| process_state(runtime.as_raw().into()) == "T"));
            it.run(["kill", &id, "KILL"]).success();
            let gone = || matches!(process_state(container).as_str(), "Z" | "");
            assert!(eventually(gone), "{}", process_state(container));
            if !flags.is_empty() {
                assert!(eventually(|| it.wide(&id).contains("Exited (137) ")), "{}", it.wide(&id));
            }
            terminal.type_in("kept\n");
            kill(nix::sys::signal::Signal::SIGCONT);
            let (_, seen) = terminal.end();
            assert!(seen.contains("left [kept]"), "{flags:?}: {seen}");
            it.run(["delete", "--force", &id]).success();
        });
    }
}

/// The letter in /proc for what the process does; nothing if there is no such process.
fn process_state(pid: i64) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(") ").next().unwrap_or_default();
    after.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn input_through_attach_reaches_a_program_without_a_terminal() {
    under_ours(|it| {
        let id = it.scene.id("pipe");
        let bundle = shell(it.scene, ANSWERS);
        let run = it.cmd(["run", "--supervise", "-i", "--detach", "--bundle"]).arg(bundle.write());
        run.arg(&id).run().success();
        // The end of one's input is not the end of the container's.
        let mut attach = Pty::start(it.cmd(["attach", &id]), 24, 80);
        attach.type_in("one\n");
        attach.expect("heard one");
        attach.type_in("exit\n");
        assert_eq!(attach.end().0, 5);
        it.run(["delete", &id]).success();

        let plain = Bundle::new(it.scene, &["pause"]);
        it.start_pausing(plain.write(), &id);
        it.run(["attach", &id]).refused(&["no supervisor"]);
        it.run(["delete", "-f", &id]).success();
    });
}
