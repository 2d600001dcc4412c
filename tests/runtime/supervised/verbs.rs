//! `logs`, `wait`, `stop`, `restart`, restart policies, and what is left of it all by a reboot.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::super::{Subject, under_ours};
use crate::harness::{Bundle, Cmd, Scene, eventually, wait_for_exit};

/// A bundle in which a shell runs `script`. It may read from `/go`, a pipe that the host has too.
pub(super) fn shell(scene: &Scene, script: &str) -> Bundle {
    let bundle = Bundle::new(scene, &[]).edit("/process/args", json!(["/bin/sh", "-c", script]));
    let rootfs = scene.path("bundle/rootfs");
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    for applet in ["sh", "stty"] {
        fs::copy("/bin/busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    if !rootfs.join("go").exists() {
        Cmd::new("mkfifo").arg(rootfs.join("go")).run().success();
    }
    bundle
}

/// Lets a shell go on that reads from `/go`; waits until it does.
fn go(scene: &Scene) {
    let mut pipe = fs::File::options().write(true).open(scene.path("bundle/rootfs/go")).unwrap();
    pipe.write_all(b"\n").unwrap();
}

impl Subject<'_> {
    fn supervise_with(&self, flags: &[&str], bundle: &Bundle, id: &str) {
        let run = self.cmd(["run", "--supervise", "--detach"]).args(flags).arg("--bundle");
        run.arg(bundle.write()).arg(id).run().success();
    }

    /// What a reboot leaves: no process, no live state.
    fn reboot(&self, id: &str) {
        let (init, supervisor) = (self.pid(id), self.supervisor(id));
        let cgroups = self.run(["inspect", id]).success().json()[0]["cgroups"].clone();
        for pid in [supervisor, init] {
            Cmd::new("kill").args(["-KILL", &pid.to_string()]).run().success();
            wait_for_exit(pid);
        }
        fs::remove_dir_all(Path::new("/run/runtime").join(id)).unwrap();
        for cgroup in cgroups.as_object().unwrap().values().filter_map(Value::as_str) {
            // Several controllers share one.
            assert!(eventually(|| fs::remove_dir(cgroup).is_ok() || !Path::new(cgroup).exists()));
        }
    }
}

#[test]
fn logs_are_read_by_stream_by_number_and_by_time() {
    under_ours(|it| {
        let id = it.scene.id("logs");
        let bundle = shell(it.scene, "echo one; echo two >&2; echo three; printf four");
        it.supervise_with(&[], &bundle, &id);
        it.await_end(&id);
        let logs = |words: &[&str]| it.cmd(["logs"]).args(words).arg(&id).run().success();
        let all = logs(&[]);
        assert_eq!((all.stdout.as_str(), all.stderr.as_str()), ("one\nthree\nfour", "two\n"));
        assert_eq!(logs(&["--stream", "stderr"]).stdout, "");
        let last = logs(&["--tail", "2", "--stream", "stdout"]);
        assert_eq!((last.stdout.as_str(), last.stderr.as_str()), ("three\nfour", ""));
        let line = logs(&["--timestamps", "--tail=1"]).stdout;
        assert!(line.ends_with("Z four") && line.len() == 35, "{line:?}");
        assert_eq!(logs(&["--since", "1h"]).stdout, "one\nthree\nfour");
        assert_eq!(logs(&["--until", "1h"]).stdout, "");
        let since = line.split(' ').next().unwrap();
        // What was read in one go has one time.
        assert!(logs(&["--since", since]).stdout.ends_with("four"));
        assert_eq!(logs(&["--since", "2099-01-02"]).stdout, "");
        it.run(["logs", "--since", "soon", &id]).refused(&["soon", "for --since"]);
        it.run(["delete", &id]).success();

        let plain = Bundle::new(it.scene, &["pause"]);
        it.start_pausing(plain.write(), &id);
        it.run(["logs", &id]).refused(&["no supervisor", "--supervise"]);
        it.run(["delete", "-f", &id]).success();
        it.run(["logs", &id]).refused(&["does not exist"]);
    });
}

