//! What is wrong with a bundle is said in one line, and nothing is left of the attempt.

use std::fs;

use serde_json::json;

use super::{Subject, scene, under_both};
use crate::harness::{Bundle, Outcome};

fn create(it: &Subject, bundle: &Bundle) -> Outcome {
    let id = it.scene.id("bad");
    let outcome = it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run();
    it.run(["state", &id]).code(1);
    outcome
}

#[test]
fn a_missing_configuration_is_named() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &[]);
        let dir = bundle.write();
        fs::remove_file(dir.join("config.json")).unwrap();
        let outcome = it.cmd(["create", "--bundle"]).arg(dir).arg(it.scene.id("bad")).run();
        outcome.code(1).refused(&["config.json not found"]);
    });
}

#[test]
fn a_missing_rootfs_is_named() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &[]).edit("/root/path", "nowhere");
        create(it, &bundle).code(1).refused(&["nowhere"]);
    });
}

#[test]
fn a_namespace_type_that_linux_does_not_have_is_refused() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &[])
            .edit("/linux/namespaces", json!([{ "type": "mount" }, { "type": "flavour" }]));
        create(it, &bundle).code(1).refused(&["flavour"]);
    });
}

#[test]
fn unknown_capabilities_are_warned_of_once_and_passed_over() {
    under_both(|it| {
        let sets = json!(["CAP_KILL", "CAP_FLY", "CAP_SWIM"]);
        let bundle = Bundle::new(it.scene, &["echo", "runs"]).edit(
            "/process/capabilities",
            json!({ "bounding": sets, "effective": sets, "permitted": sets }),
        );
        let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(it.scene.id("caps")).run();
        let run = run.success().stdout_has("runs").stderr_has("CAP_FLY").stderr_has("CAP_SWIM");
        assert_eq!(run.stderr.trim_end().lines().count(), 1, "{}", run.stderr);
    });
}

#[test]
fn an_unknown_seccomp_action_is_named() {
    under_both(|it| {
        let seccomp = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_PERHAPS" }],
        });
        let bundle = Bundle::new(it.scene, &[]).edit("/linux/seccomp", seccomp);
        create(it, &bundle).code(1).refused(&["SCMP_ACT_PERHAPS"]);
    });
}

#[test]
fn a_malformed_configuration_is_told_with_field_and_line() {
    scene(|scene| {
        let bundle = Bundle::new(scene, &[]);
        let dir = bundle.write();
        let id = scene.id("bad");
        let create =
            || scene.runtime().args(["create", "--bundle"]).arg(dir).arg(&id).run().code(1);
        let text = fs::read_to_string(dir.join("config.json")).unwrap();
        for (from, to, words) in [
            ("\"cwd\": \"/\"", "\"cwd\": 7", ["process.cwd", "line"]),
            ("\"readonly\": false", "\"readonly\": \"no\"", ["root.readonly", "line"]),
            ("\"hostname\":", "\"hostname\"", ["config.json", "line"]),
        ] {
            assert!(text.contains(from), "{from}");
            fs::write(dir.join("config.json"), text.replace(from, to)).unwrap();
            create().refused(&words);
        }
        scene.runtime().args(["state", &id]).run().code(1);
    });
}

#[test]
fn an_unknown_command_is_refused() {
    scene(|scene| {
        let outcome = scene.runtime().arg("frobnicate").run();
        assert_ne!(outcome.code, 0);
        assert!((outcome.stdout + &outcome.stderr).contains("frobnicate"));
    });
}
