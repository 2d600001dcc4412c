//! Cgroups by systemd: units, properties, and what systemd does with them later. What has systemd
//! as the first process runs in the machine of `tests/vm`; what has a bus that fails, elsewhere.
//! Debian's runc is no control there: it writes a quota as it was given, leaves `NeedDaemonReload` at
//! yes, and takes `nsdelegate` from the host's own mount.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Subject, under_ours};
use crate::harness::{Bundle, Cmd, requires};

mod bus;
mod engines;
mod users;

/// A container of the unit `e2e-ID.scope` in nested slices.
struct Contained<'a> {
    it: &'a Subject<'a>,
    id: String,
    unit: String,
}

impl<'a> Contained<'a> {
    fn start(it: &'a Subject<'a>, edit: impl FnOnce(Bundle) -> Bundle) -> Self {
        let id = it.scene.id("systemd");
        let unit = format!("e2e-{id}.scope");
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/linux/cgroupsPath", format!("e2e-inner.slice:e2e:{id}"));
        let bundle = edit(bundle);
        it.cmd(["--systemd-cgroup", "run", "--detach", "--bundle"])
            .arg(bundle.write())
            .arg(&id)
            .run()
            .success();
        Self { it, id, unit }
    }

    /// What systemd says of the unit.
    #[track_caller]
    fn property(&self, name: &str) -> String {
        let value = Cmd::new("systemctl").args(["show", "--value", "-p", name, &self.unit]).run();
        value.success().stdout.trim().to_owned()
    }

    #[track_caller]
    fn properties(&self, expected: &[(&str, &str)]) {
        for (name, value) in expected {
            assert_eq!(self.property(name), *value, "{name}");
        }
    }

    /// A file of the cgroup.
    #[track_caller]
    fn file(&self, name: &str) -> String {
        let path = format!("/sys/fs/cgroup/e2e.slice/e2e-inner.slice/{}/{name}", self.unit);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.trim().to_owned()
    }

    #[track_caller]
    fn files(&self, expected: &[(&str, &str)]) {
        for (name, value) in expected {
            assert_eq!(self.file(name), *value, "{name}");
        }
    }

    /// True if the rules for devices refuse to have it opened for reading.
    #[track_caller]
    fn refuses(&self, device: &str) -> bool {
        let answer = self.it.run(["exec", &self.id, "/probe", "try", "read", device]).success();
        answer.word() == "EPERM"
    }

    /// Deletes it; neither the unit nor its cgroup is left.
    #[track_caller]
    fn delete(self) {
        self.it.run(["delete", "--force", &self.id]).success();
        assert_eq!(self.property("LoadState"), "not-found");
        let path = Path::new("/sys/fs/cgroup/e2e.slice/e2e-inner.slice").join(&self.unit);
        assert!(!path.exists(), "{} is left", path.display());
        // Slices stay, as of any unit that was in them.
        Cmd::line("systemctl stop e2e.slice").run().success();
    }
}

fn limits() -> Value {
    json!({
        "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728 },
        "cpu": { "shares": 512, "quota": 12_345, "period": 100_000, "cpus": "0" },
        "pids": { "limit": 77 },
        "unified": { "memory.high": "60000000" },
    })
}

