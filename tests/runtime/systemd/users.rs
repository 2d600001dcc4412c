//! Ordinary users with a systemd of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::bundle::rootfs;
use crate::harness::command::binary;
use crate::harness::{Cmd, Outcome, Scene, requires, scene};

/// A line of shell as an ordinary user of the machine of `tests/vm`, in a directory of its own.
fn as_user(scene: &Scene, script: &str) -> Outcome {
    let dir = scene.path("user");
    if !dir.exists() {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.parent().expect("it has one"), open).expect("chmod the scene");
        rootfs(&dir.join("rootfs"));
        Cmd::new("chown").args(["-R", "rootless"]).arg(&dir).run().success();
    }
    let script = format!("set -e; cd {}; {script}", dir.display());
    Cmd::new("as-user").args(["rootless", "sh", "-c", &script]).run()
}

/// Starts a user's container that stays, limited to 30 processes and 50 MB.
fn run_limited(scene: &Scene, global: &str, id: &str) {
    let runtime = binary("runtime").display().to_string();
    let edit = r#".process.args = ["/probe", "pause"] | .process.terminal = false
        | .linux.resources = { pids: { limit: 30 }, memory: { limit: 50000000 } }"#;
    as_user(
        scene,
        &format!(
            "{runtime} spec --rootless; jq '{edit}' config.json > new; mv new config.json; \
             {runtime} {global} run --detach {id} > log 2>&1 < /dev/null"
        ),
    )
    .success();
}

#[test]
fn a_users_container_is_a_scope_of_the_users_systemd() {
    if !requires::users_systemd() {
        return;
    }
    scene(|scene| {
        let runtime = binary("runtime").display().to_string();
        let id = scene.id("user");
        run_limited(scene, "--systemd-cgroup", &id);
        let unit = format!("runtime-{id}.scope");
        let show = |name: &str| {
            let shown = as_user(scene, &format!("systemctl --user show --value -p {name} {unit}"));
            shown.success().stdout.trim().to_owned()
        };
        let path = show("ControlGroup");
        assert!(path.ends_with(&format!("/user@1000.service/user.slice/{unit}")), "{path}");
        let file = |name: &str| {
            let text = fs::read_to_string(format!("/sys/fs/cgroup{path}/{name}"));
            text.expect("read a file of the cgroup").trim().to_owned()
        };
        assert_eq!((show("TasksMax"), file("pids.max")), ("30".into(), "30".into()));
        assert_eq!(file("memory.max"), "49999872");
        as_user(scene, &format!("{runtime} update --pids-limit 20 {id}")).success();
        assert_eq!((show("TasksMax"), file("pids.max")), ("20".into(), "20".into()));
        as_user(scene, &format!("{runtime} pause {id}; {runtime} resume {id}")).success();
        // The process comes from another part of the tree, where only systemd may take it from.
        as_user(
            scene,
            &format!("{runtime} exec --detach {id} /probe pause > log 2>&1 < /dev/null"),
        )
        .success();
        assert_eq!(file("cgroup.procs").lines().count(), 2);
        as_user(scene, &format!("{runtime} delete --force {id}")).success();
        assert_eq!(show("LoadState"), "not-found");
    });
}

/// No systemd is asked for anything: the part of the tree that it has given to the user will do.
#[test]
fn a_users_container_has_its_limits_where_cgroups_are_delegated() {
    if !requires::users_systemd() {
        return;
    }
    scene(|scene| {
        let runtime = binary("runtime").display().to_string();
        let id = scene.id("delegated");
        run_limited(scene, "", &id);
        let pid = as_user(scene, &format!("{runtime} state {id}")).success().json()["pid"].clone();
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its cgroup");
        let path = own.trim().trim_start_matches("0::").to_owned();
        assert!(path.contains("/user@1000.service/") && path.ends_with(&id), "{path}");
        let cgroup = Path::new("/sys/fs/cgroup").join(&path[1..]);
        let file = |name: &str| {
            let text = fs::read_to_string(cgroup.join(name)).expect("read a file of the cgroup");
            text.trim().to_owned()
        };
        assert_eq!((file("pids.max"), file("memory.max")), ("30".into(), "49999872".into()));
        as_user(scene, &format!("{runtime} update --pids-limit 20 {id}")).success();
        assert_eq!(file("pids.max"), "20");
        as_user(scene, &format!("{runtime} pause {id}; {runtime} resume {id}")).success();
        let exec = format!("{runtime} exec --detach {id} /probe pause > log 2>&1 < /dev/null");
        as_user(scene, &exec).success();
        assert_eq!(file("cgroup.procs").lines().count(), 2);
        as_user(scene, &format!("{runtime} delete --force {id}")).success();
        assert!(!cgroup.exists(), "{} is left", cgroup.display());
    });
}

#[test]
fn without_a_bus_of_the_users_the_remedy_is_named() {
    if !requires::users_systemd() {
        return;
    }
    scene(|scene| {
        let runtime = binary("runtime").display().to_string();
        let script = format!(
            "unset DBUS_SESSION_BUS_ADDRESS; {runtime} spec --rootless; \
             env XDG_RUNTIME_DIR=/nowhere {runtime} --root root --systemd-cgroup run x"
        );
        as_user(scene, &script).refused(&["/nowhere/bus: no such file", "loginctl"]);
    });
}
