//! Other limits for a container that runs, and what it uses.

use serde_json::json;

use super::limits::assert_limits;
use super::under_both;
use crate::harness::Bundle;

#[test]
fn limits_change_and_those_not_named_stay() {
    under_both(|it| {
        let resources = json!({
            "memory": { "limit": 67_108_864 },
            "cpu": { "shares": 512, "quota": 25_000, "period": 50_000 },
            "pids": { "limit": 77 },
        });
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/linux/resources", resources);
        let id = it.scene.id("update");
        it.start_pausing(bundle.write(), &id);
        let pid = it.pid(&id);
        it.run(["update", "--memory", "128M", "--cpu-quota", "30000", &id]).success();
        it.cmd(["update", "--resources", "-", &id])
            .stdin(r#"{"pids":{"limit":-1}}"#)
            .run()
            .success();
        it.run(["update", "--cpu-period", "x", &id]).refused(&["invalid value for cpu-period"]);
        let v1 = [
            ("memory", "memory.limit_in_bytes", "134217728"),
            ("cpu", "cpu.cfs_quota_us", "30000"),
            ("cpu", "cpu.cfs_period_us", "50000"),
            ("cpu", "cpu.shares", "512"),
            ("pids", "pids.max", "max"),
        ];
        let v2 = [("memory.max", "134217728"), ("cpu.max", "30000 50000"), ("pids.max", "max")];
        assert_limits(pid, &v1, &v2);
        it.stop(&id);
        it.run(["update", "--memory", "128M", &id]).code(1);
        it.run(["delete", &id]).success();
    });
}

#[test]
fn what_a_container_uses_is_one_line() {
    under_both(|it| {
        let id = it.scene.id("events");
        it.start_pausing(Bundle::new(it.scene, &["pause"]).write(), &id);
        let event = it.run(["events", "--stats", &id]).success().json();
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)));
        // What remains of runc's own init has several threads, and may not have made way yet.
        let alone = event["data"]["pids"]["current"] == 1;
        assert!(alone || it.program.ends_with("runc"), "{event}");
        assert!(event["data"]["memory"]["usage"]["usage"].as_u64() > Some(0), "{event}");
        it.stop(&id);
        it.run(["events", "--stats", &id]).refused(&["is not running"]);
        it.run(["delete", &id]).success();
    });
}