#[test]
fn a_container_is_a_scope_with_its_limits() {
    if !requires::systemd() {
        return;
    }
    under_ours(|it| {
        let scope = Contained::start(it, |bundle| bundle.edit("/linux/resources", limits()));
        let path = format!("/e2e.slice/e2e-inner.slice/{}", scope.unit);
        scope.properties(&[
            ("ActiveState", "active"),
            ("ControlGroup", &path),
            ("Slice", "e2e-inner.slice"),
            ("Delegate", "yes"),
            ("MemoryMax", "67108864"),
            ("MemoryLow", "33554432"),
            ("MemorySwapMax", "67108864"),
            ("MemoryHigh", "60000000"),
            ("CPUQuotaPerSecUSec", "130ms"),
            ("CPUQuotaPeriodUSec", "100ms"),
            ("AllowedCPUs", "0"),
            ("TasksMax", "77"),
            ("DevicePolicy", "strict"),
            ("NeedDaemonReload", "no"),
        ]);
        // systemd's rounding of the quota is the kernel's too.
        scope.files(&[
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("memory.swap.max", "67108864"),
            ("cpu.max", "13000 100000"),
            ("cpuset.cpus", "0"),
            ("pids.max", "77"),
            ("cgroup.procs", &it.pid(&scope.id).to_string()),
        ]);
        let told = it.run(["exec", &scope.id, "/probe", "cat", "/proc/self/cgroup"]).success();
        assert!(told.stdout.contains(&scope.unit) || told.word() == "0::/", "{}", told.stdout);
        scope.delete();
    });
}

#[test]
fn an_update_is_systemds_and_the_kernels() {
    if !requires::systemd() {
        return;
    }
    under_ours(|it| {
        let scope = Contained::start(it, |bundle| bundle.edit("/linux/resources", limits()));
        it.run(["update", "--memory", "96M", "--memory-swap", "128M", &scope.id]).success();
        it.run(["update", "--pids-limit", "33", "--cpu-quota", "20001", &scope.id]).success();
        let check = || {
            scope.properties(&[
                ("MemoryMax", "100663296"),
                ("MemorySwapMax", "33554432"),
                ("MemoryLow", "33554432"),
                ("TasksMax", "33"),
                ("CPUQuotaPerSecUSec", "210ms"),
                ("CPUQuotaPeriodUSec", "100ms"),
            ]);
            scope.files(&[
                ("memory.max", "100663296"),
                ("memory.swap.max", "33554432"),
                ("memory.low", "33554432"),
                ("pids.max", "33"),
                ("cpu.max", "21000 100000"),
            ]);
        };
        check();
        // When it reads all again systemd writes what it knows.
        Cmd::line("systemctl daemon-reload").run().success();
        check();
        it.run(["pause", &scope.id]).success();
        assert_eq!(it.status(&scope.id), "paused");
        it.run(["update", "--pids-limit", "34", &scope.id]).success();
        scope.properties(&[("TasksMax", "34")]);
        it.run(["resume", &scope.id]).success();
        assert_eq!(scope.file("pids.max"), "34");
        scope.delete();
    });
}

