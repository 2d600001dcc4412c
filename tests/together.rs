//! The three binaries in one pipeline: an image in, a reachable container out, and nothing left.

use std::fs;

use crate::harness::image::Image;
use crate::harness::netns::Netns;
use crate::harness::{Cmd, Scene, eventually, scene, wait_for_exit};

mod transcript;
mod tutorial;

const NAME: &str = "e2e.test/together:latest";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn load(scene: &Scene, words: &[&str]) {
    let archive = Image::probe(words).docker_archive(&scene.path("image.tar"), NAME);
    scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
}

/// Waits for the page at `http://<address>/`: the program may not listen yet.
fn fetch(address: &str) -> Cmd {
    Cmd::line("curl -sS --max-time 20 --retry 50 --retry-connrefused --retry-delay 0")
        .arg(format!("http://{address}/"))
}

#[test]
fn a_loaded_image_answers_on_a_published_port() {
    scene(|scene| {
        let remote = Netns::remote_host();
        load(scene, &["serve", "80", "page for"]);
        let dir = scene.path("b");
        let id = scene.id("web");
        scene.imgtool().args(["bundle", "-p", "18080:80", NAME]).arg(&dir).run().success();
        scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir).arg(&id).run().success();

        let seen = fetch("10.199.0.1:18080").in_netns(&remote.name).run().success();
        assert_eq!(seen.stdout, "page for 10.199.0.2\n");
        fetch("127.0.0.1:18080").run().success().stdout_has("page for");
        scene.netsetup().args(["ports", &id]).run().success().stdout_has("18080");
        scene.netsetup().args(["inspect", &id]).run().success().stdout_has("address");

        scene.runtime().args(["delete", "--force", &id]).run().success();
        scene.imgtool().arg("rm").arg(&dir).run().success();
        scene.imgtool().args(["rmi", NAME]).run().success();
    });
}

#[test]
fn a_port_that_is_taken_stops_the_second_container_and_leaves_nothing_of_it() {
    scene(|scene| {
        load(scene, &["pause"]);
        let (one, two) = (scene.id("one"), scene.id("two"));
        for name in ["one", "two"] {
            let dir = scene.path(name);
            scene.imgtool().args(["bundle", "-p", "18080:80", NAME]).arg(&dir).run().success();
        }
        let run = |name: &str, id: &str| {
            scene
                .runtime()
                .args(["run", "--detach", "--bundle"])
                .arg(scene.path(name))
                .arg(id)
                .run()
        };
        run("one", &one).success();
        let refused = run("two", &two);
        refused.code(1).stderr_has("18080").stderr_has(&one);
        scene.runtime().args(["state", &two]).run().code(1);
        scene.runtime().args(["delete", "--force", &one]).run().success();
        run("two", &two).success();
        scene.runtime().args(["delete", "--force", &two]).run().success();
        for name in ["one", "two"] {
            scene.imgtool().arg("rm").arg(scene.path(name)).run().success();
        }
    });
}

/// `docker run --rm IMG CMD` as our pipeline.
#[test]
fn with_rm_one_line_runs_a_command_and_leaves_nothing() {
    scene(|scene| {
        load(scene, &[]);
        let made = scene.imgtool().args(["bundle", "--rm", "-p", "18080:80", NAME, "--"]);
        let made = made.args(["/probe", "report"]).run().success();
        let run = scene.runtime().args(["run", "--bundle", made.word()]).arg(scene.id("once"));
        let seen = run.run().success().json();
        assert_eq!(seen["pid"], 1);
        assert_eq!(scene.imgtool().args(["bundles", "--quiet"]).run().success().stdout, "");
    });
}

