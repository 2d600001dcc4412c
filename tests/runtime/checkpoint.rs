//! `checkpoint` and `restore`: what goes on, what is refused, and what is left of a failure.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::lifecycle::assert_null_streams_are_its_own;
use super::{Subject, under_ours, wait_for_exit};
use crate::harness::netns::Netns;
use crate::harness::{Bundle, Scene, requires};

mod counter;
mod killed;
mod refused;
mod states;

use counter::Counter;

/// A container by its id, with its bundle and the place of its images.
struct Case<'a> {
    it: &'a Subject<'a>,
    id: String,
    bundle: String,
    images: String,
}

impl<'a> Case<'a> {
    fn new(it: &'a Subject<'a>, name: &str, bundle: &Bundle) -> Self {
        let text = |path: &Path| path.display().to_string();
        let images = text(&it.scene.path(name));
        Case { it, id: it.scene.id(name), bundle: text(bundle.write()), images }
    }

    #[track_caller]
    fn run(&self) -> Counter {
        Counter::start(self.it, &["run", "--detach", "--bundle", &self.bundle, &self.id])
    }

    fn command(&self, verb: &str, options: &[&str]) -> crate::harness::Cmd {
        // Where the cgroup is not to be saved CRIU leaves the mount options of the host's alone.
        let images = ["--image-path", &self.images, "--manage-cgroups-mode", "ignore"];
        self.it.cmd([verb]).args(images).args(options).arg(&self.id)
    }

    #[track_caller]
    fn checkpoint(&self, options: &[&str]) {
        self.command("checkpoint", options).run().success();
    }

    #[track_caller]
    fn restore(&self, options: &[&str]) -> Counter {
        let common =
            ["restore", "--detach", "--bundle", &self.bundle, "--image-path", &self.images];
        let mode = ["--manage-cgroups-mode", "ignore"];
        Counter::start(self.it, &[&common, &mode[..], options, &[&self.id]].concat())
    }

    #[track_caller]
    fn gone(&self) {
        self.it.run(["state", &self.id]).code(1).stderr_has("container does not exist");
    }

    #[track_caller]
    fn delete(&self) {
        self.it.run(["delete", "--force", &self.id]).success();
        self.gone();
    }
}

#[test]
fn a_restored_counter_goes_on_counting() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "counter", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!((counter.next(), counter.next()), (1, 2));
        for round in 0..2 {
            let pid = it.pid(&case.id);
            case.checkpoint(&[]);
            wait_for_exit(pid);
            case.gone();
            counter = case.restore(&[]);
            assert_eq!(it.status(&case.id), "running");
            assert_ne!(it.pid(&case.id), pid);
            assert_eq!(counter.next(), 3 + round);
        }
        let words = ["exec", &case.id, "/probe", "echo", "joined"];
        it.run(words).success().stdout_has("joined");
        let listed = it.run(["list", "--quiet"]).success();
        assert!(listed.stdout.lines().any(|id| id == case.id), "{}", listed.stdout);
        case.delete();
    });
}

#[test]
fn a_connection_outlives_a_checkpoint() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let remote = Netns::remote_host();
        let mut bundle = Bundle::new(it.scene, &["count-on", "4000"]);
        bundle.config["linux"]["namespaces"][1]["path"] = json!(remote.path());
        let case = Case::new(it, "connection", &bundle);
        let mut counter = case.run();
        assert_eq!(counter.line(), "listening");
        let stream = TcpStream::connect("10.199.0.2:4000").expect("connect");
        let mut client = Counter::beyond(stream);
        assert_eq!(client.next(), 1);
        // Without the flag it is refused, and the connection goes on.
        case.command("checkpoint", &[]).run().code(1);
        assert_eq!(client.next(), 2);
        // Once more, for a lock on the network that stayed would hold the second one up.
        let mut _counter = counter;
        for next in [3, 4] {
            case.checkpoint(&["--tcp-established"]);
            case.gone();
            _counter = case.restore(&["--tcp-established"]);
            assert_eq!(client.next(), next);
        }
        let rules = remote.line("iptables-save");
        assert!(!rules.stdout.contains("CRIU"), "the network is still locked:\n{}", rules.stdout);
        let net = fs::metadata(format!("/proc/{}/ns/net", it.pid(&case.id))).unwrap();
        let path = fs::metadata(remote.path()).unwrap();
        assert_eq!(net.ino(), path.ino());
        case.delete();
    });
}

#[test]
fn null_devices_of_the_hosts_as_streams_become_the_containers_own() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "null", &Bundle::new(it.scene, &["pause"]));
        let mut run = Command::new(&it.program);
        run.args(["run", "--detach", "--bundle", &case.bundle, &case.id]);
        run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(run.status().expect("start the runtime").success());
        assert_null_streams_are_its_own(it.pid(&case.id));
        case.checkpoint(&[]);
        case.command("restore", &["--detach", "--bundle", &case.bundle]).run().success();
        assert_eq!(it.status(&case.id), "running");
        assert_null_streams_are_its_own(it.pid(&case.id));
        case.delete();
    });
}

