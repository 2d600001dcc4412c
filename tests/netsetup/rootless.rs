//! A container's network without root: by pasta or slirp4netns, with published ports.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::command::binary;
use crate::harness::image::Image;
use crate::harness::{Cmd, Ordinary, Outcome, Subids, requires, scene, wait_for_exit};

const PROGRAMS: [(&str, &str); 2] = [("pasta", "passt"), ("slirp4netns", "slirp4netns")];
/// Of the host, in a range that nothing else uses in a test.
const PORT: u16 = 28_080;

/// A user with a container that answers on port 80, in a network of its own.
fn with_container(body: impl Fn(&Ordinary)) {
    requires::program("newuidmap", "uidmap");
    scene(|scene| {
        let user = Ordinary::new(scene, Subids::None);
        let bundle = user.bundle("runtime", "b", &["serve", "80", "from within"]);
        user.edit(&bundle, |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({ "type": "network" }));
        });
        user.cmd("runtime").args(["run", "-d", "-b"]).arg(&bundle).arg("c").run().success();
        body(&user);
        user.cmd("runtime").args(["delete", "-f", "c"]).run().success();
    });
}

/// A directory that has one of the programs only, or none.
fn path_with(user: &Ordinary, program: Option<&str>) -> PathBuf {
    let directory = user.home(program.unwrap_or("none"));
    fs::create_dir_all(&directory).expect("make a directory");
    if let Some(program) = program {
        let found = std::env::split_paths(&std::env::var_os("PATH").expect("a PATH"))
            .map(|directory| directory.join(program))
            .find(|path| path.exists());
        let link = directory.join(program);
        if !link.exists() {
            symlink(found.expect("the program is installed"), link).expect("link the program");
        }
    }
    directory
}

fn netsetup(user: &Ordinary, path: &Path, words: &[&str]) -> Outcome {
    let command =
        user.cmd("env").arg(format!("PATH={}", path.display())).arg(user.binary("netsetup"));
    command.args(words).run()
}

fn fetch(port: u16) -> Outcome {
    Cmd::new(binary("probe")).args(["fetch", &format!("127.0.0.1:{port}")]).run()
}

/// The same from a server that may just be coming up: each attempt is a process of its own.
fn fetch_soon(port: u16) -> Outcome {
    let mut last = fetch(port);
    for _ in 0..100 {
        if !last.stdout.is_empty() {
            break;
        }
        last = fetch(port);
    }
    last
}

#[test]
fn rootless_containers_are_connected_and_their_ports_published() {
    for (program, package) in PROGRAMS {
        requires::program(program, package);
        if program == "pasta" && !requires::pasta_unconfined() {
            continue;
        }
        with_container(|user| {
            let path = path_with(user, Some(program));
            let port = format!("{PORT}:80");
            let attach =
                |words: &[&str]| netsetup(user, &path, &[&["attach"], words, &["c"]].concat());
            assert_eq!(attach(&["-p", &port]).success().word(), "10.0.2.100");
            let mounts =
                user.cmd("runtime").args(["exec", "c", "/probe", "cat", "/proc/net/route"]);
            mounts.run().success().stdout_has("eth0");
            fetch_soon(PORT).success().stdout_has("from within");
            // A second time changes nothing.
            assert_eq!(attach(&["-p", &port]).success().word(), "10.0.2.100");
            attach(&["-p", "28081:81"]).refused(&["published when it is attached"]);

            let ports: Value = netsetup(user, &path, &["ports", "--format", "json"]).json();
            assert_eq!(ports[0]["host_port"], PORT);
            let inspected = netsetup(user, &path, &["inspect", "c"]).success().json();
            assert_eq!(inspected[0]["program"], program);
            let pid = inspected[0]["process"]["pid"].as_i64().unwrap();

            netsetup(user, &path, &["detach", "c"]).success();
            wait_for_exit(i32::try_from(pid).unwrap());
            assert_ne!(fetch(PORT).code, 0);
            netsetup(user, &path, &["detach", "c"]).success();
            assert_eq!(netsetup(user, &path, &["ports", "--format", "json"]).json(), json!([]));
        });
    }
}

