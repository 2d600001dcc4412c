//! What engines ask a runtime before they use it, to learn what it can.

use crate::harness::{Bundle, scene};

/// podman and CRI-O take the exit code for the answer whether there are checkpoints.
#[test]
fn checkpoint_help_is_there() {
    scene(|scene| {
        scene.runtime().args(["checkpoint", "--help"]).run().success().stdout_has("image-path");
    });
}

/// podman looks for this text to learn that the flag exists.
#[test]
fn restore_knows_the_mount_label_flag() {
    scene(|scene| {
        let asked = scene.runtime().args(["restore", "--lsm-mount-context"]).run();
        let said = format!("{}{}", asked.stdout, asked.stderr);
        assert!(said.contains("flag needs an argument"), "{said}");
    });
}

#[test]
fn a_checkpoint_is_refused_and_leaves_the_container_alone() {
    scene(|scene| {
        let id = scene.id("kept");
        let bundle = Bundle::new(scene, &["pause"]);
        scene.runtime().args(["create", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        let checkpoint = |options: &[&str], text: &str| {
            let checkpoint = scene.runtime().arg("checkpoint").args(options).arg(&id).run();
            checkpoint.code(1).refused(&[text]);
        };
        checkpoint(&[], "Container cannot be checkpointed in created state");
        scene.runtime().args(["start", &id]).run().success();
        checkpoint(&["--parent-path", "/absolute"], "--parent-path must be relative");
        checkpoint(&["--parent-path", "nowhere"], "invalid --parent-path");
        checkpoint(&["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT");
        checkpoint(&["--manage-cgroups-mode", "odd"], "odd");
        checkpoint(&["--empty-ns", "ipc"], "not supported");
        let state = scene.runtime().args(["state", &id]).run().success().json();
        assert_eq!(state["status"], "running");
        let restore = scene.runtime().args(["restore", &id]).dir(bundle.write()).run();
        restore.code(1).refused(&["already exists"]);
        scene.runtime().args(["delete", "--force", &id]).run().success();
        scene.runtime().args(["checkpoint", &id]).run().code(1).refused(&["does not exist"]);
    });
}
