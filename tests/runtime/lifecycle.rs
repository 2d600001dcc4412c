//! create, start, run, state, list, ps, kill, delete.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{binary, scene, under_both, under_ours, wait_for_exit};
use crate::harness::{Bundle, Cmd, eventually};

#[test]
fn create_waits_and_start_runs_the_program() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["append", "/ran", "yes"]);
        let id = it.scene.id("create");
        let ran = it.scene.path("bundle/rootfs/ran");
        it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert_eq!(it.status(&id), "created");
        assert!(!ran.exists(), "the program ran before start");
        let pid = it.pid(&id);
        it.run(["start", &id]).success();
        wait_for_exit(pid);
        assert_eq!(it.status(&id), "stopped");
        assert_eq!(it.pid(&id), 0);
        assert_eq!(fs::read_to_string(ran).unwrap(), "yes\n");
        it.run(["start", &id]).code(1).stderr_has("cannot start a container that has stopped");
        it.run(["delete", &id]).success();
        it.run(["state", &id]).code(1).stderr_has("container does not exist");
    });
}

/// What they are open on lies in the container's own /dev, not in the host's.
#[track_caller]
pub(super) fn assert_null_streams_are_its_own(pid: i32) {
    let device = |name: &str| fs::metadata(format!("/proc/{pid}/{name}")).expect("stat it").dev();
    let own = device("root/dev/null");
    assert_ne!(own, fs::metadata("/dev/null").expect("stat it").dev());
    assert_eq!(["fd/0", "fd/1", "fd/2"].map(device), [own; 3]);
}

#[test]
fn null_devices_of_the_hosts_as_streams_become_the_containers_own() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("null");
        let mut run = Command::new(&it.program);
        run.args(["run", "--detach", "--bundle"]).arg(bundle.write()).arg(&id);
        run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(run.status().expect("start the runtime").success());
        assert_null_streams_are_its_own(it.pid(&id));
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn output_that_has_no_place_is_an_error() {
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["echo", "lost"]);
        let id = it.scene.id("full");
        let run = "exec \"$0\" \"$@\" > /dev/full";
        let sh =
            |words: &[&str]| Cmd::new("sh").args(["-c", run]).arg(&it.program).args(words).run();
        let dir = bundle.write().display().to_string();
        sh(&["run", "--bundle", &dir, &id])
            .code(1)
            .refused(&["pass on what the process wrote: no space left on device"]);
        it.run(["state", &id]).code(1).stderr_has("container does not exist");
        it.start_pausing(Bundle::new(it.scene, &["pause"]).write(), &id);
        sh(&["exec", &id, "/probe", "echo", "lost"])
            .code(255)
            .stderr_has("no space left on device");
        it.run(["delete", "--force", &id]).success();
    });
}

/// The specification wants a process only of those that are started; runc always.
#[test]
fn a_container_without_a_process_is_created_but_not_started() {
    under_ours(|it| {
        let mut bundle = Bundle::new(it.scene, &["pause"]);
        let mut process = bundle.config.as_object_mut().unwrap().remove("process").unwrap();
        let id = it.scene.id("idle");
        let dir = bundle.write();
        it.cmd(["create", "--bundle"]).arg(dir).arg(&id).run().success();
        it.run(["start", &id]).code(1).refused(&["process property must not be empty"]);
        assert_eq!(it.status(&id), "created");
        let status = fs::read_to_string(format!("/proc/{}/status", it.pid(&id))).unwrap();
        assert!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
        let file = it.scene.path("process.json");
        process["args"] = json!(["/probe", "echo", "inside"]);
        fs::write(&file, process.to_string()).unwrap();
        it.cmd(["exec", "--process"]).arg(&file).arg(&id).run().success().stdout_has("inside");
        it.run(["delete", &id]).success();

        let run = it.cmd(["run", "--bundle"]).arg(dir).arg(&id).run();
        run.code(1).refused(&["process property must not be empty"]);
        it.run(["state", &id]).code(1).stderr_has("container does not exist");
    });
}

#[test]
fn a_created_container_is_deleted_without_force() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("created");
        it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        let pid = it.pid(&id);
        it.run(["delete", &id]).success();
        wait_for_exit(pid);
        it.run(["state", &id]).code(1);
    });
}

#[test]
fn a_running_container_is_deleted_with_force_only() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("running");
        it.start_pausing(bundle.write(), &id);
        it.run(["start", &id]).code(1).stderr_has("cannot start an already running container");
        let refused = format!("cannot delete container {id} that is not stopped: running");
        it.run(["delete", &id]).code(1).stderr_has(&refused);
        assert_eq!(it.status(&id), "running");
        it.run(["delete", "--force", &id]).success();
        it.run(["delete", "--force", &id]).success();
        it.run(["delete", &id]).code(1).stderr_has("container does not exist");
    });
}

