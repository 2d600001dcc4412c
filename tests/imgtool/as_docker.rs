//! Flags of `docker run` whose effect docker's own engine judges: the same script, in its container and
//! in ours, must say the same.

use std::path::Path;

use serde_json::json;

use super::docker_flags::{NAME, refused, said};
use super::{Image, Scene, load, scene};
use crate::harness::docker::Engine;

/// Docker's own cgroups are those of the tests' other containers.
fn with_docker(body: impl FnOnce(&Scene, &Engine)) {
    scene(|scene| {
        let image = Image::busybox().with("ExposedPorts", json!({ "80/tcp": {} })).layer(
            crate::harness::tarball::Tarball::of([crate::harness::tarball::Entry::file(
                "etc/group",
                "root:x:0:\nwheel:x:10:\nweb:x:33:\n",
            )]),
        );
        let archive = load(scene, &image, NAME);
        let docker = Engine::overlay();
        docker.docker(["load", "--quiet", "--input"]).arg(&archive).run().success();
        body(scene, docker);
        docker.docker(["rmi", NAME]).run().success();
    });
}

/// What both say.
#[track_caller]
fn alike(scene: &Scene, docker: &Engine, flags: &[&str], script: &str) -> String {
    let judge = docker.docker(["run", "--rm", "--network", "none"]).args(flags);
    let judged = judge.args([NAME, "sh", "-c", script]).run().success().stdout;
    let ours = said(scene, flags, script).0.success().stdout;
    assert_eq!(ours, judged, "{flags:?}");
    ours
}

fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The disk that the tests' directory lies on, or another that there is.
fn disk() -> Option<String> {
    let mut names: Vec<_> = std::fs::read_dir("/sys/block")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| ["vd", "sd", "nvme", "xvd"].iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort();
    names.first().map(|name| format!("/dev/{name}"))
}

#[test]
fn groups_scores_and_settings_of_the_kernel() {
    with_docker(|scene, docker| {
        let groups = ["--group-add", "wheel", "--group-add", "77", "--oom-score-adj", "300"];
        let said = alike(scene, docker, &groups, "id -G; cat /proc/self/oom_score_adj");
        assert_eq!(said, "0 10 77\n300\n");
        let user = ["--user", "33:33", "--group-add", "wheel"];
        assert_eq!(alike(scene, docker, &user, "id -G"), "33 10\n");

        let settings =
            ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.sem=250 32000 32 99"];
        let more = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"];
        let script = "cd /proc/sys; cat net/ipv4/ip_forward kernel/sem; \
                      cat net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range";
        let said = alike(scene, docker, &[&settings[..], &more].concat(), script);
        assert!(said.starts_with("1\n250\t32000\t32\t99\n1024\n"), "{said}");

        refused(scene, &["--group-add", "nogroup"], &["--group-add nogroup", "group file"]);
        refused(scene, &["--uidmap", "0:900000:50", "--group-add", "77"], &["77", "--gidmap"]);
        refused(scene, &["--oom-score-adj", "-1001"], &["--oom-score-adj", "-1000 to 1000"]);
        refused(scene, &["--sysctl", "vm.swappiness=1"], &["vm.swappiness", "on the host"]);
        refused(scene, &["--sysctl", "net.ipv4.ip_forward"], &["KEY=VALUE"]);
        let host = ["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"];
        refused(scene, &host, &["--sysctl net.ipv4.ip_forward", "--network host"]);
    });
}

#[test]
fn times_of_cpus_memory_and_disks() {
    with_docker(|scene, docker| {
        let time = ["--cpu-period", "50000", "--cpu-quota", "20000"];
        let script =
            "cd /sys/fs/cgroup; cat cpu.max || cat cpu/cpu.cfs_period_us cpu/cpu.cfs_quota_us";
        let said = alike(scene, docker, &time, script);
        assert!(said == "50000\n20000\n" || said == "20000 50000\n", "{said}");
        // A container that is given a rule may make the node and use it.
        let rule = ["--device-cgroup-rule", "c 10:229 rw"];
        let script = "mknod /dev/x c 10 229 && : < /dev/x && echo read; \
                      mknod /dev/y c 10 237 && (: < /dev/y) || echo not";
        assert_eq!(alike(scene, docker, &rule, script), "read\nnot\n");
        if let Some(disk) = disk() {
            let (read, write) = (format!("{disk}:1mb"), format!("{disk}:7"));
            let rates = ["--device-read-bps", &read, "--device-write-iops", &write];
            let script = "cd /sys/fs/cgroup; cat io.max || cd blkio && \
                          cat blkio.throttle.read_bps_device blkio.throttle.write_iops_device";
            let said = alike(scene, docker, &rates, script);
            assert!(said.contains("1048576") && said.contains('7'), "{said}");
        }
        let v1 = ["-m", "64m", "--memory-swappiness", "30", "--oom-kill-disable"];
        if is_unified() {
            refused(scene, &v1[2..4], &["--memory-swappiness", "cgroup v2", "--memory-swap"]);
            refused(scene, &v1[4..], &["--oom-kill-disable", "cgroup v2", "--oom-score-adj"]);
        } else {
            let script = "cd /sys/fs/cgroup/memory; cat memory.swappiness memory.oom_control";
            let said = alike(scene, docker, &v1, script);
            assert!(said.starts_with("30\noom_kill_disable 1\n"), "{said}");
        }
        refused(scene, &["--cpus", "1", "--cpu-quota", "20000"], &["--cpus", "--cpu-quota"]);
        refused(scene, &["--cpu-period", "10"], &["--cpu-period 10", "1000 to 1000000"]);
        refused(scene, &["--cpu-rt-runtime", "2000000"], &["--cpu-rt-runtime", "--cpu-rt-period"]);
        refused(scene, &["--memory-swappiness", "101"], &["0 to 100"]);
        let reservation = ["-m", "64m", "--memory-reservation", "65m"];
        refused(scene, &reservation, &["--memory-reservation", "above --memory"]);
        refused(scene, &["--device-cgroup-rule", "c 1"], &["TYPE MAJOR:MINOR ACCESS"]);
        refused(scene, &["--device-read-bps", "/dev/null:1mb"], &["/dev/null", "no block device"]);
        refused(scene, &["--device-read-bps", "/dev/none:1mb"], &["/dev/none"]);
        refused(scene, &["--blkio-weight", "9"], &["--blkio-weight 9", "10 to 1000"]);
    });
}
