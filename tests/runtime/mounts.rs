//! Mounts that come to a container that runs, and go from it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use super::{Subject, under_ours};
use crate::harness::{Bundle, Outcome};

impl Subject<'_> {
    fn mounts(&self, action: &str, id: &str, list: &Value) -> Outcome {
        self.cmd(["mounts", action, id, "-"]).stdin(list.to_string()).run()
    }

    /// What is mounted in the container.
    fn mounted(&self, id: &str) -> Value {
        self.run(["exec", id, "/probe", "report"]).success().json()["mounts"].take()
    }
}

/// A directory and a file of the host's, beside the bundle.
fn host_files(dir: &Path) -> Value {
    fs::create_dir_all(dir.join("data")).unwrap();
    fs::write(dir.join("data/word"), "from the host").unwrap();
    fs::write(dir.join("one"), "a file").unwrap();
    json!([
        { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "size=64k"] },
        { "destination": "/tmp/data", "type": "bind", "source": dir.join("data"),
          "options": ["rbind", "ro", "nodev"] },
        { "destination": "/new/one", "source": dir.join("one"), "options": ["bind"] },
    ])
}

fn come_and_go(it: &Subject, bundle: &Bundle, id: &str) {
    it.start_pausing(bundle.write(), id);
    let before = it.mounted(id);
    let list = host_files(&it.scene.path("host"));

    it.mounts("add", id, &list).success();
    let mounted = it.mounted(id);
    assert_eq!(mounted["/tmp"]["type"], "tmpfs", "{mounted}");
    let options = mounted["/tmp/data"]["options"].as_array().unwrap();
    assert!(options.contains(&json!("ro")) && options.contains(&json!("nodev")), "{options:?}");
    // The host's mounts do not get to see the container's.
    assert!(!mounted["/tmp/data"]["propagation"].as_array().unwrap().contains(&json!("shared")));
    let cat = |path| it.run(["exec", id, "/probe", "cat", path]).success().stdout;
    assert_eq!(cat("/tmp/data/word"), "from the host");
    assert_eq!(cat("/new/one"), "a file");
    let write = |path| {
        it.run(["exec", id, "/probe", "try", "write", path, "x"]).success().word().to_owned()
    };
    assert_eq!(write("/tmp/data/word"), "EROFS");
    assert_eq!(write("/new/one"), "ok");
    assert_eq!(fs::read_to_string(it.scene.path("host/one")).unwrap(), "x");

    let file = it.scene.path("mounts.json");
    fs::write(&file, list.to_string()).unwrap();
    it.cmd(["mounts", "remove", id]).arg(&file).run().success();
    assert_eq!(it.mounted(id), before);
    it.run(["delete", "--force", id]).success();
}

#[test]
fn mounts_come_to_a_running_container_and_go() {
    under_ours(|it| come_and_go(it, &Bundle::new(it.scene, &["pause"]), &it.scene.id("mounts")));
}

#[test]
fn mounts_come_to_a_container_with_its_own_users() {
    under_ours(|it| {
        let ids = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        let mut bundle = Bundle::new(it.scene, &["pause"])
            .edit("/linux/uidMappings", ids.clone())
            .edit("/linux/gidMappings", ids);
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        come_and_go(it, &bundle, &it.scene.id("users"));
    });
}

