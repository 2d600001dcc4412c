//! Cgroup limits as the host sees them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::{Subject, under_both, under_ours};
use crate::harness::command::binary;
use crate::harness::{Bundle, scene};

/// Asserts what files of the cgroup of `pid` hold: of v1 `(controller, file, value)`, and where the
/// unified hierarchy rules alone `(file, value)`.
#[track_caller]
pub(super) fn assert_limits(pid: i32, v1: &[(&str, &str, &str)], v2: &[(&str, &str)]) {
    if unified(pid).is_some() {
        for (file, value) in v2 {
            assert_eq!(read(pid, "", file), *value, "{file}");
        }
    } else {
        for (controller, file, value) in v1 {
            assert_eq!(read(pid, controller, file), *value, "{file}");
        }
    }
}

/// The cgroup of `pid` on a host that has cgroup v2 alone.
fn unified(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.strip_prefix("0::").map(|path| path.trim_end().to_owned())
}

/// The file of a v1 controller in the cgroup of `pid`, or of the only cgroup it has.
fn read(pid: i32, controller: &str, file: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = unified(pid).or_else(|| {
        text.lines()
            .filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok())
            .find_map(|[names, path]: [&str; 2]| {
                let found = names.split(',').any(|name| name == controller);
                found.then(|| format!("/{controller}{path}"))
            })
    });
    let path = path.unwrap_or_else(|| panic!("no {controller} in {text}"));
    let file = format!("/sys/fs/cgroup{path}/{file}");
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("read {file}: {error}")).trim().into()
}

#[test]
fn limits_stand_in_the_cgroup() {
    under_both(|it| {
        let resources = json!({
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728 },
            "cpu": { "shares": 512, "quota": 25_000, "period": 50_000, "cpus": "0" },
            "pids": { "limit": 77 },
        });
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/linux/resources", resources)
            .edit("/linux/cgroupsPath", format!("/{}", it.scene.id("limits")));
        let id = it.scene.id("limits");
        it.start_pausing(bundle.write(), &id);
        let pid = it.pid(&id);
        let v1 = [
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_quota_us", "25000"),
            ("cpu", "cpu.cfs_period_us", "50000"),
            ("cpuset", "cpuset.cpus", "0"),
            ("pids", "pids.max", "77"),
        ];
        // The weight for 512 shares is another with each version of runc.
        let v2 = [
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("memory.swap.max", "67108864"),
            ("cpu.max", "25000 50000"),
            ("cpuset.cpus", "0"),
            ("pids.max", "77"),
        ];
        assert_limits(pid, &v1, &v2);
        if unified(pid).is_none() {
            let devices = read(pid, "devices", "devices.list");
            assert!(devices.contains("c 1:3 rwm") && !devices.contains("a *:*"), "{devices}");
        }
        it.run(["delete", "--force", &id]).success();
    });
}

/// runc sorts them.
#[test]
fn rules_for_devices_are_applied_in_the_listed_order() {
    // There the rules are a program's; its tests are with those of cgroup v2.
    if unified(std::process::id().cast_signed()).is_some() {
        return println!("SKIP: cgroup v2 lists no rules for devices");
    }
    under_ours(|it| {
        let allow = |kind: &str, major: u32, minor: u32, access: &str| json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
        let rules = json!([
            { "allow": false, "access": "rwm" },
            allow("c", 10, 229, "rwm"),
            allow("b", 8, 20, "rw"),
            allow("b", 10, 200, "r"),
        ]);
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/linux/resources/devices", rules);
        let id = it.scene.id("order");
        it.start_pausing(bundle.write(), &id);
        let listed = read(it.pid(&id), "devices", "devices.list");
        let first = "c 10:229 rwm\nb 8:20 rw\nb 10:200 r\n";
        assert!(listed.starts_with(first), "{listed}");
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_device_has_its_own_limits_of_io() {
    under_both(|it| {
        let device = fs::metadata(it.scene.path("")).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        if major == 0 {
            return println!("SKIP: the scene does not lie on a block device");
        }
        let limit = |rate: u32| json!([{ "major": major, "minor": minor, "rate": rate }]);
        let limits = json!({
            "throttleReadBpsDevice": limit(1_000_001), "throttleWriteBpsDevice": limit(1_000_002),
            "throttleReadIOPSDevice": limit(1003), "throttleWriteIOPSDevice": limit(1004),
        });
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/linux/resources/blockIO", limits);
        let id = it.scene.id("io");
        it.start_pausing(bundle.write(), &id);
        let number = format!("{major}:{minor}");
        let v1 = [
            ("blkio", "blkio.throttle.read_bps_device", &*format!("{number} 1000001")),
            ("blkio", "blkio.throttle.write_bps_device", &*format!("{number} 1000002")),
            ("blkio", "blkio.throttle.read_iops_device", &*format!("{number} 1003")),
            ("blkio", "blkio.throttle.write_iops_device", &*format!("{number} 1004")),
        ];
        let all = format!("{number} rbps=1000001 wbps=1000002 riops=1003 wiops=1004");
        assert_limits(it.pid(&id), &v1, &[("io.max", &all)]);
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn the_memory_of_tcp_has_a_limit_of_its_own_on_v1() {
    // runc passes it over.
    if unified(std::process::id().cast_signed()).is_some() {
        return println!("SKIP: cgroup v2 has no limit of its own for the memory of TCP");
    }
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/linux/resources/memory", json!({ "kernelTCP": 33_554_432 }));
        let id = it.scene.id("tcp");
        it.start_pausing(bundle.write(), &id);
        let limit = read(it.pid(&id), "memory", "memory.kmem.tcp.limit_in_bytes");
        assert_eq!(limit, "33554432");
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_frozen_container_can_be_thawed_and_force_deleted() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("pause");
        it.start_pausing(bundle.write(), &id);
        it.run(["pause", &id]).success();
        assert_eq!(it.status(&id), "paused");
        it.run(["exec", &id, "/probe"]).code(255).stderr_has("cannot exec in a paused container");
        it.run(["resume", &id]).success();
        assert_eq!(it.status(&id), "running");
        it.run(["pause", &id]).success();
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_cgroup_that_was_refused_keeps_its_container() {
    // Debian's runc only warns.
    scene(|scene| {
        let it = Subject { scene, program: binary("runtime") };
        let path = format!("/{}", scene.id("shared"));
        let (first, second) = (scene.id("first"), scene.id("second"));
        let bundle = Bundle::new(scene, &["pause"]).edit("/linux/cgroupsPath", path);
        it.start_pausing(bundle.write(), &first);
        for verb in ["create", "run"] {
            it.cmd([verb, "--bundle"])
                .arg(bundle.write())
                .arg(&second)
                .run()
                .refused(&["container's cgroup is not empty"]);
            assert_eq!(it.status(&first), "running");
        }
        it.run(["delete", "--force", &first]).success();
    });
}
