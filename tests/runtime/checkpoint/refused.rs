//! What can't be meant, or can't be done, told in one line before anything is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::Case;
use crate::harness::{Bundle, requires};
use crate::runtime::under_ours;

#[test]
fn a_missing_criu_is_named_with_the_remedy() {
    under_ours(|it| {
        let case = Case::new(it, "missing", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        let checkpoint = case.command("checkpoint", &[]).env("PATH", "/nonexistent").run();
        checkpoint.code(1).refused(&["criu is not on the PATH", "install the package criu"]);
        assert_eq!(counter.next(), 1);
        assert!(!it.scene.path("missing").exists());
        case.delete();
    });
}

#[test]
fn a_program_that_is_no_criu_does_no_harm() {
    under_ours(|it| {
        let case = Case::new(it, "odd", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        let bin = it.scene.path("bin");
        fs::create_dir(&bin).unwrap();
        let criu = bin.join("criu");
        for script in ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho odd >&4\n", "no program at all"] {
            fs::write(&criu, script).unwrap();
            fs::set_permissions(&criu, fs::Permissions::from_mode(0o755)).unwrap();
            let checkpoint = case.command("checkpoint", &[]).env("PATH", &bin).run();
            checkpoint.code(1).refused(&["CRIU version check failed"]);
        }
        assert_eq!(counter.next(), 1);
        case.delete();
    });
}

#[test]
fn a_directory_without_a_checkpoint_is_named() {
    requires::program("criu", "criu");
    under_ours(|it| {
        let case = Case::new(it, "empty", &Bundle::new(it.scene, &["count"]));
        let restore = || case.command("restore", &["--bundle", &case.bundle]).run().code(1);
        restore().refused(&["open", &case.images, "no such file or directory"]);
        fs::create_dir(&case.images).unwrap();
        restore().refused(&[&case.images, "holds no checkpoint", "--image-path"]);
        case.gone();
    });
}

#[test]
fn a_container_among_the_hosts_mounts_is_refused() {
    under_ours(|it| {
        let mut bundle = Bundle::new(it.scene, &["count"]);
        bundle.config["mounts"] = serde_json::json!([]);
        bundle.config["linux"]["maskedPaths"] = serde_json::json!([]);
        bundle.config["linux"]["readonlyPaths"] = serde_json::json!([]);
        let namespaces = serde_json::json!([{ "type": "pid" }, { "type": "ipc" }]);
        let bundle = bundle.edit("/linux/namespaces", namespaces).edit("/hostname", "");
        let case = Case::new(it, "shared", &bundle);
        let mut counter = case.run();
        let words = ["shares the host's mount namespace", "linux.namespaces"];
        case.command("checkpoint", &[]).run().code(1).refused(&words);
        assert_eq!(counter.next(), 1);
        case.delete();
    });
}

#[test]
fn a_descriptor_that_is_not_there_is_named() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "status", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        for number in ["1", "99"] {
            let options = ["--lazy-pages", "--status-fd", number];
            let checkpoint = case.command("checkpoint", &options).run().code(1);
            checkpoint.refused(&["invalid --status-fd argument", number]);
        }
        assert_eq!(counter.next(), 1);
        case.delete();
    });
}