#[test]
fn a_terminal_is_handed_over_again() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["count"]).edit("/process/terminal", true);
        let case = Case::new(it, "terminal", &bundle);
        let path = it.scene.path("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = path.display().to_string();
        let receive = || {
            let (stream, _) = listener.accept().unwrap();
            Counter::beyond(crate::harness::receive_descriptor(&stream))
        };
        // What is typed comes back too.
        let next = |console: &mut Counter| {
            console.send();
            (console.line(), console.line())
        };
        let run =
            it.cmd(["run", "--detach", "--console-socket", &socket, "--bundle", &case.bundle]);
        run.arg(&case.id).run().success();
        let mut console = receive();
        assert_eq!(next(&mut console), (String::new(), "1".to_owned()));
        case.checkpoint(&[]);
        case.gone();
        let options = ["--detach", "--console-socket", &socket, "--bundle", &case.bundle];
        case.command("restore", &options).run().success();
        let mut console = receive();
        assert_eq!(next(&mut console), (String::new(), "2".to_owned()));
        case.delete();
    });
}

#[test]
fn a_foreground_restore_ends_as_the_program_does() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "foreground", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        case.checkpoint(&[]);
        // Its input comes to an end after two more lines; the sum is its exit code.
        let restored = case.command("restore", &["--bundle", &case.bundle]).stdin("\n\n").run();
        assert_eq!(restored.code(3).stdout, "2\n3\n");
        case.gone();
    });
}

#[test]
fn locks_are_kept_by_a_flag() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let case = Case::new(it, "locks", &Bundle::new(it.scene, &["count-locked", "/locked"]));
        let mut counter = case.run();
        assert_eq!(counter.line(), "locked");
        case.command("checkpoint", &[]).run().code(1);
        assert_eq!(counter.next(), 1);
        case.checkpoint(&["--file-locks"]);
        let mut counter = case.restore(&["--file-locks"]);
        assert_eq!(counter.next(), 2);
        let words = ["exec", &case.id, "/probe", "try", "lock", "/locked"];
        it.run(words).success().stdout_has("would block");
        case.delete();
    });
}

/// A bundle beside the first, with a root of its own.
fn second_bundle(scene: &Scene, bundle: &Bundle) -> PathBuf {
    let dir = scene.path("second");
    crate::harness::bundle::rootfs(&dir.join("rootfs"));
    fs::copy(bundle.write().join("config.json"), dir.join("config.json")).unwrap();
    dir
}

#[test]
fn another_bundle_gets_the_places_of_its_mounts() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let (outer, inner) = (it.scene.path("outer"), it.scene.path("inner"));
        for (dir, text) in [(&outer, "outer"), (&inner, "inner")] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("name"), text).unwrap();
        }
        let mut bundle = Bundle::new(it.scene, &["count"]);
        let bind = |source: &Path, destination: &str| {
            json!({ "destination": destination, "type": "bind", "source": source,
                "options": ["bind", "rw"] })
        };
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.push(bind(&outer, "/mnt/outer"));
        mounts.push(bind(&inner, "/mnt/outer/deep/inner"));
        mounts.push(bind(&inner.join("name"), "/etc/single"));
        let mut case = Case::new(it, "bundle", &bundle);
        let mut first = case.run();
        assert_eq!(first.next(), 1);
        case.checkpoint(&[]);
        fs::remove_dir_all(outer.join("deep")).unwrap();
        case.bundle = second_bundle(it.scene, &bundle).display().to_string();
        let mut counter = case.restore(&[]);
        assert_eq!(counter.next(), 2);
        for (path, text) in [
            ("/mnt/outer/name", "outer"),
            ("/mnt/outer/deep/inner/name", "inner"),
            ("/etc/single", "inner"),
        ] {
            let words = ["exec", &case.id, "/probe", "cat", path];
            assert_eq!(it.run(words).success().stdout, text, "{path}");
        }
        let state = it.state(&case.id);
        assert_eq!(state["bundle"], case.bundle);
        case.delete();
    });
}

#[test]
fn memory_can_be_saved_ahead() {
    if !requires::checkpoints() || !requires::criu_feature("mem_dirty_track") {
        return;
    }
    under_ours(|it| {
        let mut case = Case::new(it, "ahead", &Bundle::new(it.scene, &["count"]));
        let mut counter = case.run();
        assert_eq!(counter.next(), 1);
        case.checkpoint(&["--pre-dump"]);
        assert_eq!(it.status(&case.id), "running");
        assert_eq!(counter.next(), 2);
        case.images = it.scene.path("images").display().to_string();
        case.checkpoint(&["--parent-path", "../ahead"]);
        case.gone();
        let link = fs::read_link(Path::new(&case.images).join("parent")).unwrap();
        assert_eq!(link, Path::new("../ahead"));
        let mut second = case.restore(&[]);
        assert_eq!(second.next(), 3);
        case.delete();
    });
}

#[test]
fn hooks_see_the_restored_network() {
    if !requires::checkpoints() {
        return;
    }
    under_ours(|it| {
        let saw = it.scene.path("saw");
        let script = format!("cat >/dev/null; echo $1 >>{}", saw.display());
        let hook =
            |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script, "sh", name] }]);
        let mut bundle = Bundle::new(it.scene, &["count"]);
        bundle.config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"), "poststart": hook("poststart"),
            "poststop": hook("poststop"),
        });
        let case = Case::new(it, "hooks", &bundle);
        let mut first = case.run();
        assert_eq!(first.next(), 1);
        fs::remove_file(&saw).unwrap();
        case.checkpoint(&[]);
        assert_eq!(fs::read_to_string(&saw).unwrap(), "poststop\n");
        let mut counter = case.restore(&[]);
        assert_eq!(counter.next(), 2);
        assert_eq!(fs::read_to_string(&saw).unwrap(), "poststop\nprestart\ncreateRuntime\n");
        case.delete();
    });
}