/// A resolver in a container finds the others of its network, those that came after it too.
#[test]
fn containers_of_one_network_reach_each_other_by_name() {
    scene(|scene| {
        let archive = Image::busybox().docker_archive(&scene.path("image.tar"), NAME);
        scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
        scene.netsetup().args(["bridge", "create", "e2e0", "--ipv6"]).run().success();
        let run = |name: &str, words: &[&str]| {
            let flags = ["--network", "e2e0", "--hostname", name];
            let dir = scene.path(name);
            let bundle = scene.imgtool().arg("bundle").args(flags).arg(NAME).arg(&dir).arg("--");
            bundle.args(words).run().success();
            let run = scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir);
            run.arg(scene.id(name)).run().success();
        };
        run("asker", &["sleep", "1000"]);
        let serve = "echo hello from db >/tmp/index.html; exec busybox httpd -f -h /tmp";
        run("db", &["sh", "-c", serve]);
        let ask = |name: &str| {
            let fetch = ["exec", &scene.id("asker"), "busybox", "wget", "-q", "-O", "-"];
            scene.runtime().args(fetch).arg(format!("http://{name}/")).run()
        };
        // It may not listen yet.
        assert!(eventually(|| ask("db").code == 0), "{:?}", ask("db"));
        for name in ["db", &scene.id("db")] {
            assert_eq!(ask(name).success().stdout, "hello from db\n");
        }
        scene.runtime().args(["delete", "--force", &scene.id("db")]).run().success();
        assert_ne!(ask("db").code, 0);
        scene.runtime().args(["delete", "--force", &scene.id("asker")]).run().success();
        for name in ["asker", "db"] {
            scene.imgtool().arg("rm").arg(scene.path(name)).run().success();
        }
        scene.netsetup().args(["bridge", "delete", "e2e0"]).run().success();
        scene.imgtool().args(["rmi", NAME]).run().success();
    });
}

/// The network hook is an ordinary OCI hook: Debian's runc runs it as well.
#[test]
fn the_same_bundle_is_reachable_under_runc() {
    scene(|scene| {
        load(scene, &["serve", "80", "page for"]);
        let dir = scene.path("b");
        let id = scene.id("runc");
        scene.imgtool().args(["bundle", "-p", "18080:80", NAME]).arg(&dir).run().success();
        Cmd::line("runc run --detach --bundle").arg(&dir).arg(&id).run().success();
        fetch("127.0.0.1:18080").run().success().stdout_has("page for");
        Cmd::line("runc delete --force").arg(&id).run().success();
        scene.imgtool().arg("rm").arg(&dir).run().success();
    });
}

/// A reboot takes processes, mounts, cgroups, links, rules and /run; what is on disk stays.
#[test]
fn a_container_killed_by_a_reboot_can_be_run_again_committed_and_removed() {
    scene(|scene| {
        load(scene, &["pause"]);
        let forward = fs::read_to_string(FORWARD).unwrap();
        let dir = scene.path("b");
        let id = scene.id("before");
        scene.imgtool().args(["bundle", "-p", "18080:80", NAME]).arg(&dir).run().success();
        let run = |id: &str| {
            scene.runtime().args(["run", "--detach", "--bundle"]).arg(&dir).arg(id).run().success()
        };
        run(&id);
        let append = ["exec", &id, "/probe", "append", "/kept", "from before"];
        scene.runtime().args(append).run().success();

        let state = scene.runtime().args(["state", &id]).run().success().json();
        let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        Cmd::line(&format!("kill -KILL {pid}")).run().success();
        wait_for_exit(pid);
        reboot(&cgroups);
        fs::write(FORWARD, forward).unwrap();
        Cmd::new("umount").arg(dir.join("rootfs")).run().success();

        scene.imgtool().arg("mount").arg(&dir).run().success();
        run(&id);
        let seen = scene.runtime().args(["exec", &id, "/probe", "cat", "/kept"]).run().success();
        assert_eq!(seen.stdout, "from before\n");
        let new = "e2e.test/together:kept";
        scene.imgtool().args(["commit", &id, new]).run().success();
        scene.runtime().args(["delete", "--force", &id]).run().success();
        scene.imgtool().arg("rm").arg(&dir).run().success();
        scene.imgtool().args(["rmi", NAME, new]).run().success();
        let left = Cmd::new("find").arg(scene.store()).args(["-type", "f", "-path", "*/sha256/*"]);
        assert_eq!(left.run().success().stdout, "", "blobs or layers are left");
    });
}

/// Takes what a reboot takes of the container whose `/proc/PID/cgroup` was `cgroups`: its leaf in
/// every hierarchy, the state directories' content, and netsetup's link and table.
fn reboot(cgroups: &str) {
    for line in cgroups.lines() {
        let [_, names, path] = line.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
        let hierarchy =
            if names.is_empty() { "unified" } else { names.trim_start_matches("name=") };
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/{hierarchy}{path}"));
    }
    for dir in ["/run/runtime", "/run/netsetup"] {
        Cmd::new("find").args([dir, "-mindepth", "1", "-delete"]).run().success();
    }
    Cmd::line("ip link del netsetup0").run().success();
    Cmd::line("nft delete table inet netsetup").run().success();
}