#[test]
fn logs_follow_through_files_that_are_moved_aside() {
    under_ours(|it| {
        let id = it.scene.id("follow");
        let script = "read x < /go; i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line $i; done";
        let flags = ["--log-max-size", "2k", "--log-max-files", "100"];
        it.supervise_with(&flags, &shell(it.scene, script), &id);
        let output = it.scene.path("followed");
        let follow = it.cmd(["logs", "-f", &id]).start(fs::File::create(&output).unwrap());
        go(it.scene);
        it.run(["wait", &id]).success();
        let mut follow = follow;
        assert!(follow.wait().unwrap().success());
        let wanted: String = (1..=500).map(|number| format!("line {number}\n")).collect();
        assert_eq!(fs::read_to_string(&output).unwrap(), wanted);
        assert_eq!(it.run(["logs", &id]).success().stdout, wanted);
        assert!(Path::new(super::RECORDS).join(&id).join("log.1").exists());
        it.run(["delete", &id]).success();
    });
}

#[test]
fn wait_tells_how_each_has_ended_even_one_that_is_forgotten() {
    under_ours(|it| {
        let (kept, forgotten) = (it.scene.id("kept"), it.scene.id("forgotten"));
        it.supervise_with(&[], &shell(it.scene, "exit 3"), &kept);
        it.supervise_with(&["--rm"], &shell(it.scene, "read x < /go; exit 4"), &forgotten);
        let output = it.scene.path("codes");
        let wait = it.cmd(["wait", &kept, &forgotten]).start(fs::File::create(&output).unwrap());
        // The first is told before the second is waited for.
        assert!(eventually(|| fs::read_to_string(&output).unwrap() == "3\n"));
        let socket = Path::new(super::RECORDS).join(&forgotten).join("attach");
        assert!(eventually(|| connections(&socket) > 0), "nobody waits");
        go(it.scene);
        let mut wait = wait;
        assert!(wait.wait().unwrap().success());
        assert_eq!(fs::read_to_string(&output).unwrap(), "3\n4\n");
        it.run(["state", &forgotten]).refused(&["does not exist"]);
        it.run(["delete", &kept]).success();
    });
}

/// How many have come through a socket, by the kernel's table.
fn connections(socket: &Path) -> usize {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    // The listening one has the name, and so has each that was accepted; the latter are connected.
    let accepted = table.lines().filter(|line| line.contains(" 03 ") && line.ends_with("/attach"));
    if socket.exists() { accepted.count() } else { 0 }
}

#[test]
fn stop_asks_first_and_kills_what_does_not_listen() {
    under_ours(|it| {
        let (polite, deaf) = (it.scene.id("polite"), it.scene.id("deaf"));
        let script = "trap 'exit 7' TERM; echo ready; while :; do read x < /go; done";
        it.supervise_with(&[], &shell(it.scene, script), &polite);
        assert!(eventually(|| it.log(&polite).contains("ready")));
        let pause = Bundle::new(it.scene, &["pause"]);
        it.supervise_with(&["--restart", "always"], &pause, &deaf);
        it.run(["stop", "--time", "soon", &deaf]).refused(&["soon", "for --time"]);
        it.run(["stop", &polite]).success();
        it.run(["stop", "-t", "0", &deaf]).success();
        // Their ends are recorded by then, and no policy starts them again.
        assert_eq!(it.record(&polite)["life"]["exit_code"], 7);
        assert_eq!(it.record(&deaf)["life"]["exit_code"], 137);
        assert!(it.wide(&deaf).contains("Exited (137) "), "{}", it.wide(&deaf));
        it.run(["stop", &deaf]).success();

        it.run(["start", &deaf]).success();
        it.run(["restart", "-t", "0", &deaf]).success();
        assert_eq!(it.record(&deaf)["life"]["exits"], 2);
        assert!(it.wide(&deaf).contains(" Up "), "{}", it.wide(&deaf));
        it.run(["delete", "-f", &polite, &deaf]).success();
        it.run(["stop", &deaf]).refused(&["does not exist"]);
    });
}

