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
