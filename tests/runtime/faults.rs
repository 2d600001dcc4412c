//! A kill or an error at every system call of a start, an exec, a deletion: whatever was half made,
//! `delete --force` takes away, what comes up is never weaker than what was asked for, and the same
//! command succeeds afterwards.
//!
//! A sample of the calls by default; all of them with `E2E_FAULTS=all`, as `tests/run --faults`
//! sets it, or the one of this number.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::harness::command::binary;
use crate::harness::host;
use crate::harness::tracer::{self, At, Bounds, Fault, Traced};
use crate::harness::{Bundle, Cmd, Scene, Unified, scene, wait_for_exit};

/// How many faults of a command are tried in a sample.
const SAMPLE: usize = 40;

const BOUNDS: Bounds = Bounds { program: "runtime", payload: "probe" };

/// What a command did to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Run,
    Create,
    Start,
    Exec,
    Delete,
}

/// A container that asks for all that can be taken away from a process, and a place for it.
struct Case<'a> {
    scene: &'a Scene,
    /// `None` is the host as it is.
    view: Option<Unified>,
    id: String,
    verb: Verb,
}

#[test]
fn whatever_a_run_came_to_a_forced_delete_undoes() {
    Case::try_all(Verb::Run);
}

#[test]
fn whatever_a_create_came_to_a_forced_delete_undoes() {
    Case::try_all(Verb::Create);
}

#[test]
fn whatever_a_start_came_to_a_forced_delete_undoes() {
    Case::try_all(Verb::Start);
}

#[test]
fn whatever_an_exec_came_to_the_container_goes_on() {
    Case::try_all(Verb::Exec);
}

#[test]
fn whatever_a_delete_came_to_another_finishes() {
    Case::try_all(Verb::Delete);
}