#[test]
fn one_that_fails_is_started_again_as_often_as_its_policy_says() {
    under_ours(|it| {
        let id = it.scene.id("again");
        let bundle = shell(it.scene, "echo run; exit 1");
        it.supervise_with(&["--restart", "on-failure:2"], &bundle, &id);
        let supervisor = it.supervisor(&id);
        wait_for_exit(supervisor);
        assert_eq!(it.run(["logs", &id]).success().stdout, "run\nrun\nrun\n");
        let life = it.record(&id)["life"].clone();
        assert_eq!((&life["restarts"], &life["exit_code"]), (&json!(2), &json!(1)));
        it.run(["delete", &id]).success();

        // In the pause between two runs it is about to be restarted, and can be stopped.
        it.supervise_with(&["--restart", "always"], &bundle, &id);
        assert!(eventually(|| it.wide(&id).contains("Restarting (1) ")));
        it.run(["stop", &id]).success();
        assert!(it.wide(&id).contains("Exited (1) "), "{}", it.wide(&id));
        it.run(["delete", &id]).success();
    });
}

#[test]
fn a_reboot_leaves_the_record_and_what_its_policy_wants_runs_again() {
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let policies = ["no", "always", "unless-stopped"];
        let ids = policies.map(|policy| it.scene.id(policy));
        for (policy, id) in policies.iter().zip(&ids) {
            it.supervise_with(&["--restart", policy], &bundle, id);
        }
        ids.iter().for_each(|id| it.reboot(id));
        for id in &ids {
            assert!(it.wide(id).contains("Exited (255) "), "{}", it.wide(id));
            assert_eq!(it.status(id), "stopped");
        }
        let boot = || {
            it.cmd(["start", "--boot"]).args(&ids).run().success();
            ids.each_ref().map(|id| it.status(id) == "running")
        };
        assert_eq!(boot(), [false, true, true]);

        // Stopped by hand before the host goes down.
        it.cmd(["stop", "-t", "0"]).args(&ids[1..]).run().success();
        assert_eq!(boot(), [false, true, false]);
        let unit = it.run(["unit", &ids[1]]).success();
        unit.stdout_has(&format!(" start {}\n", ids[1])).stdout_has("WantedBy=multi-user.target");
        it.run(["unit"]).success().stdout_has(" start --boot\n");
        it.cmd(["delete", "-f"]).args(&ids).run().success();
    });
}

#[test]
fn inspect_tells_all_and_stats_what_is_used() {
    under_ours(|it| {
        let (id, other) = (it.scene.id("used"), it.scene.id("plain"));
        let bundle = Bundle::new(it.scene, &["pause"]);
        it.supervise_with(&[], &bundle, &id);
        it.start_pausing(bundle.write(), &other);
        let all = it.run(["inspect", &id, &other]).success().json();
        assert_eq!(all[0]["state"]["status"], "running");
        assert_eq!(all[0]["record"]["restart"]["when"], "no");
        assert_eq!(all[1]["state"]["id"], *other);
        assert!(all[1].get("record").is_none());
        let bad = it.run(["inspect", &id, "e2e-none"]).code(1).stderr_has("e2e-none");
        assert_eq!(bad.json()[0]["state"]["id"], *id);

        let stats = it.run(["stats", "--no-stream", &id]).success();
        let lines: Vec<&str> = stats.stdout.lines().collect();
        assert!(lines[0].starts_with("CONTAINER ID ") && lines[1].starts_with(&id), "{lines:?}");
        let stats = it.run(["stats", "--no-stream", "--format=json", &id]).success().json();
        assert_eq!(stats["name"], *id);
        assert!(stats["pids"].as_u64().unwrap() >= 1, "{stats}");
        it.run(["delete", "-f", &id, &other]).success();
    });
}
