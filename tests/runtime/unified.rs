//! cgroup v2 alone: limits, devices, freezing, killing, and the shapes of a tree that get in the
//! way.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::command::binary;
use crate::harness::{Bundle, Cmd, Scene, Unified, scene, wait_for_exit};

mod devices;
mod limits;
mod processes;
mod rare;
mod shapes;

/// Our runtime on a host with cgroup v2 alone.
struct Host<'a> {
    scene: &'a Scene,
    view: Unified,
    /// The container's id, and its cgroup from the mount on.
    id: String,
    cgroup: String,
}

/// Runs `body` in a scene with cgroup v2 alone, if the hierarchy has all of `controllers`.
#[track_caller]
fn unified(controllers: &[&str], body: impl Fn(&Host)) {
    scene(|scene| {
        let view = Unified::new();
        if view.lacks(controllers) {
            return;
        }
        let id = scene.id("unified");
        let cgroup = format!("/{id}");
        body(&Host { scene, view, id, cgroup });
    });
}

/// What is made by hand takes a while to find out by hand: `2MB` is the size that all hosts have.
fn huge_pages(limit: u64) -> Value {
    json!([{ "pageSize": "2MB", "limit": limit }])
}

impl Host<'_> {
    /// A bundle whose container is in [`Host::cgroup`].
    fn bundle(&self, words: &[&str]) -> Bundle {
        Bundle::new(self.scene, words).edit("/linux/cgroupsPath", self.cgroup.as_str())
    }

    fn runtime<const N: usize>(&self, words: [&str; N]) -> Cmd {
        self.view.cmd(binary("runtime")).args(words)
    }

    /// A detached container that stays until it is killed; its pid.
    #[track_caller]
    fn start(&self, bundle: &Path) -> i32 {
        self.runtime(["run", "--detach", "--bundle"]).arg(bundle).arg(&self.id).run().success();
        self.pid()
    }

    fn pid(&self) -> i32 {
        let state = self.runtime(["state", &self.id]).run().success().json();
        i32::try_from(state["pid"].as_i64().unwrap_or_default()).expect("a pid fits")
    }

    /// Run and be refused, with each of `words` in the error.
    #[track_caller]
    fn refused(&self, bundle: &Path, words: &[&str]) {
        self.runtime(["run", "--bundle"]).arg(bundle).arg(&self.id).run().refused(words);
    }

    #[track_caller]
    fn delete(&self) {
        self.runtime(["delete", "--force", &self.id]).run().success();
        assert!(!self.view.path(&self.cgroup).exists(), "{} is left", self.cgroup);
    }

    /// A file of the container's cgroup.
    #[track_caller]
    fn read(&self, file: &str) -> String {
        self.view.read(&format!("{}/{file}", self.cgroup))
    }

    /// Ends a process of the test's own that is in the way.
    fn end(mut process: std::process::Child) {
        process.kill().expect("kill");
        process.wait().expect("wait");
    }

    fn wait(pid: i32) {
        wait_for_exit(pid);
    }
}
