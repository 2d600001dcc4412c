//! The three binaries in one pipeline: an image in, a reachable container out, and nothing left.

use crate::harness::image::Image;
use crate::harness::netns::Netns;
use crate::harness::{Cmd, Scene, scene};

const NAME: &str = "e2e.test/together:latest";

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
