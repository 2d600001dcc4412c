//! `runtime`, verb by verb. What runc does too is asked of Debian's runc as well: a test that the
//! control fails is a wrong test.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::command::binary;
use crate::harness::{Cmd, Scene, scene, wait_for_exit};

mod bad_input;
mod checkpoint;
mod config_table;
mod escapes;
mod exec;
mod faults;
mod hooks;
mod labels;
mod lifecycle;
mod limits;
mod mounts;
mod names;
mod netdevices;
mod rootless;
mod scarce;
mod seccomp;
mod storm;
mod supervised;
mod systemd;
mod terminal;
mod unified;
mod update;

/// A runtime under test, in a scene.
struct Subject<'a> {
    scene: &'a Scene,
    program: PathBuf,
}

/// Runs `body` under our runtime, then under runc.
#[track_caller]
fn under_both(body: impl Fn(&Subject)) {
    for program in [binary("runtime"), "runc".into()] {
        println!("under {}", program.display());
        scene(|scene| body(&Subject { scene, program: program.clone() }));
    }
}

/// Runs `body` under our runtime only: Debian's runc is too old for what it asks.
#[track_caller]
fn under_ours(body: impl Fn(&Subject)) {
    scene(|scene| body(&Subject { scene, program: binary("runtime") }));
}

impl Subject<'_> {
    fn run<const N: usize>(&self, words: [&str; N]) -> crate::harness::Outcome {
        self.cmd(words).run()
    }

    fn cmd<const N: usize>(&self, words: [&str; N]) -> Cmd {
        Cmd::new(&self.program).args(words)
    }

    fn state(&self, id: &str) -> Value {
        self.run(["state", id]).success().json()
    }

    fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The container's pid, as the host sees it.
    fn pid(&self, id: &str) -> i32 {
        let pid = self.state(id)["pid"].as_i64().unwrap_or_default();
        i32::try_from(pid).expect("a pid fits")
    }

    /// A detached container that stays until it is killed.
    fn start_pausing(&self, bundle: &Path, id: &str) {
        self.cmd(["run", "--detach", "--bundle"]).arg(bundle).arg(id).run().success();
    }

    /// Kills it and waits for the end: no state but `stopped` is possible afterwards.
    fn stop(&self, id: &str) {
        let pid = self.pid(id);
        self.run(["kill", id, "KILL"]).success();
        wait_for_exit(pid);
    }
}