#[test]
fn rootless_containers_are_connected_by_the_second_program_if_the_first_fails() {
    requires::program("slirp4netns", "slirp4netns");
    with_container(|user| {
        let refuse =
            "#!/bin/sh\necho \"Couldn't open user namespace: Permission denied\" >&2\nexit 1\n";
        let [alone, both] = [None, Some("slirp4netns")].map(|program| {
            let path = path_with(user, program);
            fs::write(path.join("pasta"), refuse).expect("write a program");
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(path.join("pasta"), mode).expect("chmod it");
            path
        });
        let causes = ["by pasta: exit status: 1: Couldn't open", "install slirp4netns"];
        netsetup(user, &alone, &["attach", "c"]).refused(&causes);
        netsetup(user, &both, &["attach", "c"]).success();
        let inspected = netsetup(user, &both, &["inspect", "c"]).success().json();
        assert_eq!(inspected[0]["program"], "slirp4netns");
        netsetup(user, &both, &["detach", "c"]).success();
    });
}

#[test]
fn rootless_network_ends_with_its_container() {
    requires::program("pasta", "passt");
    if !requires::pasta_unconfined() {
        return;
    }
    with_container(|user| {
        let path = path_with(user, Some("pasta"));
        netsetup(user, &path, &["attach", "c"]).success();
        let inspected = netsetup(user, &path, &["inspect", "c"]).success().json();
        let pid = inspected[0]["process"]["pid"].as_i64().unwrap();
        user.cmd("runtime").args(["delete", "-f", "c"]).run().success();
        // Whatever command comes next finds it.
        netsetup(user, &path, &["status"]).success().stdout_has("containers:  0");
        wait_for_exit(i32::try_from(pid).unwrap());
    });
}

#[test]
fn rootless_refusals_say_what_to_do() {
    with_container(|user| {
        let none = path_with(user, None);
        let refused = |words: &[&str], texts: &[&str]| {
            netsetup(user, &none, words).refused(texts);
        };
        refused(&["attach", "c"], &["passt", "slirp4netns", "neither is in PATH"]);
        refused(&["attach", "--network", "blue", "c"], &["no bridge blue without root"]);
        refused(&["attach", "--ip", "10.0.0.1", "c"], &["leave --ip out"]);
        refused(&["attach", "-p", "80:80", "c"], &["port 80", "ip_unprivileged_port_start"]);
        refused(&["attach", "-p", "8000:80/sctp", "c"], &["tcp and udp"]);
        refused(&["publish", "c", "8000:80"], &["attach -p"]);
        refused(&["bridge", "list"], &["no bridges"]);
        netsetup(user, &none, &["status"]).success().stdout_has("problem:");
        let left = fs::read_dir(user.run_dir("netsetup/user"));
        assert_eq!(left.map_or(0, Iterator::count), 0);
    });
}

#[test]
fn rootless_bundles_are_connected_by_their_hooks() {
    requires::program("pasta", "passt");
    requires::program("newuidmap", "uidmap");
    scene(|scene| {
        let user = Ordinary::new(scene, Subids::Granted);
        let archive = user.home("image.tar");
        let name = "e2e.test/serving:latest";
        Image::probe(&["serve", "80", "from an image"]).docker_archive(&archive, name);
        user.own(&archive);
        user.cmd("imgtool").args(["load", "--input"]).arg(&archive).run().success();
        let bundle = user.cmd("imgtool").args(["bundle", "--rm", "-p", "28082:80", name]);
        let bundle = bundle.run().success().word().to_owned();
        user.cmd("runtime").args(["run", "-d", "-b", &bundle, "c"]).run().success();
        fetch_soon(28_082).success().stdout_has("from an image");
        let inspected = user.cmd("netsetup").args(["inspect", "c"]).run().success().json();
        let pid = inspected[0]["process"]["pid"].as_i64().unwrap();
        user.cmd("runtime").args(["delete", "-f", "c"]).run().success();
        wait_for_exit(i32::try_from(pid).unwrap());
        assert!(!Path::new(&bundle).exists());
        // Without the programs, who asks for a port is told, and who does not gets no network.
        let none = path_with(&user, None);
        let bundle = |words: &[&str]| {
            let command = user.cmd("env").arg(format!("PATH={}", none.display()));
            command.arg(user.binary("imgtool")).arg("bundle").args(words).arg(name).run()
        };
        bundle(&["-p", "28082:80"]).refused(&["passt and slirp4netns", "-p"]);
        bundle(&[]).success().stderr_has("loopback device only");
    });
}