#[test]
fn a_refused_update_changes_neither() {
    if !requires::systemd() {
        return;
    }
    under_ours(|it| {
        let scope = Contained::start(it, |bundle| bundle.edit("/linux/resources", limits()));
        it.cmd(["update", "--resources", "-", &scope.id])
            .stdin(r#"{"pids":{"limit":5},"unified":{"memory.nothing":"1"}}"#)
            .run()
            .refused(&["memory.nothing"]);
        scope.properties(&[("TasksMax", "77")]);
        scope.files(&[("pids.max", "77")]);
        scope.delete();
    });
}

#[test]
fn annotations_become_properties() {
    if !requires::systemd() {
        return;
    }
    under_ours(|it| {
        let annotations = json!({
            "org.systemd.property.TimeoutStopSec": "7",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.SendSIGHUP": "true",
            "org.systemd.property.Documentation": "['http://a.example/', 'http://b.example/']",
        });
        let scope = Contained::start(it, |mut bundle| {
            bundle.config["annotations"] = annotations.clone();
            bundle
        });
        scope.properties(&[
            ("TimeoutStopUSec", "7s"),
            ("CollectMode", "inactive-or-failed"),
            ("SendSIGHUP", "yes"),
            ("Documentation", "http://a.example/ http://b.example/"),
        ]);
        scope.delete();
    });
}

#[test]
fn what_systemd_refuses_leaves_nothing() {
    if !requires::systemd() {
        return;
    }
    under_ours(|it| {
        let id = it.scene.id("refused");
        for (name, value, words) in [
            ("Nonsense", "1", ["unable to start unit", "Nonsense"]),
            ("TimeoutStopSec", "'x'", ["TimeoutStopSec", "not a number"]),
            ("X-Y", "1", ["X-Y", "contains non-alphabetic character"]),
        ] {
            let mut bundle = Bundle::new(it.scene, &["pause"]);
            bundle.config["annotations"] = json!({ format!("org.systemd.property.{name}"): value });
            it.cmd(["--systemd-cgroup", "run", "--bundle"])
                .arg(bundle.write())
                .arg(&id)
                .run()
                .refused(&words);
            it.run(["state", &id]).refused(&["container does not exist"]);
        }
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/linux/cgroupsPath", "/a/b");
        it.cmd(["--systemd-cgroup", "run", "--bundle"])
            .arg(bundle.write())
            .arg(&id)
            .run()
            .refused(&["expected cgroupsPath to be of format", "slice:prefix:name", "/a/b"]);
    });
}

/// The node of no module: opening it has no effect, and the answer ENXIO or ENODEV.
const NODE: &str = "/dev/loop-control";

#[test]
fn rules_for_devices_survive_a_reload() {
    if !requires::systemd() {
        return;
    }
    let node = json!([{ "path": NODE, "type": "c", "major": 10, "minor": 237 }]);
    let this = |allow: bool| json!({ "allow": allow, "type": "c", "major": 10, "minor": 237, "access": "rwm" });
    let all = |allow: bool| json!({ "allow": allow, "access": "rwm" });
    // The last is a list of what is denied, which systemd has no words for.
    for (rules, refused) in [
        (json!([all(false), this(true)]), false),
        (json!([all(false)]), true),
        (json!([all(true), this(false)]), true),
    ] {
        under_ours(|it| {
            let scope = Contained::start(it, |bundle| {
                bundle
                    .edit("/linux/devices", node.clone())
                    .edit("/linux/resources/devices", rules.clone())
            });
            for moment in ["at first", "after a reload", "after another"] {
                assert_eq!(scope.refuses(NODE), refused, "{moment}: {rules}");
                assert!(!scope.refuses("/dev/zero"), "{moment}: {rules}");
                Cmd::line("systemctl daemon-reload").run().success();
            }
            it.run(["update", "--pids-limit", "50", &scope.id]).success();
            assert_eq!(scope.refuses(NODE), refused, "after an update: {rules}");
            scope.delete();
        });
    }
}

#[test]
fn a_failed_unit_is_forgotten_with_its_container() {
    if !requires::systemd() {
        return;
    }
    under_ours(|it| {
        let scope = Contained::start(it, |mut bundle| {
            bundle.config["annotations"] = json!({
                "org.systemd.property.RuntimeMaxSec": "1",
                "org.systemd.property.TimeoutStopSec": "1",
            });
            bundle
        });
        crate::harness::wait_for_exit(it.pid(&scope.id));
        let journal = "until [ $(systemctl show --value -p ActiveState $0) = failed ]; do :; done";
        Cmd::new("timeout").args(["20", "sh", "-c", journal, &scope.unit]).run().success();
        scope.delete();
    });
}

#[test]
fn a_further_process_goes_where_it_is_sent() {
    if !requires::systemd() {
        return;
    }
    under_ours(|it| {
        let scope = Contained::start(it, |bundle| bundle);
        let path = format!("/sys/fs/cgroup/e2e.slice/e2e-inner.slice/{}/sub", scope.unit);
        fs::create_dir(&path).expect("make a cgroup beneath");
        it.run(["exec", "--detach", "--cgroup", "sub", &scope.id, "/probe", "pause"]).success();
        let held = fs::read_to_string(format!("{path}/cgroup.procs")).expect("read cgroup.procs");
        assert_eq!(held.lines().count(), 1, "{held}");
        let listed = it.run(["ps", "--format", "json", &scope.id]).success().json();
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
        scope.delete();
    });
}
