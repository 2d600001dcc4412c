//! Hooks across commands: what `create`, `start` and `delete` each run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::{binary, scene, under_both, under_ours};
use crate::harness::Bundle;

/// A hook that writes `word` and the status it was told to `log`.
fn say(word: &str, log: &Path) -> Value {
    let line = format!("echo {word} $(grep -o '\"status\":\"[a-z]*\"') >> {}", log.display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/usr/bin:/bin"] }])
}

#[test]
fn each_command_runs_its_own_hooks() {
    under_both(|it| {
        let log = it.scene.path("log");
        let hooks = json!({
            "createRuntime": say("createRuntime", &log),
            "createContainer": say("createContainer", &log),
            "poststop": say("poststop", &log),
        });
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/hooks", hooks);
        let id = it.scene.id("hooks");
        let read = || fs::read_to_string(&log).unwrap_or_default();
        it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        let created =
            "createRuntime \"status\":\"creating\"\ncreateContainer \"status\":\"creating\"\n";
        assert_eq!(read(), created);
        it.run(["start", &id]).success();
        it.run(["delete", "--force", &id]).success();
        assert_eq!(read(), format!("{created}poststop \"status\":\"stopped\"\n"));
    });
}

/// runc tells `creating`; but the step of the lifecycle that is called so is over by then.
#[test]
fn prestart_hooks_see_a_created_container() {
    under_ours(|it| {
        let log = it.scene.path("log");
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/hooks", json!({ "prestart": say("prestart", &log) }));
        let id = it.scene.id("prestart");
        it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert_eq!(fs::read_to_string(&log).unwrap(), "prestart \"status\":\"created\"\n");
        it.run(["delete", &id]).success();
    });
}

/// Debian's runc still runs these at `create`; the specification wants them after `start`.
#[test]
fn poststart_hooks_run_at_start_and_see_a_running_container() {
    scene(|scene| {
        let log = scene.path("log");
        let hooks = json!({ "poststart": say("poststart", &log) });
        let bundle = Bundle::new(scene, &["pause"]).edit("/hooks", hooks);
        let id = scene.id("poststart");
        scene.runtime().args(["create", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert!(!log.exists(), "poststart ran at create");
        scene.runtime().args(["start", &id]).run().success();
        assert_eq!(fs::read_to_string(&log).unwrap(), "poststart \"status\":\"running\"\n");
        scene.runtime().args(["delete", "--force", &id]).run().success();
    });
}

#[test]
fn a_hook_that_fails_leaves_no_container() {
    under_both(|it| {
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let hooks = json!({ kind: [{ "path": "/bin/true" }, { "path": "/bin/false" }] });
            let bundle = Bundle::new(it.scene, &["pause"]).edit("/hooks", hooks);
            let id = it.scene.id("failing");
            let create = it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run();
            create.code(1).stderr_has("hook #1");
            it.run(["state", &id]).code(1);
        }
    });
}

/// A hook of the container's namespaces has ids there too: what its bundle lies in may be closed to them.
/// runc, as the control, is given an open directory.
#[test]
fn hooks_in_a_user_namespace_run_where_a_bundle_is_closed_to_it() {
    under_both(|it| {
        let ours = it.program == binary("runtime");
        let mode = if ours { 0o700 } else { 0o711 };
        let top = it.scene.path("");
        fs::set_permissions(&top, fs::Permissions::from_mode(mode)).unwrap();
        // A place that all ids may write to.
        let log = std::env::temp_dir().join(it.scene.id("log"));
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        let script = format!(
            "{{ cat /proc/self/uid_map; for kind in user mnt net ipc; do readlink /proc/self/ns/$kind; done; \
             test -e probe && echo in the root; }} >> {}",
            log.display()
        );
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]);
        let kinds = ["mount", "pid", "ipc", "uts", "network", "user"];
        let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        let maps = json!([{ "containerID": 0, "hostID": 900_000, "size": 65_536 }]);
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/hooks", json!({ "createContainer": hook }))
            .edit("/linux/namespaces", namespaces)
            .edit("/linux/uidMappings", maps.clone())
            .edit("/linux/gidMappings", maps);
        let dir = bundle.write();
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(dir.join("rootfs"), Some(900_000), Some(900_000)).unwrap();
        let id = it.scene.id("mapped");
        let create = it.cmd(["create", "--bundle"]).arg(dir).arg(&id).run();
        let told = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        create.success();
        let pid = it.pid(&id);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "900000", "65536"]);
        for (line, kind) in lines[1..].iter().zip(["user", "mnt", "net", "ipc"]) {
            let its = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_eq!(*line, its.display().to_string(), "{kind}");
        }
        assert_eq!(lines[5..], ["in the root"]);
        it.run(["delete", "--force", &id]).success();
    });
}