/// A container as it ought to be, on every kind of host that this one can be.
impl Case<'_> {
    fn try_all(verb: Verb) {
        scene(|scene| {
            let id = scene.id("faults");
            let (view, unified) = (Some(Unified::new()), Path::new("/sys/fs/cgroup/cgroup.procs"));
            let mut case = Case { scene, view, id, verb };
            case.try_here();
            if !unified.exists() {
                case.view = None;
                case.try_here();
            }
        });
    }

    fn try_here(&self) {
        self.write_bundle();
        let mut before = self.mounts();
        self.prepare();
        let model = self.observe(None);
        assert_eq!(model.code, 0, "{:?}: {model:?}", self.verb);
        let report = self.report(&model);
        assert_eq!(report.is_none(), self.verb == Verb::Delete);
        self.clean_up("nothing");
        let (mut tried, mut found) = (BTreeMap::new(), Vec::new());
        for (number, fault) in self.faults(&model) {
            let call = model.calls[number];
            let place = if self.view.is_some() { "cgroup v2" } else { "this host" };
            let what = format!("{:?} on {place}: {fault:?} at {number}, call {call}", self.verb);
            let once = AssertUnwindSafe(|| self.try_once(number, fault, &report));
            match catch_unwind(once) {
                Ok(seen) => *tried.entry(seen).or_insert(0) += 1,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    found.push(format!("{what}: {text}"));
                    self.sweep();
                }
            }
            let mounts = self.mounts();
            if mounts != before {
                let left: Vec<_> = mounts.iter().filter(|it| !before.contains(it)).collect();
                found.push(format!("{what}: mounts are left: {left:#?}"));
                before = mounts;
            }
        }
        println!("{:?}: {} calls; (hit, exit 0): {tried:?}", self.verb, model.calls.len());
        assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
        self.prepare();
        let again = self.observe(None);
        assert_eq!(self.report(&again), report);
        self.clean_up("all of them");
    }

    /// Whether the fault was met, and whether the command succeeded all the same.
    fn try_once(&self, number: usize, fault: Fault, report: &Option<Value>) -> (bool, bool) {
        self.prepare();
        let traced = self.observe(Some((number, fault)));
        let told = || format!("exit {}, {:?}", traced.code, traced.stderr);
        assert!(!traced.hung, "hangs: {}", told());
        if traced.code == 0 && self.died_since(&traced) {
            // It was whole when `create` had ended, and what befalls it then is told to `start`.
            let start = self.runtime().args(["start", &self.id]).run();
            assert!(start.stderr.contains("has stopped"), "{start:?}");
        } else if traced.code == 0 {
            assert_eq!(self.report(&traced), *report, "another container: {}", told());
        } else if fault != Fault::Kill {
            assert!(!traced.stderr.trim().is_empty(), "no word on stderr: {}", told());
        }
        if self.verb == Verb::Exec && traced.code != 0 {
            // The container has not noticed.
            let again = self.observe(None);
            assert_eq!(self.report(&again), *report, "again");
        }
        self.clean_up(&told());
        for pid in traced.met {
            wait_for_exit(pid.as_raw());
        }
        (traced.struck.is_some(), traced.code == 0)
    }

    /// Whether the fault befell a created container's process, which then was no more.
    fn died_since(&self, traced: &Traced) -> bool {
        let struck = traced.struck.as_ref().is_some_and(|struck| struck.by != traced.met[0]);
        let state = || self.runtime().args(["state", &self.id]).run().success().json();
        self.verb == Verb::Create && struck && state()["status"] == "stopped"
    }

    /// Makes room for the next one after a finding.
    fn sweep(&self) {
        self.runtime().args(["delete", "--force", &self.id]).run();
        for cgroup in self.cgroups() {
            // What is not there is not in the way.
            let _ = fs::remove_dir(cgroup);
        }
        let _ = fs::remove_dir_all(Path::new("/run/runtime").join(&self.id));
    }

    /// All, or as many of them as a sample has.
    fn faults(&self, model: &Traced) -> Vec<(usize, Fault)> {
        let mut faults = Vec::new();
        for (number, &call) in model.calls.iter().enumerate() {
            if model.starting[number] {
                continue;
            }
            faults.push((number, Fault::Kill));
            if tracer::may_fail(call) {
                faults.push((number, Fault::Errno(tracer::likely_error(call))));
                faults.push((number, Fault::Errno(Errno::EINTR)));
            }
        }
        let step = match std::env::var("E2E_FAULTS").as_deref() {
            Ok("all") => 1,
            Ok(number) => {
                faults.retain(|(it, _)| number == it.to_string());
                1
            }
            Err(_) => faults.len().div_ceil(SAMPLE),
        };
        faults.into_iter().step_by(step).collect()
    }

    fn runtime(&self) -> Cmd {
        match &self.view {
            Some(view) => view.cmd(binary("runtime")),
            None => self.scene.runtime(),
        }
    }

    fn write_bundle(&self) {
        let resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        let filter = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }],
        });
        let node = json!([{ "path": "/dev/refused", "type": "c", "major": 10, "minor": 237 }]);
        let limits = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
        let words: &[&str] = match self.verb {
            Verb::Exec | Verb::Delete => &["pause"],
            Verb::Run => &["report"],
            // Nobody reads what comes later.
            Verb::Create | Verb::Start => &["report-to", "/tmp/report"],
        };
        let read_only = self.verb == Verb::Run;
        Bundle::new(self.scene, words)
            .edit("/linux/cgroupsPath", format!("/{}", self.id))
            .edit("/linux/resources", resources)
            .edit("/linux/seccomp", filter)
            .edit("/linux/devices", node)
            .edit("/process/rlimits", limits)
            .edit("/process/oomScoreAdj", 100)
            .edit("/process/user", json!({ "uid": 1000, "gid": 1000, "umask": 63 }))
            .edit("/root/readonly", read_only)
            .write();
    }

    /// What has to be there before the command.
    fn prepare(&self) {
        let bundle = self.scene.path("bundle");
        let make = |verb: &[&str]| {
            self.runtime().args(verb).arg("--bundle").arg(&bundle).arg(&self.id).run().success();
        };
        match self.verb {
            Verb::Run | Verb::Create => {}
            Verb::Start => make(&["create"]),
            Verb::Exec | Verb::Delete => make(&["run", "--detach"]),
        }
    }

    fn observe(&self, plan: Option<(usize, Fault)>) -> Traced {
        let runtime = self.runtime();
        let bundle = self.scene.path("bundle");
        let command = match self.verb {
            Verb::Run => runtime.args(["run", "--bundle"]).arg(bundle).arg(&self.id),
            Verb::Create => runtime.args(["create", "--bundle"]).arg(bundle).arg(&self.id),
            Verb::Start => runtime.args(["start", &self.id]),
            Verb::Exec => runtime.args(["exec", &self.id, "/probe"]),
            Verb::Delete => runtime.args(["delete", "--force", &self.id]),
        };
        let plan = plan.map(|(number, fault)| (At::Number(number), fault));
        tracer::observe(command, plan, BOUNDS)
    }

    /// What the container's process was given, as it says itself.
    fn report(&self, traced: &Traced) -> Option<Value> {
        let text = match self.verb {
            Verb::Delete => return None,
            Verb::Run | Verb::Exec => traced.stdout.clone(),
            Verb::Create | Verb::Start => {
                if self.verb == Verb::Create {
                    self.runtime().args(["start", &self.id]).run().success();
                }
                self.wait_for_end();
                let path = self.scene.path("bundle/rootfs/tmp/report");
                let text = fs::read_to_string(&path).unwrap_or_default();
                // It is there unless the program did not run, which the caller finds out.
                let _ = fs::remove_file(path);
                text
            }
        };
        let mut report: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("no report: {error}: {:?}", traced.stderr));
        for (name, namespace) in report["namespaces"].as_object_mut().expect("namespaces") {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("read a namespace");
            let is_hosts = namespace.as_str() == host.to_str();
            *namespace = json!(if is_hosts { "host" } else { "own" });
        }
        // Numbers that grow from one process to the next.
        report["pid"].take();
        Some(report)
    }

    fn wait_for_end(&self) {
        let state = self.runtime().args(["state", &self.id]).run().success().json();
        if let Some(pid) = state["pid"].as_i64().filter(|pid| *pid != 0) {
            wait_for_exit(i32::try_from(pid).expect("a pid fits"));
        }
    }

    /// Nothing of the container stays.
    fn clean_up(&self, what: &str) {
        let deleted = self.runtime().args(["delete", "--force", &self.id]).run();
        assert_eq!(deleted.code, 0, "{what}: {deleted:?}");
        let state = Path::new("/run/runtime").join(&self.id);
        assert!(!state.exists(), "{what}: {} is left", state.display());
        for cgroup in self.cgroups() {
            assert!(!cgroup.exists(), "{what}: {} is left", cgroup.display());
        }
    }

    fn cgroups(&self) -> Vec<std::path::PathBuf> {
        if let Some(view) = &self.view {
            return vec![view.path(&self.id)];
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten();
        hierarchies.map(|entry| entry.path().join(&self.id)).collect()
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = self.runtime().into_words();
        let mut words: Vec<_> = mounts.into_iter().take_while(|it| it != "--").collect();
        match &self.view {
            Some(_) if words.len() > 1 => words.push("--".into()),
            _ => words.clear(),
        }
        words.extend(["cat", "/proc/self/mounts"].map(Into::into));
        let mounts = Cmd::new(&words[0]).args(&words[1..]).run().success().stdout;
        mounts.lines().map(host::without_options_of_all_cgroups).collect()
    }
}