#[test]
fn file_systems_are_those_of_the_containers_namespaces() {
    under_ours(|it| {
        let id = it.scene.id("own");
        it.start_pausing(Bundle::new(it.scene, &["pause"]).write(), &id);
        it.mounts("add", &id, &json!([{ "destination": "/p", "type": "proc" }])).success();
        let first = it.run(["exec", &id, "/probe", "cat", "/p/1/cmdline"]).success();
        assert_eq!(first.stdout, "/probe\0pause\0");
        it.run(["pause", &id]).success();
        it.mounts("remove", &id, &json!([{ "destination": "/p" }])).success();
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn all_of_the_mounts_are_made_or_none() {
    under_ours(|it| {
        let id = it.scene.id("none");
        it.start_pausing(Bundle::new(it.scene, &["pause"]).write(), &id);
        let before = it.mounted(&id);
        for bad in [
            json!({ "destination": "/b", "type": "tmpfs", "options": ["size=much"] }),
            json!({ "destination": "/b", "type": "bind", "source": "/no/such/file" }),
            json!({ "destination": "/b", "type": "nosuchfs" }),
        ] {
            let list = json!([{ "destination": "/a", "type": "tmpfs" }, bad]);
            it.mounts("add", &id, &list).refused(&["mounts[1]", "/b"]);
            assert_eq!(it.mounted(&id), before);
        }
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_link_in_the_container_leads_nowhere_else() {
    under_ours(|it| {
        let id = it.scene.id("link");
        let bundle = Bundle::new(it.scene, &["pause"]);
        let outside = it.scene.path("outside");
        fs::create_dir(&outside).unwrap();
        let root = it.scene.path("bundle/rootfs");
        symlink(&outside, root.join("out")).unwrap();
        symlink("/proc", root.join("trap")).unwrap();
        it.start_pausing(bundle.write(), &id);
        let tmpfs = |destination: &str| json!([{ "destination": destination, "type": "tmpfs" }]);

        // The link is followed within the root; the scene asserts that the host has no new mount.
        it.mounts("add", &id, &tmpfs("/out/in")).success();
        let inside = outside.join("in").display().to_string();
        assert_eq!(it.mounted(&id)[&inside]["type"], "tmpfs");
        assert!(!outside.join("in").exists());
        it.mounts("remove", &id, &tmpfs("/out/in")).refused(&["symlink"]);
        it.mounts("remove", &id, &tmpfs(&inside)).success();

        // What protects a part of /proc stays, by whatever name.
        for destination in ["/trap/fs", "/proc/fs", "/dev/../proc/fs", "/proc", "/"] {
            it.mounts("remove", &id, &tmpfs(destination)).refused(&["mounts[0]"]);
        }
        it.mounts("add", &id, &tmpfs("/trap/fs")).refused(&["inside /proc"]);
        assert!(it.mounted(&id)["/proc/fs"].is_object());
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn changes_that_cannot_be_made_are_refused() {
    under_ours(|it| {
        let id = it.scene.id("refused");
        let list = json!([{ "destination": "/tmp", "type": "tmpfs" }]);
        it.mounts("add", &id, &list).refused(&["container does not exist"]);
        it.start_pausing(Bundle::new(it.scene, &["pause"]).write(), &id);
        it.mounts("add", &id, &json!({ "destination": "/tmp" })).refused(&["-: "]);
        it.mounts("add", &id, &json!([{ "type": "tmpfs" }])).refused(&["[0]", "destination"]);
        it.run(["mounts", "add", &id, "/no/such/file"]).refused(&["open /no/such/file"]);
        it.mounts("remove", &id, &list).refused(&["mounts[0]", "nothing is mounted there"]);
        it.run(["mounts", "show", &id, "-"]).code(1).stderr_has("'show'");
        it.stop(&id);
        for action in ["add", "remove"] {
            it.mounts(action, &id, &list).refused(&["container not running"]);
        }
        it.run(["delete", &id]).success();
    });
}

#[test]
fn a_container_among_the_hosts_mounts_is_left_alone() {
    under_ours(|it| {
        let id = it.scene.id("shared");
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/mounts", json!([]))
            .edit("/linux/maskedPaths", json!([]))
            .edit("/linux/readonlyPaths", json!([]))
            .edit("/linux/namespaces", json!([{ "type": "pid" }]))
            .edit("/hostname", "");
        let run = it.cmd(["run", "--detach", "--bundle"]).arg(bundle.write()).arg(&id).run();
        run.success();
        let list = json!([{ "destination": "/tmp", "type": "tmpfs" }]);
        it.mounts("add", &id, &list).refused(&["shares the host's mount namespace"]);
        it.mounts("remove", &id, &list).refused(&["shares the host's mount namespace"]);
        it.run(["delete", "--force", &id]).success();
    });
}
