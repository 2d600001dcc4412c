//! Values in files, what the kernel refuses, changes and the way back, and what is used.

use std::path::Path;

use serde_json::{Value, json};

use super::{Host, huge_pages, unified};
use crate::harness::eventually;

#[test]
fn huge_pages_and_their_reservations_are_limited() {
    unified(&["hugetlb"], |host| {
        let bundle =
            host.bundle(&["pause"]).edit("/linux/resources/hugepageLimits", huge_pages(4 << 20));
        host.start(bundle.write());
        assert_eq!(host.read("hugetlb.2MB.max"), (4 << 20).to_string());
        if host.view.path(&host.cgroup).join("hugetlb.2MB.rsvd.max").exists() {
            assert_eq!(host.read("hugetlb.2MB.rsvd.max"), (4 << 20).to_string());
        }
        let event = host.runtime(["events", "--stats", &host.id]).run().success().json();
        assert_eq!(event["data"]["hugetlb"]["2MB"], json!({ "failcnt": 0 }));
        host.delete();
    });
}

#[test]
fn every_size_of_huge_pages_goes_by_the_name_that_the_kernel_has_for_it() {
    unified(&["hugetlb"], |host| {
        let mut sizes = Vec::new();
        for entry in std::fs::read_dir("/sys/kernel/mm/hugepages").expect("list the sizes") {
            let name = entry.expect("list the sizes").file_name().into_string().expect("UTF-8");
            let size = name.strip_prefix("hugepages-").and_then(|it| it.strip_suffix("kB"));
            let kilobytes: u64 = size.expect("a size").parse().expect("a number");
            let (number, unit) = match kilobytes {
                small if small < 1 << 10 => (small, "KB"),
                middle if middle < 1 << 20 => (middle >> 10, "MB"),
                large => (large >> 20, "GB"),
            };
            sizes.push((format!("{number}{unit}"), kilobytes << 10));
        }
        // In the letters of the specification, and in others that runc takes as well.
        for key in ["pageSize", "pagesize"] {
            let limits = sizes.iter().map(|(name, limit)| json!({ key: name, "limit": limit }));
            let limits: Value = limits.collect();
            host.start(
                host.bundle(&["pause"]).edit("/linux/resources/hugepageLimits", limits).write(),
            );
            for (name, limit) in &sizes {
                assert_eq!(host.read(&format!("hugetlb.{name}.max")), limit.to_string());
            }
            host.delete();
        }
    });
}

#[test]
fn what_the_kernel_refuses_is_told_with_its_field_and_file() {
    unified(&["hugetlb"], |host| {
        let sizes = json!([{ "pageSize": "2MB", "limit": 0 }, { "pageSize": "3MB", "limit": 0 }]);
        let bundle = host.bundle(&[]).edit("/linux/resources/hugepageLimits", sizes);
        let file = format!("{}/hugetlb.3MB.max", host.cgroup);
        host.refused(bundle.write(), &["linux.resources.hugepageLimits[1]: ", &file]);

        for (key, value, words) in [
            ("nonesuch.max", "1", ["can't be set: controller ", " not available: "]),
            ("cgroup/procs", "1", ["unified resource ", " must be a file name (no slashes)"]),
            ("pids", "1", ["unified resource ", " must be in the form CONTROLLER.PARAMETER"]),
            ("cgroup.max.depth", "deep", ["unable to set unified resource ", "invalid argument"]),
        ] {
            let bundle = host.bundle(&[]).edit("/linux/resources/unified", json!({ key: value }));
            let words: Vec<&str> =
                ["linux.resources.unified: ", key].into_iter().chain(words).collect();
            host.refused(bundle.write(), &words);
            assert!(!host.view.path(&host.cgroup).exists(), "{key}: the cgroup is left");
        }
    });
}

#[test]
fn a_controller_that_is_nowhere_is_named() {
    unified(&[], |host| {
        if host.view.read("cgroup.controllers").contains("pids") {
            println!("SKIP: the cgroup v2 hierarchy of this host has all controllers");
            return;
        }
        let bundle = host.bundle(&[]).edit("/linux/resources/pids", json!({ "limit": 5 }));
        host.refused(
            bundle.write(),
            &["linux.resources.pids.limit: ", "has no controller pids", "pids.max"],
        );
    });
}

