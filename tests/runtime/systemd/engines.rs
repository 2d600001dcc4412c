//! Podman with cgroups by systemd, of root and of an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::bundle::rootfs;
use crate::harness::{Cmd, Scene, Witness, requires, scene};

/// Runs a container, changes its limits and looks at its cgroup; `run` runs a line of shell.
fn run_and_update(scene: &Scene, run: impl Fn(&str) -> crate::harness::Outcome) {
    let dir = scene.path("podman");
    let podman = format!(
        "podman --root {0}/root --runroot {0}/runroot --tmpdir {0}/run --storage-driver vfs \
         --cgroup-manager systemd --runtime {1}",
        dir.display(),
        scene.path("witness/runc").display()
    );
    let name = scene.id("podman");
    run(&format!(
        "{podman} run --detach --name {name} --network none --memory 64m --pids-limit 40 \
         --rootfs {}/rootfs /probe pause",
        dir.display()
    ))
    .success();
    let inspect = format!("{podman} inspect --format '{{{{.State.CgroupPath}}}}' {name}");
    let path = run(&inspect).success().stdout.trim().to_owned();
    assert!(path.contains("libpod-") && path.ends_with(".scope"), "{path}");
    let file = |name: &str| {
        let file = format!("/sys/fs/cgroup{path}/{name}");
        let text = fs::read_to_string(&file)
            .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup{path}/container/{name}")));
        text.unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
    };
    assert_eq!((file("memory.max"), file("pids.max")), ("67108864".into(), "40".into()));
    run(&format!("{podman} update --memory 96m {name}")).success();
    assert_eq!(file("memory.max"), "100663296");
    run(&format!("{podman} exec {name} /probe echo there")).success().stdout_has("there");
    run(&format!("{podman} rm --force --time 0 {name}")).success();
    assert!(!fs::exists(format!("/sys/fs/cgroup{path}")).unwrap_or(true), "{path} is left");
}

fn ready() -> bool {
    requires::optional("podman") && requires::users_systemd()
}

fn prepare(scene: &Scene) -> Witness {
    let dir = scene.path("podman");
    rootfs(&dir.join("rootfs"));
    let witness = Witness::new(scene);
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.parent().expect("it has one"), open).expect("chmod the scene");
    Cmd::new("chmod").args(["-R", "a+rwX"]).arg(scene.path("witness")).run().success();
    witness
}

#[test]
fn podman_of_root_limits_by_systemd() {
    if !ready() {
        return;
    }
    scene(|scene| {
        let witness = prepare(scene);
        run_and_update(scene, |line| Cmd::new("sh").args(["-c", line]).run());
        witness.saw(&["--systemd-cgroup create", "update"]);
    });
}

#[test]
fn podman_of_a_user_limits_by_systemd() {
    if !ready() {
        return;
    }
    scene(|scene| {
        let witness = prepare(scene);
        Cmd::new("chown").args(["-R", "rootless"]).arg(scene.path("podman")).run().success();
        run_and_update(scene, |line| {
            Cmd::new("as-user").args(["rootless", "sh", "-c", line]).run()
        });
        // What keeps the user namespace of all of Podman's calls outlives them, and heeds no TERM.
        let pause = "systemctl --user kill --signal KILL 'podman-pause-*.scope' \
                     && systemctl --user stop 'podman-pause-*.scope'";
        Cmd::new("as-user").args(["rootless", "sh", "-c", pause]).run().success();
        witness.saw(&["--systemd-cgroup create", "update"]);
    });
}
