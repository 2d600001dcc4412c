//! What a container shares with the host and with other containers, by docker's flags.

use std::fs;

use super::docker_flags::{NAME, refused, said, with_busybox};
use super::{Scene, remove};
use crate::harness::Cmd;

/// Writes into its shared memory, says that it is there, and stays.
const STAY: &str = "echo kept > /dev/shm/file; echo > /fifo/ready; exec sleep 600";

/// Waits until the container that stays has come so far.
fn await_ready(scene: &Scene) {
    Cmd::new("cat").arg(scene.path("fifo/ready")).run().success();
}

#[test]
fn the_host_s_namespaces_are_seen_where_they_are_asked_for() {
    with_busybox(|scene| {
        let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        for (flag, kind) in
            [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")]
        {
            let script = format!("readlink /proc/self/ns/{kind}");
            let seen = |mode: &str| said(scene, &[flag, mode], &script).0.success().stdout;
            let host = own(kind).display().to_string();
            assert_eq!(seen("host").trim_end(), host, "{flag} host");
            assert_ne!(seen("private").trim_end(), host, "{flag} private");
        }
        let script = "cat /etc/hostname; hostname; echo \"$HOSTNAME\"";
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let seen = said(scene, &["--uts", "host"], script).0.success().stdout;
        assert_eq!(seen, format!("{host}\n").repeat(3));
        // What is in the host's shared memory is in the container's.
        let name = scene.id("shared");
        fs::write(format!("/dev/shm/{name}"), "the host's\n").unwrap();
        let script = format!("cat /dev/shm/{name}");
        let outcome = said(scene, &["--ipc", "host"], &script).0;
        fs::remove_file(format!("/dev/shm/{name}")).unwrap();
        assert_eq!(outcome.success().stdout, "the host's\n");
        let outcome = said(scene, &["--ipc", "none"], "test ! -e /dev/shm && echo none").0;
        assert_eq!(outcome.success().stdout, "none\n");

        let flags = ["--domainname", "example.org", "--hostname", "box"];
        let seen = said(scene, &flags, "hostname; cat /proc/sys/kernel/domainname").0;
        assert_eq!(seen.success().stdout, "box\nexample.org\n");
        let parent = scene.id("parent");
        let seen = said(
            scene,
            &["--cgroup-parent", &format!("/{parent}"), "--cgroupns", "host"],
            "cat /proc/self/cgroup",
        )
        .0;
        seen.success().stdout_has(&format!("/{parent}/"));
        // As with docker's, an empty one is nobody's.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let _ = fs::remove_dir(hierarchy.unwrap().path().join(&parent));
        }
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/{parent}"));

        refused(scene, &["--pid", "x"], &["--pid", "container:ID"]);
        refused(scene, &["--uts", "container:x"], &["--uts", "private or host"]);
        refused(scene, &["--uts", "host", "--hostname", "x"], &["--hostname", "--uts host"]);
        refused(scene, &["--cgroup-parent", "/a/../b"], &["--cgroup-parent"]);
        let sysctl = ["--ipc", "host", "--sysctl", "kernel.shmmni=9"];
        refused(scene, &sysctl, &["kernel.shmmni", "--ipc host"]);
    });
}