#[test]
fn files_of_the_users_own_are_written_line_by_line() {
    unified(&["hugetlb"], |host| {
        let unified =
            json!({ "cgroup.max.descendants": "7", "hugetlb.2MB.max": "\n2097152\n4194304\n" });
        let bundle = host
            .bundle(&["pause"])
            .edit("/linux/resources/hugepageLimits", huge_pages(0))
            .edit("/linux/resources/unified", unified);
        host.start(bundle.write());
        assert_eq!(host.read("cgroup.max.descendants"), "7");
        assert_eq!(host.read("hugetlb.2MB.max"), "4194304");
        host.delete();
    });
}

#[test]
fn a_change_that_fails_leaves_nothing_changed() {
    unified(&["hugetlb"], |host| {
        host.start(host.bundle(&["pause"]).write());
        let update = |change: Value| {
            let line = host.runtime(["update", "--resources", "-", &host.id]);
            line.stdin(change.to_string()).run()
        };
        update(json!({ "unified": { "cgroup.max.depth": "9" } })).success();
        update(json!({
            "hugepageLimits": huge_pages(4 << 20),
            "unified": { "cgroup.max.depth": "8", "cgroup.max.descendants": "x" },
        }))
        .refused(&["linux.resources.unified: ", "cgroup.max.descendants"]);
        // One that was never set, and one that was.
        assert_eq!(host.read("hugetlb.2MB.max"), "max");
        assert_eq!(host.read("cgroup.max.depth"), "9");
        update(json!({ "hugepageLimits": huge_pages(4 << 20) })).success();
        assert_eq!(host.read("hugetlb.2MB.max"), (4 << 20).to_string());
        host.delete();
    });
}

