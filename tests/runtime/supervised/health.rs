//! Health checks: run in the container, counted, shown, and never in its way.

use std::fs;

use serde_json::{Value, json};

use super::super::{Subject, under_ours};
use super::verbs::shell;
use crate::harness::{Bundle, Scene, eventually};

const ANNOTATION: &str = "org.imgtool.healthcheck";

/// A container that stays, with this check every 50 ms.
fn checked(scene: &Scene, line: &str, timeout_ms: u64, more: &Value) -> Bundle {
    let bundle = shell(scene, "read x < /go");
    let mut check = json!({ "args": ["/bin/sh", "-c", line], "interval": 50_000_000,
        "timeout": timeout_ms * 1_000_000, "retries": 2 });
    for (key, value) in more.as_object().unwrap() {
        check[key] = value.clone();
    }
    bundle.edit("/annotations", json!({ ANNOTATION: check.to_string() }))
}

impl Subject<'_> {
    fn health(&self, id: &str) -> Value {
        self.run(["inspect", id]).success().json()[0]["health"].clone()
    }

    fn becomes(&self, id: &str, status: &str) {
        assert!(eventually(|| self.health(id)["status"] == status), "{}", self.health(id));
    }
}

#[test]
fn a_check_makes_a_container_healthy_and_unhealthy_and_healthy_again() {
    under_ours(|it| {
        let id = it.scene.id("checked");
        let line = "echo looked; [ ! -e /sick ]";
        it.supervise(checked(it.scene, line, 10_000, &json!({})).write(), &id);
        it.becomes(&id, "healthy");
        assert!(it.wide(&id).contains(" (healthy)"), "{}", it.wide(&id));
        let listed = |health: &str| {
            let filter = format!("health={health}");
            let list = it.run(["list", "-q", "--filter", &filter]).success();
            list.stdout.lines().any(|line| line == id)
        };
        assert!(listed("healthy") && !listed("none"));
        let sick = it.scene.path("bundle/rootfs/sick");
        fs::write(&sick, "").unwrap();
        it.becomes(&id, "unhealthy");
        assert!(it.wide(&id).contains(" (unhealthy)"), "{}", it.wide(&id));
        let health = it.health(&id);
        let last = health["log"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (last["exit_code"].as_i64(), last["output"].as_str()),
            (Some(1), Some("looked\n"))
        );
        assert!(health["failing_streak"].as_u64() >= Some(2), "{health}");
        fs::remove_file(&sick).unwrap();
        it.becomes(&id, "healthy");
        // What a check writes is not the container's output, and its end is not the container's.
        assert_eq!((it.log(&id).as_str(), it.status(&id).as_str()), ("", "running"));
        it.run(["stop", "-t", "0", &id]).success();
        assert!(!it.wide(&id).contains("healthy"), "{}", it.wide(&id));
        it.run(["delete", &id]).success();
    });
}

#[test]
fn a_check_that_takes_too_long_has_failed_and_one_that_cannot_begin_says_why() {
    under_ours(|it| {
        let id = it.scene.id("slow");
        // It writes without end, besides.
        let line = "while :; do echo still here; done";
        it.supervise(checked(it.scene, line, 100, &json!({})).write(), &id);
        it.becomes(&id, "unhealthy");
        let last = it.health(&id)["log"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["exit_code"], -1);
        assert!(last["output"].as_str().unwrap().contains("longer than 100ms"), "{last}");
        it.run(["delete", "-f", &id]).success();

        let id = it.scene.id("missing");
        let more = json!({ "args": ["/bin/none-such"] });
        it.supervise(checked(it.scene, "", 10_000, &more).write(), &id);
        it.becomes(&id, "unhealthy");
        let last = it.health(&id)["log"].as_array().unwrap().last().unwrap().clone();
        assert!(last["output"].as_str().unwrap().contains("/bin/none-such"), "{last}");
        it.run(["delete", "-f", &id]).success();
    });
}

#[test]
fn failures_are_excused_while_a_container_starts() {
    under_ours(|it| {
        let id = it.scene.id("excused");
        let more = json!({ "startPeriod": 3_600_000_000_000_u64 });
        it.supervise(checked(it.scene, "exit 1", 10_000, &more).write(), &id);
        let outcomes = || it.health(&id)["log"].as_array().map_or(0, Vec::len);
        assert!(eventually(|| outcomes() == 5));
        assert_eq!(it.health(&id)["status"], "starting");
        assert!(it.wide(&id).contains(" (health: starting)"), "{}", it.wide(&id));
        // Paused, it is not asked.
        it.run(["pause", &id]).success();
        it.run(["resume", &id]).success();
        it.run(["delete", "-f", &id]).success();
    });
}

#[test]
fn a_check_that_makes_no_sense_is_refused_before_anything_is_made() {
    under_ours(|it| {
        let id = it.scene.id("senseless");
        let bundle = checked(it.scene, "true", 10_000, &json!({ "retries": 0 }));
        let run = it.cmd(["run", "--supervise", "--detach", "--bundle"]).arg(bundle.write());
        run.arg(&id).run().refused(&["org.imgtool.healthcheck", "retries"]);
        it.run(["state", &id]).refused(&["does not exist"]);
    });
}
