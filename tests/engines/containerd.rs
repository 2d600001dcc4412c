//! containerd by its own client: `ctr run --runc-binary`.

use super::{IMAGE, archive};
use crate::harness::containerd::Containerd;
use crate::harness::{Cmd, Witness, scene};

#[track_caller]
fn containerd(body: impl FnOnce(&Containerd, &Witness)) {
    scene(|scene| {
        let witness = Witness::new(scene);
        let containerd = Containerd::start(&witness, scene);
        containerd.ctr("image import").arg(archive(scene)).run().success();
        body(&containerd, &witness);
    });
}

fn run(containerd: &Containerd, witness: &Witness, options: &str) -> Cmd {
    let run = containerd.ctr("run --runc-binary").arg(witness.program());
    run.args(options.split_whitespace()).arg(IMAGE)
}

#[test]
fn ctr_runs_a_container_to_its_end() {
    containerd(|containerd, witness| {
        let said = run(containerd, witness, "--rm").args(["one", "/bin/sh", "-c"]);
        let said = said.arg("echo out; echo err >&2; exit 3").run().code(3);
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
        let terminal = run(containerd, witness, "--rm --tty").args(["two", "/bin/sh", "-c"]);
        let terminal = terminal.arg("test -t 0 && echo terminal").on_terminal();
        terminal.run().success().stdout_has("terminal");
        let missing = run(containerd, witness, "--rm").args(["three", "/nowhere"]).run().code(1);
        missing.stderr_has("stat /nowhere: no such file or directory");
        assert_eq!(containerd.ctr("container ls --quiet").run().success().stdout, "");
        witness.saw(&["create one", "start one", "delete one", "create --console-socket two"]);
    });
}

#[test]
fn ctr_execs_pauses_measures_and_kills() {
    containerd(|containerd, witness| {
        let run = run(containerd, witness, "--detach --memory-limit 33554432 --cpus 0.5");
        run.args(["task", "/bin/sleep", "1000"]).run().success();
        let exec = |id: &str| containerd.ctr("task exec --exec-id").args([id, "task"]);
        exec("one").args(["/bin/echo", "inside"]).run().success().stdout_has("inside");
        exec("two").args(["/bin/sh", "-c", "exit 7"]).run().code(7);
        containerd.ctr("task ps task").run().success().stdout_has("PID");

        containerd.ctr("task pause task").run().success();
        containerd.ctr("task ls").run().success().stdout_has("PAUSED");
        containerd.ctr("task resume task").run().success();
        containerd.ctr("task ls").run().success().stdout_has("RUNNING");

        let metrics = containerd.ctr("task metrics --format json task").run().success().json();
        let text = metrics.to_string();
        assert!(text.contains("33554432"), "{text}");

        containerd.ctr("task kill --signal KILL task").run().success();
        containerd.ctr("task delete --force task").run();
        containerd.ctr("container rm task").run().success();
        witness.saw(&["exec --detach task", "ps --format json task", "pause task", "resume task"]);
        witness.saw(&["kill task 9", "delete task"]);
    });
}

/// The shim keeps our log file and takes the error from it.
#[test]
fn ctr_shows_the_runtimes_own_error() {
    containerd(|containerd, witness| {
        let wrong = "--rm --mount type=bind,src=/nowhere-on-the-host,dst=/mounted,options=rbind";
        let run = run(containerd, witness, wrong).args(["one", "/bin/true"]).run().code(1);
        run.stderr_has("/nowhere-on-the-host").stderr_has("no such file or directory");
    });
}