#[test]
fn numbers_of_v1_are_converted() {
    unified(&["memory", "cpu", "pids", "cpuset"], |host| {
        let resources = json!({
            "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728 },
            "cpu": {
                "shares": 512, "quota": 25_000, "period": 50_000, "burst": 20_000, "cpus": "0",
                "mems": "0"
            },
            "pids": { "limit": 0 },
        });
        host.start(host.bundle(&["pause"]).edit("/linux/resources", resources).write());
        for (file, value) in [
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("memory.swap.max", "67108864"),
            ("cpu.weight", "59"),
            ("cpu.max", "25000 50000"),
            ("cpu.max.burst", "20000"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
            ("pids.max", "1"),
        ] {
            if host.view.path(&host.cgroup).join(file).exists() || file != "memory.swap.max" {
                assert_eq!(host.read(file), value, "{file}");
            }
        }
        host.delete();
    });
}

#[test]
fn every_flag_of_update_reaches_its_file() {
    unified(&["memory", "cpu", "pids", "cpuset"], |host| {
        let resources = json!({
            "memory": { "limit": 67_108_864 },
            "cpu": { "shares": 512, "quota": 25_000, "period": 50_000 },
        });
        host.start(host.bundle(&["pause"]).edit("/linux/resources", resources).write());
        let update =
            |flag: &str, value: &str| host.runtime(["update", flag, value, &host.id]).run();
        for (flag, value, file, text) in [
            ("--memory", "128M", "memory.max", "134217728"),
            ("--memory-reservation", "1M", "memory.low", "1048576"),
            ("--memory", "-1", "memory.max", "max"),
            ("--cpu-quota", "30000", "cpu.max", "30000 50000"),
            ("--cpu-period", "60000", "cpu.max", "30000 60000"),
            ("--cpu-burst", "10000", "cpu.max.burst", "10000"),
            ("--cpu-quota", "-1", "cpu.max", "max 60000"),
            ("--cpu-share", "1024", "cpu.weight", "100"),
            ("--cpu-idle", "1", "cpu.idle", "1"),
            // The kernel has forgotten the weight.
            ("--cpu-idle", "0", "cpu.weight", "100"),
            ("--cpu-idle", "1", "cpu.idle", "1"),
            // A weight is the end of idleness.
            ("--cpu-share", "512", "cpu.idle", "0"),
            ("--cpu-share", "512", "cpu.weight", "59"),
            ("--cpuset-cpus", "0", "cpuset.cpus", "0"),
            ("--cpuset-mems", "0", "cpuset.mems", "0"),
            ("--pids-limit", "33", "pids.max", "33"),
            ("--pids-limit", "-1", "pids.max", "max"),
        ] {
            update(flag, value).success();
            assert_eq!(host.read(file), text, "{flag} {value}");
        }
        for (flag, value, field, file) in [
            ("--cpuset-cpus", "5000", "cpu.cpus", "cpuset.cpus"),
            ("--cpu-period", "1", "cpu.period", "cpu.max"),
            ("--cpu-idle", "3", "cpu.idle", "cpu.idle"),
        ] {
            let before = host.read(file);
            let field = format!("linux.resources.{field}: ");
            update(flag, value).refused(&[&field, &format!("{}/{file}", host.cgroup)]);
            assert_eq!(host.read(file), before, "{flag} {value}");
        }
        host.delete();
    });
}

#[test]
fn a_limit_below_what_is_used_is_refused_on_request() {
    unified(&["memory"], |host| {
        let limit = json!({ "limit": 67_108_864 });
        host.start(host.bundle(&["pause"]).edit("/linux/resources/memory", limit).write());
        let change = r#"{"memory":{"limit":4096,"swap":8192,"checkBeforeUpdate":true}}"#;
        host.runtime(["update", "--resources", "-", &host.id])
            .stdin(change)
            .run()
            .refused(&["linux.resources.memory.swap: rejecting memory+swap limit 8192 <= usage "]);
        assert_eq!(host.read("memory.max"), "67108864");
        host.delete();
    });
}

#[test]
fn devices_are_throttled_and_changed_one_by_one() {
    unified(&["io"], |host| {
        let Some((major, minor)) = disk() else {
            println!("SKIP: this host has no disk to throttle");
            return;
        };
        let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
        let throttles = json!({
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteIOPSDevice": rate(77),
        });
        host.start(host.bundle(&["pause"]).edit("/linux/resources/blockIO", throttles).write());
        let line = |text: &str| format!("{major}:{minor} {text}");
        assert_eq!(host.read("io.max"), line("rbps=1048576 wbps=max riops=max wiops=77"));
        let update = |blocks: Value| {
            let line = host.runtime(["update", "--resources", "-", &host.id]);
            line.stdin(json!({ "blockIO": blocks }).to_string()).run()
        };
        update(json!({ "throttleWriteIOPSDevice": rate(0) })).success();
        assert_eq!(host.read("io.max"), line("rbps=1048576 wbps=max riops=max wiops=max"));
        update(json!({
            "throttleReadBpsDevice": rate(5),
            "throttleReadIOPSDevice": [{ "major": 4095, "minor": 0, "rate": 1 }],
        }))
        .refused(&["linux.resources.blockIO.throttleReadIOPSDevice[0]: ", "io.max"]);
        assert_eq!(host.read("io.max"), line("rbps=1048576 wbps=max riops=max wiops=max"));
        host.delete();
    });
}

/// The numbers of a whole disk, such as that under the root directory.
fn disk() -> Option<(u32, u32)> {
    let disks = std::fs::read_dir("/sys/block").ok()?.flatten();
    let numbers = disks
        .filter(|disk| disk.path().join("device").exists())
        .find_map(|disk| std::fs::read_to_string(disk.path().join("dev")).ok())?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn use_is_told_and_so_is_a_kill_for_want_of_memory() {
    unified(&["memory", "cpu", "pids"], |host| {
        let limits = json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 }, "pids": { "limit": 9 } });
        host.start(host.bundle(&["pause"]).edit("/linux/resources", limits).write());
        let data =
            host.runtime(["events", "--stats", &host.id]).run().success().json()["data"].take();
        assert_eq!(data["pids"], json!({ "current": 1, "limit": 9 }));
        let usage = &data["memory"]["usage"];
        assert_eq!(usage["limit"], 33_554_432);
        assert!(usage["usage"].as_u64() > Some(0), "{data}");
        assert_eq!(data["memory"]["swap"]["limit"], 33_554_432, "memory and swap together");
        assert!(data["memory"]["raw"]["anon"].is_u64() && data["cpu"]["usage"]["total"].is_u64());
        if Path::new("/proc/pressure").exists() {
            assert!(data["cpu"]["psi"]["some"]["avg10"].is_f64(), "{data}");
        }
        told_of_the_kill(host);
        host.delete();
    });
}

/// `events` runs while a further process eats more than there is.
fn told_of_the_kill(host: &Host) {
    let events = host.scene.path("events");
    let file = std::fs::File::create(&events).expect("create a file");
    let mut watching = host.runtime(["events", "--interval", "1h", &host.id]).start(file);
    // It has looked at the count once it watches the file.
    let inotify = || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", watching.id())).expect("list fds");
        fds.flatten().any(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|it| it.to_string_lossy().contains("inotify"))
        })
    };
    assert!(eventually(inotify), "events does not watch");
    host.runtime(["exec", &host.id, "/probe", "eat", "67108864"]).run().code(137);
    host.runtime(["kill", &host.id, "KILL"]).run().success();
    watching.wait().expect("wait for events");
    let lines = std::fs::read_to_string(&events).expect("read the events");
    assert!(
        lines.starts_with(&format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", host.id)),
        "{lines}"
    );
}
