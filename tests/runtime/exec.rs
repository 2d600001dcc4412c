//! exec: another process in a container that lives.

use std::fs;

use super::{under_both, under_ours};
use crate::harness::Bundle;

#[test]
fn exec_joins_the_container() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("exec");
        it.start_pausing(bundle.write(), &id);
        let report = it.run(["exec", &id, "/probe"]).success().json();
        for (name, link) in report["namespaces"].as_object().unwrap() {
            let init = fs::read_link(format!("/proc/{}/ns/{name}", it.pid(&id))).unwrap();
            assert_eq!(link.as_str().unwrap(), init.to_str().unwrap(), "namespace {name}");
        }
        assert_eq!(report["hostname"], "bundle");
        assert_eq!(report["noNewPrivileges"], true);
        assert_eq!(report["capabilities"]["bounding"], "20000420");
        assert_eq!(report["capabilities"]["inheritable"], "0");
        assert_eq!(report["fds"], serde_json::json!(["0", "1", "2"]));
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", it.pid(&id))).unwrap();
        let own: Vec<&str> = cgroups.lines().collect();
        assert_eq!(report["cgroup"]["paths"], serde_json::json!(own));
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn exec_takes_user_cwd_and_env() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("exec-flags");
        it.start_pausing(bundle.write(), &id);
        let words =
            ["exec", "--user", "1000:2000", "--cwd", "/tmp", "--env", "KEY=a b", &id, "/probe"];
        let report = it.run(words).success().json();
        assert_eq!((&report["uid"], &report["gid"]), (&1000.into(), &2000.into()));
        assert_eq!((&report["cwd"], &report["env"]["KEY"]), (&"/tmp".into(), &"a b".into()));
        assert_eq!(report["env"]["HOME"], "/home/user");
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn exec_gives_the_exit_code_and_255_for_its_own_errors() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("exec-code");
        it.start_pausing(bundle.write(), &id);
        it.run(["exec", &id, "/probe", "exit", "42"]).code(42);
        it.run(["exec", &id, "/no/such/program"]).code(255).stderr_has("no such file or directory");
        let missing = it.run(["exec", &id, "no-such-program"]).code(255);
        missing.stderr_has("executable file not found in $PATH");
        for user in ["1:", ":1", "-1", "4294967295", "1:2:3", "0x1"] {
            let outcome = it.run(["exec", "--user", user, &id, "/probe", "echo", "in"]);
            assert_ne!(outcome.code, 0, "user {user:?} is taken");
        }
        it.stop(&id);
        let stopped = it.run(["exec", &id, "/probe"]).code(255);
        stopped.stderr_has("cannot exec in a stopped container");
        it.run(["delete", &id]).success();
    });
}

#[test]
fn exec_takes_a_process_file_and_detaches() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("exec-file");
        it.start_pausing(bundle.write(), &id);
        let process = serde_json::json!({
            "args": ["/probe", "pause"], "cwd": "/", "user": { "uid": 7, "gid": 8 }, "env": ["A=b"],
        });
        let file = it.scene.path("process.json");
        fs::write(&file, process.to_string()).unwrap();
        let pid_file = it.scene.path("pid");
        let exec = it.cmd(["exec", "--detach", "--process"]).arg(&file).arg("--pid-file");
        exec.arg(&pid_file).arg(&id).run().success();
        let pid = fs::read_to_string(pid_file).unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Uid:\t7\t7\t7\t7"), "{status}");
        let pids = it.run(["ps", "--format", "json", &id]).success().json();
        assert!(pids.as_array().unwrap().contains(&pid.parse::<i32>().unwrap().into()));
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn exec_works_in_a_created_container() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("exec-created");
        it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert_eq!(it.run(["exec", &id, "/probe", "echo", "in"]).success().stdout, "in\n");
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn exec_is_bound_to_the_cpus_that_the_process_names() {
    // Debian's runc does not know the property.
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("affinity");
        it.start_pausing(bundle.write(), &id);
        let mut process = bundle.config["process"].clone();
        process["args"] = serde_json::json!(["/probe", "cat", "/proc/self/status"]);
        process["execCPUAffinity"] = serde_json::json!({ "initial": "0", "final": "0" });
        let file = it.scene.path("process.json");
        fs::write(&file, process.to_string()).unwrap();
        let exec = it.cmd(["exec", "--process"]).arg(&file).arg(&id).run().success();
        exec.stdout_has("Cpus_allowed_list:\t0\n");
        it.run(["delete", "--force", &id]).success();
    });
}
