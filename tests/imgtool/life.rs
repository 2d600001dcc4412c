//! Flags of `docker run` that are about the container's life: what the bundle carries to the runtime, what
//! it is in its network, and what is done elsewhere.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::docker_flags::{NAME, refused, said, with_busybox};
use super::{Scene, remove};
use crate::harness::eventually;

/// A detached, supervised container of the bundle `b` that a shell's script is the program of.
fn supervise(scene: &Scene, flags: &[&str], script: &str) -> String {
    let own = [&["--network", "none"], flags].concat();
    let dir = super::bundle(scene, &own, NAME, "b", &["sh", "-c", script]);
    let run = scene.runtime().args(["run", "--supervise", "--detach", "--bundle"]).arg(dir);
    run.run().success().word().to_owned()
}

fn kept(id: &str, file: &str) -> Value {
    let path = Path::new("/var/lib/runtime").join(id).join(file);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn delete(scene: &Scene, id: &str) {
    scene.runtime().args(["delete", "--force", id]).run().success();
    remove(scene, "b");
}

#[test]
fn a_bundle_says_how_its_container_is_kept_and_ended() {
    with_busybox(|scene| {
        let log =
            ["--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=2"];
        let flags = [&["--restart", "on-failure:2"][..], &log].concat();
        let id = supervise(scene, &flags, "echo again; exit 7");
        let record = kept(&id, "record.json");
        assert_eq!(record["log"]["max_bytes"], 1 << 20);
        assert_eq!(record["log"]["max_files"], 2);
        // Its last end is the one after which nobody sees to it any more.
        let over = || kept(&id, "record.json")["life"]["supervisor"].is_null();
        assert!(eventually(over));
        let logs = scene.runtime().args(["logs", &id]).run().success().stdout;
        assert_eq!(logs, "again\n".repeat(3));
        assert_eq!(kept(&id, "record.json")["life"]["exit_code"], 7);
        delete(scene, &id);

        // Whoever takes no notice of a signal is killed after the time that the bundle gives; of ten
        // seconds of patience, or for ever, this would be the end of the test.
        let deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done";
        let id = supervise(scene, &["--stop-timeout", "0"], deaf);
        let heard = || scene.runtime().args(["logs", &id]).run().success().stdout == "deaf\n";
        assert!(eventually(heard));
        scene.runtime().args(["stop", &id]).run().success();
        assert_eq!(kept(&id, "record.json")["life"]["exit_code"], 137);
        delete(scene, &id);

        // A flag of the runtime's says it last.
        let own = ["--network", "none", "--restart", "always"];
        let dir = super::bundle(scene, &own, NAME, "b", &["sh", "-c", "exit 3"]);
        let run = scene.runtime().args(["run", "--supervise", "--restart", "no", "--bundle"]);
        let id = scene.id("once");
        assert_eq!(run.arg(&dir).arg(&id).run().code, 3);
        delete(scene, &id);

        refused(scene, &["--restart", "never"], &["--restart", "unless-stopped"]);
        refused(scene, &["--stop-timeout", "-2"], &["--stop-timeout -2"]);
        let flags = ["--network", "none", "--restart", "always"];
        super::bundle(scene, &flags, NAME, "b", &["true"]);
        super::run(scene, "b").success().stderr_has("--restart always").stderr_has("--supervise");
        remove(scene, "b");
        refused(scene, &["--rm", "--restart", "always"], &["--rm and --restart"]);
        refused(scene, &["--log-opt", "tag=x"], &["tag=x", "max-size"]);
    });
}

#[test]
fn one_that_starts_is_checked_at_the_start_interval() {
    with_busybox(|scene| {
        let health = ["--health-cmd", "test -e /up", "--health-interval", "1h"];
        let start = ["--health-start-period", "1h", "--health-start-interval", "10ms"];
        let id = supervise(scene, &[&health[..], &start].concat(), "sleep 0.1; : > /up; sleep 600");
        assert!(eventually(|| kept(&id, "health.json")["status"] == "healthy"));
        delete(scene, &id);
    });
}

#[test]
fn labels_stand_in_files_and_ports_are_exposed() {
    with_busybox(|scene| {
        let file = scene.path("labels");
        fs::write(&file, "# mine\na=from file\nb\nkind=file\n").unwrap();
        let labels = ["--label-file", file.to_str().unwrap(), "--label", "kind=user"];
        let flags = [&labels[..], &["--expose", "8000-8001", "--expose", "80"]].concat();
        let (_, config) = said(scene, &flags, "true");
        let annotations = &config["annotations"];
        assert_eq!((&annotations["a"], &annotations["b"]), (&"from file".into(), &"".into()));
        assert_eq!(annotations["kind"], "user");
        let ports = annotations["org.opencontainers.image.exposedPorts"].as_str().unwrap();
        assert_eq!(ports, "53/udp,80/tcp,8000-8001/tcp");
        let dir = super::bundle(scene, &["-P", "--expose", "9000"], NAME, "b", &[]);
        let config: Value =
            serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        let hook = config["hooks"]["createRuntime"][0]["args"].to_string();
        assert!(hook.contains("9000/tcp") && hook.contains("53/udp"), "{hook}");
        remove(scene, "b");
        refused(scene, &["--label-file", "/none"], &["/none"]);
        refused(scene, &["--expose", "80:80"], &["--expose", "-p"]);
    });
}

#[test]
fn a_container_has_the_addresses_and_the_names_that_are_asked_for() {
    with_busybox(|scene| {
        let create = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24", "--ipv6"];
        scene.netsetup().args(create).run().success();
        let list = scene.netsetup().args(["bridge", "inspect", "e2e0"]).run().success().stdout;
        let six = list.split(['"', ' ', '\n']).find(|word| word.starts_with("fd")).unwrap();
        let six = format!("{}99", six.split_once("::").unwrap().0.to_owned() + "::");
        let place = ["--network", "e2e0", "--ip", "10.198.0.77", "--ip6", &six];
        let names = ["--mac-address", "92:d0:c6:0a:29:33", "--network-alias", "db", "--name"];
        let server = scene.id("server");
        let flags = [&place[..], &names, &[&server]].concat();
        let script = "ip -o addr show eth0; cat /sys/class/net/eth0/address; exec sleep 600";
        let dir = super::bundle(scene, &flags, NAME, "server", &["sh", "-c", script]);
        let start = ["run", "--supervise", "--detach", "--bundle"];
        scene.runtime().args(start).arg(dir).arg(&server).run().success();
        let logs = || scene.runtime().args(["logs", &server]).run().success().stdout;
        assert!(eventually(|| logs().contains("92:d0:c6:0a:29:33")), "{}", logs());
        assert!(logs().contains("10.198.0.77/24") && logs().contains(&six), "{}", logs());
        super::bundle(
            scene,
            &["--network", "e2e0"],
            NAME,
            "b",
            &["busybox", "ping", "-c", "1", "db"],
        );
        super::run(scene, "b").success().stdout_has("10.198.0.77");
        remove(scene, "b");
        scene.runtime().args(["delete", "--force", &server]).run().success();
        remove(scene, "server");
        scene.netsetup().args(["bridge", "delete", "e2e0"]).run().success();

        refused(scene, &["--network", "none", "--ip", "10.0.0.1"], &["--ip", "--network none"]);
        refused(scene, &["--mac-address", "01:00:00:00:00:00"], &["--mac-address", "six bytes"]);
    });
}

#[test]
fn what_is_done_elsewhere_is_said_in_one_line() {
    with_busybox(|scene| {
        for (flags, words) in [
            (&["-d"][..], &["-d", "--detach"][..]),
            (&["-a", "stdout"], &["-a", "runtime attach"]),
            (&["--sig-proxy=false"], &["--sig-proxy=false", "runtime attach"]),
            (&["--detach-keys", "ctrl-x"], &["--detach-keys", "runtime attach"]),
            (&["--cidfile", "x"], &["--cidfile", "runtime run"]),
            (&["--link", "db"], &["--link", "--network-alias"]),
            (&["--link-local-ip", "169.254.1.1"], &["--link-local-ip", "--ip"]),
            (&["--kernel-memory", "64m"], &["--kernel-memory", "--memory"]),
            (&["--volume-driver", "nfs"], &["--volume-driver", "imgtool volume create"]),
            (&["--isolation", "hyperv"], &["--isolation", "Windows"]),
            (&["--runtime", "crun"], &["--runtime", "run -b BUNDLE"]),
            (&["--storage-opt", "size=1g"], &["--storage-opt", "--root"]),
            (&["--use-api-socket"], &["--use-api-socket", "no daemon"]),
            (&["--disable-content-trust=false"], &["--disable-content-trust", "policy.json"]),
            (&["--log-driver", "journald"], &["--log-driver journald", "json-file"]),
            (&["--log-driver", "none"], &["--log-driver none", "--supervise"]),
        ] {
            refused(scene, flags, words);
        }
        // What asks for what is so anyway is no mistake.
        let same = ["--sig-proxy", "--disable-content-trust", "--isolation", "default"];
        said(scene, &same, "true").0.success();
    });
}

#[test]
fn volumes_of_another_container_are_shared() {
    with_busybox(|scene| {
        let host = scene.path("host");
        fs::create_dir(&host).unwrap();
        let bind = format!("{}:/host", host.display());
        let flags = ["-v", &bind, "-v", "named:/named", "-v", "/own", "--tmpfs", "/tmp"];
        let script = "for at in named own host; do echo theirs > /$at/a; done; exec sleep 600";
        let id = supervise(scene, &flags, script);
        let written = || fs::read_to_string(host.join("a")).is_ok_and(|text| text == "theirs\n");
        assert!(eventually(written));
        let from = ["--volumes-from", &id[..12]];
        let script = "cat /host/a /named/a /own/a && echo ours > /own/b; grep -c ' /tmp ' /proc/mounts || true";
        assert_eq!(said_from(scene, &from, script), "theirs\ntheirs\ntheirs\n0\n");
        let seen = scene.runtime().args(["exec", &id, "cat", "/own/b"]).run().success().stdout;
        assert_eq!(seen, "ours\n");
        // Read-only, and where the user says something else of a place that comes first.
        let read_only = format!("{id}:ro");
        let more = ["--volumes-from", &read_only, "-v", "/named"];
        let script = "ls /named; touch /own/c 2>/dev/null || echo read-only";
        assert_eq!(said_from(scene, &more, script), "read-only\n");
        // A volume that is so mounted is in use.
        let dir = scene.path("user");
        let made = scene.imgtool().args(["bundle", "--volumes-from", &id, NAME]).arg(&dir);
        made.run().success();
        delete(scene, &id);
        scene.imgtool().args(["volume", "rm", "named"]).run().refused(&["in use by bundle"]);
        scene.imgtool().arg("rm").arg(&dir).run().success();
        scene.imgtool().args(["volume", "rm", "named"]).run().success();
        refused(scene, &["--volumes-from", "none-such"], &["--volumes-from none-such", "no such"]);
        refused(scene, &["--volumes-from", "a:x"], &["CONTAINER:ro"]);
    });
}

/// What a second container says.
fn said_from(scene: &Scene, flags: &[&str], script: &str) -> String {
    let own = [&["--network", "none"], flags].concat();
    super::bundle(scene, &own, NAME, "second", &["sh", "-c", script]);
    let outcome = super::run(scene, "second").success();
    remove(scene, "second");
    outcome.stdout
}