#[test]
fn kill_takes_names_and_numbers() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("kill");
        it.start_pausing(bundle.write(), &id);
        // As pid 1 of its namespace the probe is deaf to what it does not handle, but for KILL.
        it.run(["kill", &id, "SIGUSR1"]).success();
        it.run(["kill", &id, "usr2"]).success();
        it.run(["kill", &id, "0"]).success();
        it.run(["kill", &id, "NONSENSE"]).code(1).stderr_has("unknown signal");
        assert_eq!(it.status(&id), "running");
        it.stop(&id);
        it.run(["kill", &id, "KILL"]).code(1).stderr_has("container not running");
        it.run(["delete", &id]).success();
    });
}

#[test]
fn an_id_serves_one_container() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("twice");
        let dir = bundle.write();
        it.start_pausing(dir, &id);
        let again = it.cmd(["run", "--detach", "--bundle"]).arg(dir).arg(&id).run();
        again.code(1).stderr_has("container with given ID already exists");
        assert_eq!(it.status(&id), "running");
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn ids_that_could_leave_the_state_directory_are_refused() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let dir = bundle.write();
        for id in ["../escape", "a/b", "..", ".", "a b", ""] {
            let outcome = it.cmd(["create", "--bundle"]).arg(dir).arg(id).run();
            assert_ne!(outcome.code, 0, "id {id:?} is taken: {outcome:?}");
        }
    });
}

#[test]
fn list_and_ps_show_what_runs() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("list");
        it.start_pausing(bundle.write(), &id);
        let pid = it.pid(&id);
        it.run(["list"]).success().stdout_has(&id).stdout_has("running");
        let ids = it.run(["list", "--quiet"]).success();
        assert!(ids.stdout.lines().any(|line| line == id));
        let listed = it.run(["list", "--format", "json"]).success().json();
        let own = listed.as_array().unwrap().iter().find(|c| c["id"] == id.as_str()).unwrap();
        assert_eq!((&own["pid"], &own["status"]), (&pid.into(), &"running".into()));
        // `run --detach` comes back when the program is about to be executed: runc a moment before.
        eventually(|| it.run(["ps", &id]).stdout.contains("/probe pause"));
        it.run(["ps", &id]).success().stdout_has(&pid.to_string()).stdout_has("/probe pause");
        assert_eq!(it.run(["ps", "--format", "json", &id]).json(), serde_json::json!([pid]));
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn the_pid_file_names_the_container() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("pid-file");
        let file = it.scene.path("pid");
        let run = it.cmd(["run", "--detach", "--pid-file"]).arg(&file).arg("--bundle");
        run.arg(bundle.write()).arg(&id).run().success();
        assert_eq!(fs::read_to_string(file).unwrap(), it.pid(&id).to_string());
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_foreground_run_keeps_nothing_unless_asked() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["exit", "7"]);
        let id = it.scene.id("keep");
        let dir = bundle.write();
        it.cmd(["run", "--bundle"]).arg(dir).arg(&id).run().code(7);
        it.run(["state", &id]).code(1);
        it.cmd(["run", "--keep", "--bundle"]).arg(dir).arg(&id).run().code(7);
        assert_eq!(it.status(&id), "stopped");
        it.run(["delete", &id]).success();
    });
}

#[test]
fn stdin_reaches_the_program() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["stdin"]);
        let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(it.scene.id("stdin"));
        assert_eq!(run.stdin("typed by hand").run().success().stdout, "typed by hand");
    });
}

#[test]
fn a_signal_to_a_foreground_run_reaches_the_program() {
    under_both(|it| {
        // A shared pid namespace: the probe is no pid 1 and dies of TERM.
        let bundle = Bundle::new(it.scene, &["pause"]).edit(
            "/linux/namespaces",
            serde_json::json!([{ "type": "mount" }, { "type": "network" }, { "type": "uts" }]),
        );
        let id = it.scene.id("signal");
        let dir = bundle.write().display().to_string();
        let program = it.program.display();
        let ready = it.scene.path("pid").display().to_string();
        // The pid file appears when the program is about to start; TERM then goes to the runtime.
        let script = format!(
            "{program} run --pid-file {ready} --bundle {dir} {id} & run=$!; \
             until [ \"$({program} state {id} 2>/dev/null | grep -c running)\" = 1 ]; do :; done; \
             kill -TERM $run; wait $run"
        );
        Cmd::new("sh").args(["-c", &script]).run().code(143);
    });
}

#[test]
fn several_ids_are_deleted_in_one_go_and_each_failure_is_told() {
    scene(|scene| {
        let bundle = Bundle::new(scene, &["pause"]);
        let dir = bundle.write();
        let (one, two) = (scene.id("one"), scene.id("two"));
        for id in [&one, &two] {
            scene.runtime().args(["run", "--detach", "--bundle"]).arg(dir).arg(id).run().success();
        }
        let words = ["delete", "--force", &one, &two];
        scene.runtime().args(words).run().success();
        let outcome = scene.runtime().args(["delete", &one, &two]).run().code(1);
        assert!(outcome.stderr.contains(&one) || outcome.stderr.contains("does not exist"));
    });
}

