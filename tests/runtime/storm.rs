//! Many at once: containers that come and go, and processes that join one.

use serde_json::json;

use super::{Subject, under_ours};
use crate::harness::command::binary;
use crate::harness::{Bundle, Unified, scene};

/// How many containers come and go; `E2E_STORM` for more.
fn containers() -> usize {
    std::env::var("E2E_STORM").ok().and_then(|count| count.parse().ok()).unwrap_or(64)
}

const AT_ONCE: usize = 32;
const EXECS: usize = 64;

/// Runs `body` for every number below `count`, by so many threads.
fn at_once(threads: usize, count: usize, body: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for first in 0..threads {
            let body = &body;
            scope.spawn(move || (first..count).step_by(threads).for_each(body));
        }
    });
}

#[test]
fn a_storm_of_containers_leaves_nothing() {
    under_ours(|it: &Subject| {
        let bundle = Bundle::new(it.scene, &["exit", "7"]);
        let dir = bundle.write();
        let start = std::time::Instant::now();
        let count = containers();
        at_once(AT_ONCE, count, |number| {
            let id = it.scene.id(&format!("storm-{number}"));
            match number % 3 {
                0 => {
                    it.cmd(["create", "--bundle"]).arg(dir).arg(&id).run().success();
                    it.run(["delete", &id]).success();
                }
                1 => {
                    it.cmd(["run", "--bundle"]).arg(dir).arg(&id).run().code(7);
                }
                _ => {
                    it.cmd(["create", "--bundle"]).arg(dir).arg(&id).run().success();
                    it.run(["start", &id]).success();
                    it.run(["delete", "--force", &id]).success();
                }
            }
        });
        println!("{count} containers, {AT_ONCE} at once, in {:?}", start.elapsed());
        let left = it.run(["list", "--quiet"]).success().stdout;
        assert!(!left.contains("storm-"), "{left}");
    });
}

#[test]
fn many_join_one_container_at_once() {
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        let id = it.scene.id("crowd");
        it.start_pausing(bundle.write(), &id);
        at_once(EXECS, EXECS, |number| {
            let text = number.to_string();
            let exec = it.run(["exec", &id, "/probe", "echo", &text]).success();
            assert_eq!(exec.stdout, format!("{text}\n"));
        });
        // None of them is still there.
        let listed = it.run(["ps", "--format", "json", &id]).success().json();
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        it.run(["delete", "--force", &id]).success();
    });
}

/// Where clone3 puts a process into its cgroup, it waits for nothing but for what is done from outside.
#[test]
fn what_joins_in_a_crowd_has_all_that_is_set_from_outside() {
    scene(|scene| {
        let view = Unified::new();
        let bundle = Bundle::new(scene, &["pause"]).edit("/process/oomScoreAdj", 100);
        let id = scene.id("crowd");
        let runtime = || view.cmd(binary("runtime"));
        let run = runtime().args(["run", "--detach", "--bundle"]).arg(bundle.write()).arg(&id);
        run.run().success();
        at_once(EXECS, 4 * EXECS, |_| {
            let report = runtime().args(["exec", &id, "/probe"]).run().success().json();
            assert_eq!(report["oomScoreAdj"], "100");
        });
        runtime().args(["delete", "--force", &id]).run().success();
    });
}
