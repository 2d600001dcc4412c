//! Podman with `--runtime`: conmon creates and execs, podman itself does the rest.

use super::{IMAGE, archive};
use crate::harness::podman::Podman;
use crate::harness::{Cmd, Witness, scene};

#[track_caller]
fn podman(body: impl FnOnce(&Podman, &Witness)) {
    scene(|scene| {
        let witness = Witness::new(scene);
        let podman = Podman::new(&witness, scene);
        podman.podman("load --quiet --input").arg(archive(scene)).run().success();
        body(&podman, &witness);
    });
}

/// `podman run --network none <options> IMAGE /bin/sh -c <script>`.
fn run(podman: &Podman, options: &str, script: &str) -> Cmd {
    let run = podman.podman("run --network none").args(options.split_whitespace());
    run.args([IMAGE, "/bin/sh", "-c", script])
}

#[test]
fn podman_names_our_runtime_and_its_version() {
    podman(|podman, witness| {
        let info = podman.podman("info --format json").run().success().json();
        let runtime = &info["host"]["ociRuntime"];
        assert_eq!(runtime["path"], witness.program().display().to_string());
        let version = runtime["version"].as_str().unwrap();
        assert!(version.starts_with(&format!("runc version {}\n", witness.version())), "{version}");
    });
}

#[test]
fn podman_runs_execs_and_stops() {
    podman(|podman, witness| {
        let said = run(podman, "--rm", "echo out; echo err >&2; exit 3").run().code(3);
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
        run(podman, "--rm -i", "cat").stdin("typed").run().success().stdout_has("typed");
        let terminal = run(podman, "--rm -t", "test -t 0 && echo terminal").on_terminal();
        terminal.run().success().stdout_has("terminal");

        let polite = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done";
        run(podman, "--detach --name polite", polite).run().success();
        let exec = |options: &str, script: &str| {
            let exec = podman.podman("exec").args(options.split_whitespace());
            exec.args(["polite", "/bin/sh", "-c", script])
        };
        let seen = exec("-u 1000:2000 -w /etc -e KEY=value", "id -u; pwd; echo $KEY").run();
        assert_eq!(seen.success().stdout, "1000\n/etc\nvalue\n");
        exec("", "exit 7").run().code(7);
        let terminal = exec("-t", "test -t 0 && echo terminal").on_terminal();
        terminal.run().success().stdout_has("terminal");
        podman.podman("exec polite /nowhere").run().code(127).stderr_has("no such file");

        podman.podman("pause polite").run().success();
        let state = podman.podman("inspect --format {{.State.Status}} polite");
        assert_eq!(state.run().success().word(), "paused");
        podman.podman("unpause polite").run().success();
        podman.podman("stop polite").run().success();
        assert_eq!(podman.podman("wait polite").run().success().word(), "4");
        assert_eq!(podman.podman("logs polite").run().success().stdout, "up\nbye\n");
        podman.podman("start polite").run().success();
        podman.podman("kill polite").run().success();
        assert_eq!(podman.podman("wait polite").run().success().word(), "137");
        podman.podman("rm polite").run().success();
        witness.saw(&["create --bundle", "start", "exec --process", "exec --console-socket"]);
        witness.saw(&["pause", "resume", "kill 15", "kill 9", "delete"]);
    });
}

#[test]
fn podman_tells_why_a_program_can_not_be_run() {
    podman(|podman, _| {
        for (program, code, text) in [
            ("/nowhere", 127, "no such file or directory"),
            ("nowhere", 127, "executable file not found in $PATH"),
            ("/etc/passwd", 126, "permission denied"),
        ] {
            let run = podman.podman("run --rm --network none").args([IMAGE, program]).run();
            run.code(code).stderr_has(text);
        }
    });
}

#[test]
fn podman_updates_limits() {
    podman(|podman, witness| {
        run(podman, "--detach --name limited --memory 32m", "sleep 1000").run().success();
        podman.podman("update --memory 64m limited").run().success();
        let limit = "exec limited cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(podman.podman(limit).run().success().word(), "67108864");
        let stats = podman.podman("stats --no-stream --format json limited").run().success().json();
        assert_eq!(stats[0]["pids"], "1");
        podman.podman("rm --force --time 0 limited").run().success();
        witness.saw(&["update", "delete"]);
    });
}

/// A healthcheck is an exec whose exit code decides; without systemd podman does not set its timer.
#[test]
fn podman_checks_health() {
    podman(|podman, witness| {
        let run = podman.podman("run --network none --detach --name checked --health-cmd");
        let run = run.args(["cat /tmp/healthy", IMAGE, "sleep", "1000"]);
        run.run().success();
        podman.podman("healthcheck run checked").run().code(1).stdout_has("unhealthy");
        podman.podman("exec checked touch /tmp/healthy").run().success();
        podman.podman("healthcheck run checked").run().success();
        podman.podman("rm --force --time 0 checked").run().success();
        witness.saw(&["exec"]);
    });
}

#[test]
fn podmans_pods_share_namespaces() {
    podman(|podman, witness| {
        let create = podman.podman("pod create --name pod --network none --share ipc,uts,net,pid");
        let create = create.args(["--infra-image", IMAGE, "--infra-command", "/bin/sleep 1000"]);
        create.run().success();
        for name in ["one", "two"] {
            let run = podman.podman("run --detach --pod pod --name").args([name, IMAGE]);
            run.args(["sleep", "1000"]).run().success();
        }
        let spaces = |name: &str, spaces: &str| {
            let script = format!("for name in {spaces}; do readlink /proc/self/ns/$name; done");
            podman.podman("exec").args([name, "sh", "-c", &script]).run().success().stdout
        };
        let shared = "ipc uts net pid";
        assert_eq!(spaces("one", shared), spaces("two", shared));
        assert_ne!(spaces("one", "mnt"), spaces("two", "mnt"));

        podman.podman("pod pause pod").run().success();
        podman.podman("pod unpause pod").run().success();
        podman.podman("pod stop --time 0 pod").run().success();
        podman.podman("pod start pod").run().success();
        assert_eq!(spaces("one", shared), spaces("two", shared));
        podman.podman("pod rm --force --time 0 pod").run().success();
        witness.saw(&["create", "pause", "resume", "kill 9", "delete"]);
    });
}
