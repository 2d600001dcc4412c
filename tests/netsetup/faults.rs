//! A kill or an error at every system call: whatever was half made, the same command succeeds
//! afterwards, and taking it away leaves the host as it was.
//!
//! A sample of the calls by default; all of them with `E2E_FAULTS=all`, as `tests/run --faults`
//! sets it.

use super::{Netns, Scene, scene};
use crate::harness::host::HostState;
use crate::harness::tracer;

/// How many calls of a command are tried in a sample.
const SAMPLE: usize = 8;

/// A command that is hit, between what comes before it and what takes it away.
struct Case<'a> {
    prepare: Vec<Vec<&'a str>>,
    command: Vec<&'a str>,
    clean: Vec<Vec<&'a str>>,
}

#[test]
fn whatever_an_attach_came_to_its_detach_undoes() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let command = ["attach", &path, "-p", "18080:80", "-p", "18081:81/udp"];
        let clean = vec![vec!["detach", &path]];
        Case { prepare: Vec::new(), command: command.into(), clean }.run(scene, &container);
    });
}

#[test]
fn whatever_an_attach_to_a_defined_bridge_came_to_its_detach_undoes() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let create = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"];
        let create = [&create[..], &["--subnet", "fd98::/64"]].concat();
        let clean = vec![vec!["detach", &path], vec!["bridge", "delete", "e2e0"]];
        let command = vec!["attach", &path, "--network", "e2e0", "-p", "18080:80"];
        Case { prepare: vec![create], command, clean }.run(scene, &container);
    });
}

#[test]
fn whatever_a_publish_came_to_a_detach_undoes() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let prepare = vec![vec!["attach", &path]];
        let command = vec!["publish", &path, "18080:80", "127.0.0.1:18081:81/udp"];
        let clean = vec![vec!["detach", &path]];
        Case { prepare, command, clean }.run(scene, &container);
    });
}

#[test]
fn whatever_a_detach_came_to_another_finishes() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let prepare = vec![vec!["attach", &path, "-p", "18080:80"]];
        let clean = vec![vec!["detach", &path]];
        Case { prepare, command: vec!["detach", &path], clean }.run(scene, &container);
    });
}

#[test]
fn whatever_became_of_making_a_bridge_it_can_be_deleted() {
    scene(|scene| {
        let container = Netns::new("container");
        let create = vec!["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"];
        let clean = vec![vec!["bridge", "delete", "e2e0"]];
        Case { prepare: Vec::new(), command: create.clone(), clean: clean.clone() }
            .run(scene, &container);
        let delete = vec!["bridge", "delete", "e2e0"];
        Case { prepare: vec![create], command: delete, clean }.run(scene, &container);
    });
}

impl Case<'_> {
    fn run(&self, scene: &Scene, container: &Netns) {
        let before = HostState::capture();
        self.prepare(scene);
        let calls = tracer::trace(scene.netsetup().args(&self.command));
        assert_eq!(calls.code, 0, "{:?}", self.command);
        self.clean(scene, "nothing");
        let count = calls.calls.len();
        for number in calls.sample(SAMPLE) {
            let call = calls.calls[number];
            for fault in tracer::kill_or_error(call) {
                for again in [false, true] {
                    let what = format!(
                        "{} with {fault:?} at call {number} of {count} ({call})",
                        self.command.join(" ")
                    );
                    self.prepare(scene);
                    let command = scene.netsetup().args(&self.command);
                    let traced = tracer::trace_with(command, number, fault);
                    // A dump of the kernel's takes a call more or less from run to run.
                    assert!(traced.struck.is_some() || traced.code == 0, "{what}: {traced:?}");
                    if again {
                        let outcome = scene.netsetup().args(&self.command).run();
                        let gone = outcome.stderr.contains("no bridge");
                        assert!(outcome.code == 0 || gone, "{what}: again: {outcome:?}");
                    }
                    self.clean(scene, &what);
                    let left = before.differences(&HostState::capture());
                    assert!(left.is_empty(), "{what}, again {again}: {traced:?} left {left:#?}");
                    let links = container.line("ip -br link").stdout;
                    assert_eq!(links.lines().count(), 1, "{what} left in the container: {links}");
                }
            }
        }
    }

    fn prepare(&self, scene: &Scene) {
        for words in &self.prepare {
            scene.netsetup().args(words).run().success();
        }
    }

    fn clean(&self, scene: &Scene, what: &str) {
        for words in &self.clean {
            let outcome = scene.netsetup().args(words).run();
            let gone = outcome.stderr.contains("no bridge");
            assert!(outcome.code == 0 || gone, "{what}: {outcome:?}");
        }
    }
}