#[test]
fn a_regular_expression_names_every_container_that_it_matches() {
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let dir = bundle.write();
        let ids = ["re-a", "re-b", "other"].map(|name| it.scene.id(name));
        for id in &ids {
            it.start_pausing(dir, id);
        }
        let mark = format!("^e2e-{}-", std::process::id());
        let both = format!("{mark}re-[ab]$");
        it.run(["kill", "--regex", &both, "NONSENSE"]).refused(&["unknown signal"]);
        it.run(["kill", "--regex", "(", "KILL"]).refused(&["invalid regular expression"]);
        it.run(["delete", "--regex", "("]).refused(&["invalid regular expression"]);
        it.run(["kill", "--regex", "no-container-has-this-name", "KILL"]).success();

        let pids = ids.each_ref().map(|id| it.pid(id));
        it.run(["kill", "-r", &both, "KILL"]).success();
        pids[..2].iter().for_each(|pid| wait_for_exit(*pid));
        assert_eq!(ids.each_ref().map(|id| it.status(id)), ["stopped", "stopped", "running"]);

        // One that can't be done does not keep the others from it, and each is told.
        it.run(["kill", "--regex", &both, "KILL"]).refused(&[&ids[0], &ids[1], "not running"]);
        it.run(["delete", "--regex", &mark]).refused(&[&ids[2], "not stopped"]);
        for (id, left) in ids.iter().zip([false, false, true]) {
            assert_eq!(it.run(["state", id]).code == 0, left, "{id}");
        }
        it.run(["delete", "--regex", "-f", &mark]).success();
        it.run(["state", &ids[2]]).code(1);
    });
}

#[test]
fn an_id_left_out_is_generated_and_printed() {
    scene(|scene| {
        let bundle = Bundle::new(scene, &["pause"]);
        let run = scene.runtime().args(["run", "--detach", "--bundle"]).arg(bundle.write()).run();
        let id = run.success().word().to_owned();
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        scene.runtime().args(["delete", "--force", &id]).run().success();
    });
}

#[test]
fn called_runc_it_is_runc() {
    scene(|scene| {
        let link = scene.path("runc");
        std::os::unix::fs::symlink(binary("runtime"), &link).unwrap();
        let first = Cmd::new(&link).arg("--version").run().success();
        assert!(first.stdout.starts_with("runc version "), "{}", first.stdout);
        let bundle = Bundle::new(scene, &["pause"]);
        let id = scene.id("as-runc");
        Cmd::new(&link).args(["run", "-d", "-b"]).arg(bundle.write()).arg(&id).run().success();
        assert!(fs::exists(format!("/run/runc/{id}/state.json")).unwrap());
        Cmd::new(&link).args(["delete", "-f", &id]).run().success();
    });
}

/// Its first process is made by one that has joined already, and whose pids are not the host's.
#[test]
fn a_container_that_joins_pids_and_has_its_own_users_is_known_by_the_hosts_pid() {
    under_ours(|it| {
        let (first, second) = (it.scene.id("first"), it.scene.id("second"));
        let bundle = Bundle::new(it.scene, &["pause"]);
        it.start_pausing(bundle.write(), &first);
        let pids = format!("/proc/{}/ns/pid", it.pid(&first));
        let ids = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        let namespaces = json!([
            { "type": "pid", "path": pids }, { "type": "user" }, { "type": "mount" },
            { "type": "ipc" }, { "type": "uts" }, { "type": "network" },
        ]);
        let bundle = bundle
            // The pids are not its users' to show.
            .edit("/mounts", json!([]))
            .edit("/linux/namespaces", namespaces)
            .edit("/linux/uidMappings", ids.clone())
            .edit("/linux/gidMappings", ids);
        it.start_pausing(bundle.write(), &second);
        let own = format!("/proc/{}/ns/pid", it.pid(&second));
        assert_eq!(std::fs::read_link(own).unwrap(), std::fs::read_link(pids).unwrap());
        it.run(["exec", &second, "/probe", "echo", "in"]).success().stdout_has("in");
        it.stop(&second);
        it.run(["delete", &second]).success();
        it.run(["delete", "--force", &first]).success();
    });
}

#[test]
fn another_document_takes_the_place_of_the_bundles() {
    // runc has no such flag.
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/process/env", json!(["IN=other"]));
        let other = it.scene.path("other.json");
        fs::rename(bundle.write().join("config.json"), &other).unwrap();
        let dir = Bundle::new(it.scene, &["exit", "3"]).write().to_owned();
        let id = it.scene.id("other");
        let run = it.cmd(["run", "--detach", "--config", "other.json", "--bundle"]);
        run.dir(&it.scene.path("")).arg(&dir).arg(&id).run().success();
        let exec = || it.run(["exec", &id, "/probe"]).success().json()["env"].clone();
        assert_eq!(exec()["IN"], "other");
        fs::remove_file(dir.join("config.json")).unwrap();
        assert_eq!(exec()["IN"], "other");
        it.run(["delete", "--force", &id]).success();
        fs::remove_file(&other).unwrap();
        let run = it.cmd(["run", "--config"]).arg(&other).arg("--bundle").arg(&dir).arg(&id);
        run.run().code(1).refused(&["other.json", "no such file"]);
    });
}
