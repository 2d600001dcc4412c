//! What a checkpoint leaves of the container, and in which state it may be.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Case;
use crate::harness::{Bundle, requires};
use crate::runtime::under_ours;

#[test]
fn a_container_may_be_left_running() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "left", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        let pid = it.pid(&case.id);
        case.checkpoint(&["--leave-running"]);
        assert_eq!((it.status(&case.id).as_str(), it.pid(&case.id)), ("running", pid));
        assert_eq!(counter.next(), 2);
        // Saved twice into the same place.
        case.checkpoint(&["--leave-running"]);
        assert_eq!(counter.next(), 3);
        case.delete();
        // The life of the second time goes on.
        let mut second = case.restore(&[]);
        assert_eq!(second.next(), 3);
        case.delete();
    });
}

#[test]
fn a_paused_container_can_be_saved() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "paused", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        it.run(["pause", &case.id]).success();
        case.checkpoint(&["--leave-running"]);
        assert_eq!(it.status(&case.id), "paused");
        it.run(["resume", &case.id]).success();
        assert_eq!(counter.next(), 2);
        it.run(["pause", &case.id]).success();
        case.checkpoint(&[]);
        case.gone();
        let mut counter = case.restore(&[]);
        assert_eq!(it.status(&case.id), "running");
        assert_eq!(counter.next(), 3);
        case.delete();
    });
}

/// A process that does not outlive a test that fails.
pub(super) struct Killed(pub(super) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it has ended, as it should have.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pages_come_when_they_are_needed() {
    if !requires::checkpoints() || !requires::criu_feature("uffd-noncoop") {
        return;
    }
    // CRIU's page server wants a pipe that is longer than others may have.
    if !requires::resources_without_limits() {
        return;
    }
    under_ours(|it| {
        let mut case = Case::new(it, "lazy", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        let (mut ready, tell) = std::io::pipe().unwrap();
        // A shell passes the pipe on; its end is descriptor 7 there.
        let line = r#"exec 7>&1 >/dev/null; exec "$@""#;
        let saving = Command::new("sh")
            .args(["-c", line, "sh"])
            .arg(&it.program)
            .args(["checkpoint", "--lazy-pages", "--page-server", "127.0.0.1:27278"])
            .args(["--status-fd", "7", "--manage-cgroups-mode", "ignore"])
            .args(["--image-path", &case.images, &case.id])
            .stdout(tell)
            .spawn();
        let mut saving = Killed(saving.unwrap());
        let mut byte = [1];
        ready.read_exact(&mut byte).expect("the page server is ready");
        assert_eq!(byte, [0]);
        let server = Command::new("criu")
            .args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", "27278"])
            .args(["--images-dir", &case.images])
            .stdout(Stdio::null())
            .spawn();
        let mut server = Killed(server.unwrap());
        // The first is there until its last page has come.
        let first = std::mem::replace(&mut case.id, it.scene.id("lazy-2"));
        let mut counter = case.restore(&["--lazy-pages", "--work-path", &case.images]);
        assert_eq!(counter.next(), 2);
        assert!(saving.0.wait().unwrap().success());
        assert!(server.0.wait().unwrap().success());
        it.run(["state", &first]).code(1).stderr_has("container does not exist");
        case.delete();
    });
}

#[test]
fn a_failed_dump_leaves_the_container_running() {
    requires::program("criu", "criu");
    under_ours(|it| {
        // The lock that it holds can't be saved without the flag.
        let case = Case::new(it, "failed", &Bundle::new(it.scene, &["count-locked", "/locked"]));
        let mut counter = case.run();
        assert_eq!(counter.line(), "locked");
        assert_eq!(counter.next(), 1);
        let log = Path::new(&case.images).join("dump.log");
        let words = ["criu failed: type DUMP errno ", "Error (criu/", &log.display().to_string()];
        case.command("checkpoint", &[]).run().code(1).refused(&words);
        assert!(log.exists());
        assert_eq!(it.status(&case.id), "running");
        assert_eq!(counter.next(), 2);
        let work = it.scene.path("work").display().to_string();
        let log = Path::new(&work).join("dump.log");
        let words = ["criu failed: type DUMP", &log.display().to_string()];
        case.command("checkpoint", &["--work-path", &work]).run().code(1).refused(&words);
        assert_eq!(counter.next(), 3);
        case.delete();
    });
}

#[test]
fn a_failed_restore_leaves_nothing() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "broken", &Bundle::new(it.scene, &["count"]));
        let mut first = case.run();
        assert_eq!(first.next(), 1);
        case.checkpoint(&[]);
        let log = Path::new(&case.images).join("restore.log").display().to_string();
        let options = ["--detach", "--bundle", &case.bundle];
        let core = Path::new(&case.images).join("core-1.img");
        let whole = fs::read(&core).unwrap();
        fs::write(&core, &whole[..whole.len() / 2]).unwrap();
        let words = ["criu failed: type RESTORE errno ", "Error (criu/", &log];
        case.command("restore", &options).run().code(1).refused(&words);
        case.gone();
        fs::write(&core, &whole).unwrap();
        // The process is restored already when there turns out to be no place for its pid file.
        let nowhere = ["--pid-file", "/nonexistent/pid"];
        let restore = case.command("restore", &[&options[..], &nowhere].concat()).run();
        restore.code(1).refused(&["create /nonexistent/.pid"]);
        case.gone();
        let mut counter = case.restore(&[]);
        assert_eq!(counter.next(), 2);
        case.delete();
    });
}

#[test]
fn a_hook_that_fails_ends_the_restore() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let mut bundle = Bundle::new(it.scene, &["count"]);
        let case = Case::new(it, "hook", &bundle);
        let mut first = case.run();
        assert_eq!(first.next(), 1);
        case.checkpoint(&[]);
        let hook = serde_json::json!([{ "path": "/bin/false" }]);
        bundle.config["hooks"] = serde_json::json!({ "createRuntime": hook });
        bundle.write();
        let restore = case.command("restore", &["--detach", "--bundle", &case.bundle]).run();
        restore.code(1).refused(&["error running createRuntime hook #0"]);
        case.gone();
    });
}