#[test]
fn a_container_joins_another_and_finds_it_again_after_its_restart() {
    with_busybox(|scene| {
        fs::create_dir(scene.path("fifo")).unwrap();
        Cmd::new("mkfifo").arg(scene.path("fifo/ready")).run().success();
        let fifo = format!("{}:/fifo", scene.path("fifo").display());
        let words = ["--network", "none", "--ipc", "shareable", "--shm-size", "1m", "-h", "donor"];
        let name = scene.id("given");
        let flags = [&words[..], &["--name", &name, "-v", &fifo]].concat();
        super::bundle(scene, &flags, NAME, "donor", &["sh", "-c", STAY]);
        let start = ["run", "--supervise", "--detach", "--bundle"];
        let donor = scene.runtime().args(start).arg(scene.path("donor")).run().success();
        let donor = donor.word().to_owned();
        await_ready(scene);
        let (short, named) = (format!("container:{}", &donor[..12]), format!("container:{name}"));
        let joins = ["--network", &short, "--pid", &named, "--ipc", &named];
        let script = "ps | grep -c '[s]leep 600'; cat /dev/shm/file; hostname; cat /etc/hostname; \
                      for kind in pid net ipc uts; do readlink /proc/self/ns/$kind; done";
        super::bundle(scene, &joins, NAME, "b", &["sh", "-c", script]);
        let check = || {
            let seen = super::run(scene, "b").success().stdout;
            let lines: Vec<&str> = seen.lines().collect();
            assert_eq!(lines[..4], ["1", "kept", "donor", "donor"], "{seen}");
            let state = scene.runtime().args(["state", &donor]).run().success().json();
            let pid = state["pid"].as_u64().unwrap();
            for (line, kind) in lines[4..].iter().zip(["pid", "net", "ipc", "uts"]) {
                let its = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
                assert_eq!(*line == its.display().to_string(), kind != "uts", "{kind}: {seen}");
            }
        };
        check();
        scene.runtime().args(["stop", "--time", "0", &donor]).run().success();
        // It is not there, and whoever may have its process's number now is not it.
        super::run(scene, "b").refused(&[&donor, "is not running", "start it first"]);
        scene.runtime().args(["start", &donor]).run().success();
        await_ready(scene);
        check();
        scene.runtime().args(["delete", "--force", &donor]).run().success();
        let joined = super::run(scene, "b");
        joined.refused(&[&donor, "is not running"]);
        remove(scene, "b");
        let flags = ["--ipc", &named];
        refused(scene, &flags, &["no such container", &name]);
        remove(scene, "donor");

        let publishes = ["--network", "container:x", "-p", "80:80"];
        refused(scene, &publishes, &["-p needs", "container:ID"]);
        refused(scene, &["--network", "container:x", "-h", "x"], &["--hostname"]);
    });
}

#[test]
fn only_shared_memory_that_is_shareable_is_shared_and_its_mount_comes_and_goes() {
    with_busybox(|scene| {
        let dir = super::bundle(scene, &["--network", "none"], NAME, "b", &["sleep", "600"]);
        let id = scene.id("b");
        let run = scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir).arg(&id);
        run.run().success();
        let joins = format!("container:{id}");
        refused(scene, &["--ipc", &joins], &[&id, "--ipc shareable"]);
        scene.runtime().args(["delete", "--force", &id]).run().success();
        remove(scene, "b");

        let flags = ["--network", "none", "--ipc", "shareable", "--shm-size", "1m"];
        let script = "grep ' /dev/shm ' /proc/mounts";
        let dir = super::bundle(scene, &flags, NAME, "b", &["sh", "-c", script]);
        for verb in ["umount", "mount"] {
            scene.imgtool().arg(verb).arg(&dir).run().success();
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let mounted = mounts.contains(&format!(" {}/shm ", dir.display()));
            assert_eq!(mounted, verb == "mount", "{verb}");
        }
        super::run(scene, "b").success().stdout_has("size=1024k").stdout_has("noexec");
        remove(scene, "b");

        // Without the overlay there is this mount alone: what lacks it does not run on the disk in its place.
        let flags = [&flags[..], &["--copy"]].concat();
        let dir = super::bundle(scene, &flags, NAME, "b", &["sh", "-c", script]);
        super::run(scene, "b").success().stdout_has("size=1024k");
        scene.imgtool().arg("umount").arg(&dir).run().success();
        let id = scene.id("unmounted");
        let run = scene.runtime().args(["run", "--bundle"]).arg(&dir).arg(&id).run();
        run.refused(&["shm/shared"]);
        remove(scene, "b");
    });
}
