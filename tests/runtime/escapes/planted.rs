//! An image in which every name that a runtime may write to leads out, and views of the host that
//! have to be closed to writing.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::super::under_ours;
use super::{Bundle, Canary, Subject, under_both};

/// CVE-2025-24965 and its kin: what is made where nothing is mounted is made in the rootfs.
#[test]
fn whatever_is_written_into_the_rootfs_does_not_follow_the_links_there() {
    under_ours(|it| {
        let canary = Canary::new(it);
        let rootfs = it.scene.path("bundle/rootfs");
        let mut bundle = Bundle::new(it.scene, &["pause"])
            .edit("/process/cwd", "/job/new")
            .edit("/linux/maskedPaths", json!([]))
            .edit(
                "/linux/devices",
                json!([{ "path": "/nodes/own", "type": "c", "major": 1, "minor": 3 }]),
            );
        let source = it.scene.path("source");
        fs::write(&source, "a file").unwrap();
        bundle.config["mounts"] = json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/file", "type": "bind", "source": source, "options": ["bind"] },
            { "destination": "/deep/er/mount", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/volume", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] },
        ]);
        let dir = bundle.write();
        let names = [
            "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin",
            "stdout", "stderr", "core", "pts", "shm", "mqueue",
        ];
        let others = ["job", "nodes", "file", "deep", "volume", "etc/hostname", ".containerenv"];
        let in_dev = names.map(|name| format!("dev/{name}"));
        for name in in_dev.iter().map(String::as_str).chain(others) {
            let path = rootfs.join(name);
            // What the one before has made there.
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            symlink(canary.dir.join("new"), &path).unwrap();
            let _ = it.mounts_of(dir, &it.scene.id("planted"));
            canary.assert_untouched();
            fs::remove_file(&path).unwrap();
        }
        // And all of them in one.
        for name in in_dev.iter().map(String::as_str).chain(others) {
            let path = rootfs.join(name);
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            symlink(canary.dir.join("new"), &path).unwrap();
        }
        let _ = it.mounts_of(dir, &it.scene.id("planted"));
        canary.assert_untouched();
    });
}

/// CVE-2023-25809: what shows the host's cgroups to a container without a namespace for them can't be
/// written to by its root, who may be the owner of a delegated one.
#[test]
fn cgroups_of_the_hosts_are_read_only_in_a_user_namespace() {
    under_both(|it: &Subject| {
        let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        let kinds = ["pid", "network", "ipc", "uts", "mount", "user"];
        let namespaces: Value = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        let bundle = Bundle::new(it.scene, &[])
            .edit("/linux/namespaces", namespaces)
            .edit("/linux/uidMappings", maps.clone())
            .edit("/linux/gidMappings", maps);
        let outcome = it.attempt(&bundle, &it.scene.id("cgroups")).success();
        let mounts = outcome.json()["mounts"].clone();
        let shown: Vec<(&String, &Value)> = mounts
            .as_object()
            .unwrap()
            .iter()
            .filter(|(point, mount)| {
                let kind = mount["type"].as_str().unwrap();
                point.starts_with("/sys/fs/cgroup") && kind.starts_with("cgroup")
            })
            .collect();
        assert!(!shown.is_empty(), "no cgroups are shown: {mounts}");
        for (point, mount) in shown {
            let options = mount["options"].as_array().unwrap();
            assert!(options.contains(&json!("ro")), "{point} can be written to: {mount}");
        }
    });
}

/// CVE-2022-31030 and its kin: output without an end passes through a buffer that does not grow.
#[test]
fn endless_output_does_not_fill_the_runtimes_memory() {
    under_both(|it| {
        let id = it.scene.id("flood");
        it.start_pausing(Bundle::new(it.scene, &["pause"]).write(), &id);
        let mut exec = Command::new(&it.program)
            .args(["exec", &id, "/probe", "cat", "/dev/zero"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start an exec");
        let mut output = exec.stdout.take().expect("it is a pipe");
        let mut some = vec![0; 1 << 20];
        for _ in 0..64 {
            output.read_exact(&mut some).expect("read what is written");
        }
        // From here on nobody reads, and the next read finds no more than before.
        let status = fs::read_to_string(format!("/proc/{}/status", exec.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
        it.run(["delete", "--force", &id]).success();
        drop(output);
        exec.wait().expect("wait for the exec");
        assert!(kilobytes < 64 << 10, "{kilobytes} kB for output that passes through");
    });
}
