//! Descriptors and capabilities of whoever calls the runtime: nothing of them is in the container.

use std::fs;

use serde_json::{Value, json};

use super::super::under_ours;
use super::{Bundle, Canary, Subject, under_both};
use crate::harness::Cmd;

/// The command, called with a directory open on each of 20 descriptors that programs inherit.
fn with_open_directory(it: &Subject, dir: &std::path::Path, words: &[&str]) -> Cmd {
    let open: String = (3..23).map(|fd| format!("exec {fd}<'{}'; ", dir.display())).collect();
    let script = format!("{open}exec \"$@\"");
    Cmd::new("bash").args(["-c", &script, "bash"]).arg(&it.program).args(words)
}

/// Tells whether the process that ran stood in the canary.
fn saw_secret(stdout: &str) -> bool {
    stdout.trim_end().ends_with("ok")
}

#[test]
fn no_descriptor_is_a_working_directory_outside() {
    under_both(|it| {
        let canary = Canary::new(it);
        let look = ["try", "read", "secret"];
        for number in 3..16 {
            let cwd = format!("/proc/self/fd/{number}");
            let bundle = Bundle::new(it.scene, &look).edit("/process/cwd", &*cwd);
            let dir = bundle.write().display().to_string();
            let id = it.scene.id("cwd");
            let run = ["run", "--bundle", &dir, &id];
            for outcome in [it.run(run), with_open_directory(it, &canary.dir, &run).run()] {
                it.run(["delete", "--force", &id]);
                assert!(!saw_secret(&outcome.stdout), "{cwd} leads out: {outcome:?}");
            }
        }
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("exec-cwd");
        it.start_pausing(bundle.write(), &id);
        for number in 3..14 {
            let cwd = format!("/proc/self/fd/{number}");
            let exec = ["exec", "--cwd", &cwd, &id, "/probe", "try", "read", "secret"];
            for outcome in [it.run(exec), with_open_directory(it, &canary.dir, &exec).run()] {
                assert!(!saw_secret(&outcome.stdout), "{cwd} leads out: {outcome:?}");
            }
        }
        it.run(["delete", "--force", &id]).success();
        canary.assert_untouched();
    });
}

#[test]
fn the_callers_descriptors_do_not_reach_the_container() {
    under_both(|it| {
        let canary = Canary::new(it);
        let id = it.scene.id("fds");
        let own = json!(["0", "1", "2"]);
        let report = |words: &[&str]| {
            with_open_directory(it, &canary.dir, words).run().success().json()["fds"].clone()
        };
        let bundle = Bundle::new(it.scene, &[]);
        let dir = bundle.write().display().to_string();
        assert_eq!(report(&["run", "--bundle", &dir, &id]), own);
        assert_eq!(
            report(&["run", "--preserve-fds", "2", "--bundle", &dir, &id]),
            json!(["0", "1", "2", "3", "4"]),
        );
        let bundle = Bundle::new(it.scene, &["pause"]);
        let run = ["run", "--detach", "--bundle", &bundle.write().display().to_string(), &id];
        with_open_directory(it, &canary.dir, &run).run().success();
        assert_eq!(report(&["exec", &id, "/probe"]), own);
        it.run(["delete", "--force", &id]).success();
    });
}

/// It may wait for long, and who is let into its pid namespace meanwhile may look at what it holds.
#[test]
fn a_container_that_waits_for_start_holds_nothing_of_the_hosts() {
    under_ours(|it| {
        let canary = Canary::new(it);
        let id = it.scene.id("waits");
        let log = it.scene.path("log").display().to_string();
        let pid_file = it.scene.path("pid").display().to_string();
        for (preserved, kept) in [("0", 0), ("2", 2)] {
            let bundle = Bundle::new(it.scene, &["pause"]).write().display().to_string();
            let create = ["--log", &log, "create", "--pid-file", &pid_file, "--preserve-fds"];
            let create: Vec<&str> =
                create.into_iter().chain([preserved, "--bundle", &bundle, &id]).collect();
            with_open_directory(it, &canary.dir, &create).run().success();
            let mut others: Vec<String> = Vec::new();
            for entry in fs::read_dir(format!("/proc/{}/fd", it.pid(&id))).unwrap() {
                let path = entry.unwrap().path();
                let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                if number >= 3 + kept {
                    others.push(fs::read_link(path).unwrap().display().to_string());
                }
            }
            others.retain(|it| !it.ends_with("/exec.fifo") && !it.ends_with("/1/task/1/fd"));
            assert_eq!(others, [""; 0], "with {preserved} preserved");
            it.run(["start", &id]).success();
            it.run(["delete", "--force", &id]).success();
        }
    });
}

#[test]
fn capabilities_are_those_of_the_configuration() {
    under_both(|it| {
        let id = it.scene.id("caps");
        let sets = |report: &Value| report["capabilities"].clone();
        let asked = json!({
            "inheritable": "0", "permitted": "20000420", "effective": "20000420",
            "bounding": "20000420", "ambient": "0",
        });
        let bundle = Bundle::new(it.scene, &[]);
        let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert_eq!(sets(&run.json()), asked);
        let bundle = Bundle::new(it.scene, &["pause"]);
        it.start_pausing(bundle.write(), &id);
        assert_eq!(sets(&it.run(["exec", &id, "/probe"]).success().json()), asked);
        let more = it.run(["exec", "--cap", "CAP_SYS_TIME", &id, "/probe"]).success().json();
        assert_eq!(more["capabilities"]["inheritable"], "0");
        assert_eq!(more["capabilities"]["ambient"], "0");
        let user = it.run(["exec", "--user", "1000", &id, "/probe"]).success().json();
        assert_eq!(user["capabilities"]["effective"], "0");
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn hooks_have_the_standard_descriptors_only() {
    under_both(|it| {
        let scene = it.scene;
        let canary = Canary::new(it);
        let log = scene.path("log").display().to_string();
        // The list that is read has a descriptor too, which is why there is one name more.
        let list =
            format!("ls /proc/self/fd | wc -l >> {log}; grep Cap /proc/self/status >> {log}");
        let host = json!([{ "path": "/bin/sh", "args": ["sh", "-c", list] }]);
        let hooks = json!({
            "createRuntime": host, "poststart": host, "poststop": host,
            "startContainer": [{ "path": "/probe", "args": ["probe", "report-to", "/hook"] }],
        });
        let bundle = Bundle::new(scene, &["echo", "runs"]).edit("/hooks", hooks);
        let dir = bundle.write().display().to_string();
        let run = ["run", "--bundle", &dir, &scene.id("hooks")];
        with_open_directory(it, &canary.dir, &run).run().success();
        let log = fs::read_to_string(log).unwrap();
        let own = Cmd::line("grep Cap /proc/self/status").run().stdout;
        assert_eq!(log, format!("4\n{own}").repeat(3));
        let hook: Value =
            serde_json::from_slice(&fs::read(scene.path("bundle/rootfs/hook")).unwrap()).unwrap();
        assert_eq!(hook["fds"], json!(["0", "1", "2"]));
        assert_eq!(hook["capabilities"]["bounding"], "20000420");
        assert_eq!(hook["capabilities"]["inheritable"], "0");
    });
}
