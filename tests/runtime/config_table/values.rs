//! Values of the right type that can not be meant, one by one.

use serde_json::{Value, json};

use super::{create, flaw, leftovers, report, shown};
use crate::harness::{Bundle, scene};

/// Pointer into the base configuration, value, and words besides the field's name.
fn table() -> Vec<(&'static str, Value, &'static str)> {
    let mount =
        |options: Value| json!([{ "destination": "/x", "type": "tmpfs", "options": options }]);
    let rule = |rule: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    let uid = i64::from(u32::MAX);
    vec![
        ("/ociVersion", json!("2.0.0"), "2.0.0"),
        ("/ociVersion", json!("one"), "one"),
        ("/process/cwd", json!(""), "must not be empty"),
        ("/process/cwd", json!("relative"), "absolute"),
        ("/process/args", json!([]), "must not be empty"),
        ("/process/env/0", json!("WITHOUT"), "WITHOUT"),
        ("/process/env/0", json!("=value"), "=value"),
        ("/process/args/0", json!("a\0b"), "nul byte"),
        ("/process/user/uid", json!(uid), "range"),
        ("/process/user/uid", json!(uid + 1), "u32"),
        ("/process/user/uid", json!(-1), "u32"),
        ("/process/user/gid", json!(uid), "range"),
        ("/process/user/gid", json!(-1), "u32"),
        ("/process/user/additionalGids", json!([0, uid]), "range"),
        ("/process/user/umask", json!(-1), "u32"),
        ("/process/user/umask", json!(0o1000), "umask"),
        ("/process/rlimits", json!([{ "type": "RLIMIT_WISHES", "soft": 1, "hard": 1 }]), "WISHES"),
        ("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]), "soft"),
        ("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": -2, "hard": 1 }]), "u64"),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_CORE" }, { "type": "RLIMIT_CORE" }]),
            "RLIMIT_CORE",
        ),
        ("/process/oomScoreAdj", json!(1001), "1001"),
        ("/process/oomScoreAdj", json!(-1001), "-1001"),
        ("/process/consoleSize", json!({ "height": 65536, "width": 1 }), "u16"),
        ("/process/apparmorProfile", json!("any"), "apparmor"),
        ("/process/selinuxLabel", json!("any"), "selinux"),
        ("/process/scheduler", json!({ "policy": "SCHED_SOON" }), ""),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_VIP", "priority": 1 }), ""),
        ("/process/execCPUAffinity", json!({ "initial": "one" }), "one"),
        ("/process/execCPUAffinity", json!({ "final": "3-1" }), "3-1"),
        ("/root", json!(null), "must be specified"),
        ("/root/path", json!(""), "must be specified"),
        ("/root/path", json!("nowhere"), "no such file or directory"),
        ("/root/path", json!("rootfs/probe"), "not a directory"),
        ("/hostname", json!("h".repeat(65)), "64"),
        ("/domainname", json!("d".repeat(65)), "64"),
        ("/mounts", json!([{ "destination": "", "type": "tmpfs" }]), "root itself"),
        ("/mounts", json!([{ "destination": "/", "type": "tmpfs" }]), "root itself"),
        ("/mounts", json!([{ "destination": "/proc/self/attr", "type": "tmpfs" }]), "/proc"),
        ("/mounts", json!([{ "destination": "/x", "type": "wishfs" }]), "wishfs"),
        ("/mounts", mount(json!(["no-such-option"])), "no-such-option"),
        ("/mounts", mount(json!(["size=lots"])), "size=lots"),
        ("/mounts", mount(json!(["idmap"])), "bind mounts only"),
        (
            "/mounts",
            json!([{ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] }]),
            "no such file or directory",
        ),
        ("/hooks", json!({ "prestart": [{ "path": "bin/true" }] }), "absolute"),
        ("/hooks", json!({ "poststop": [{ "path": "" }] }), "absolute"),
        ("/hooks", json!({ "createRuntime": [{ "path": "/bin/true", "timeout": 0 }] }), "timeout"),
        ("/hooks", json!({ "startContainer": [{ "path": "/x", "env": ["WITHOUT"] }] }), "WITHOUT"),
        ("/linux/namespaces", json!([{ "type": "mount" }, { "type": "flavour" }]), "flavour"),
        ("/linux/namespaces", json!([{ "type": "mount" }, { "type": "mount" }]), "mount"),
        (
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "uts", "path": "/no" }]),
            "/no",
        ),
        ("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 0, "size": 1 }]), "namespace"),
        ("/linux/gidMappings", json!([{ "containerID": 0, "hostID": 0, "size": 1 }]), "namespace"),
        ("/linux/timeOffsets", json!({ "monotonic": { "secs": 1 } }), "namespace"),
        ("/linux/timeOffsets", json!({ "wall": { "secs": 1 } }), "namespace"),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "q" }]), "q"),
        ("/linux/devices", json!([{ "path": "", "type": "c", "major": 1, "minor": 3 }]), "path"),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": -1 }]), "-1"),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "uid": -1 }]), "u32"),
        ("/linux/netDevices", json!({ "no-such-dev": {} }), "no-such-dev"),
        ("/linux/resources/devices/0", json!({ "allow": true, "type": "q", "access": "r" }), "q"),
        ("/linux/resources/devices/0", json!({ "allow": true, "access": "rx" }), "rx"),
        ("/linux/resources/memory", json!({ "limit": 1, "swap": 0.5 }), "i64"),
        ("/linux/resources/memory", json!({ "swappiness": 101 }), "101"),
        ("/linux/resources/memory", json!({ "limit": 8_388_608, "swap": 4_194_304 }), "swap"),
        ("/linux/resources/cpu", json!({ "cpus": "many" }), "many"),
        ("/linux/resources/cpu", json!({ "mems": "1-" }), "1-"),
        ("/linux/resources/cpu", json!({ "period": 1 }), "cpu"),
        ("/linux/resources/cpu", json!({ "shares": -1 }), "u64"),
        ("/linux/resources/blockIO", json!({ "weight": 5 }), "5"),
        ("/linux/resources/blockIO", json!({ "weight": 65536 }), "u16"),
        ("/linux/resources/hugepageLimits", json!([{ "pageSize": "3KB", "limit": 1 }]), "hugetlb"),
        ("/linux/resources/unified", json!({ "memory.high": "1" }), "unified"),
        ("/linux/resources/rdma", json!({ "none0": { "hcaHandles": 1 } }), ""),
        ("/linux/rootfsPropagation", json!("sideways"), "sideways"),
        ("/linux/sysctl", json!({ "kernel.panic": "1" }), "kernel.panic"),
        ("/linux/sysctl", json!({ "net.no.such": "1" }), "net/no/such"),
        ("/linux/sysctl", json!({ "net/../kernel/panic": "1" }), "not a name"),
        ("/linux/mountLabel", json!("any"), "selinux"),
        ("/linux/intelRdt", json!({ "closID": "a/b" }), "ntelRdt"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_WISH", "nodes": "0" }), ""),
        ("/linux/personality", json!({ "domain": "LINUX8" }), ""),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_PERHAPS" }), "SCMP_ACT_PERHAPS"),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"],
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] }),
            "SCMP_ARCH_Z80",
        ),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FLY"],
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] }),
            "SECCOMP_FILTER_FLAG_FLY",
        ),
        ("/linux/seccomp", rule(json!({ "names": ["mkdir"], "action": "NONE" })), "NONE"),
        (
            "/linux/seccomp",
            rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" })),
            "listenerPath",
        ),
        (
            "/linux/seccomp",
            rule(json!({ "names": ["write"], "action": "SCMP_ACT_NOTIFY" })),
            "write",
        ),
        (
            "/linux/seccomp",
            rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] })),
            "6",
        ),
        (
            "/linux/seccomp",
            rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_ABOUT" }] })),
            "SCMP_CMP_ABOUT",
        ),
    ]
}

/// Puts the value there, making the objects on the way.
fn put(config: &mut Value, pointer: &str, value: Value) {
    let mut place = config;
    for part in pointer.split('/').skip(1) {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
}

#[test]
fn a_value_that_can_not_be_meant_is_told_with_its_field() {
    scene(|scene| {
        let mut flaws = Vec::new();
        let table = table();
        for (pointer, value, word) in &table {
            let mut bundle = Bundle::new(scene, &[]);
            put(&mut bundle.config, pointer, value.clone());
            let outcome = create(scene, bundle.write());
            let flaw = flaw(&outcome, &[&shown(pointer), word]);
            if outcome.code == 0 {
                scene
                    .runtime()
                    .arg("--root")
                    .arg(scene.path("state"))
                    .args(["delete", "-f", &scene.id("table")])
                    .run();
            }
            flaws.extend(flaw.map(|flaw| format!("{pointer} = {value}: {flaw}")));
            assert_eq!(leftovers(scene), [""; 0], "{pointer} = {value}");
        }
        report(&flaws, table.len());
    });
}
