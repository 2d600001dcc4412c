//! Trees that get in the way: parents with processes, threaded ones, very deep ones; and whose the
//! tree is.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use serde_json::{Value, json};

use super::{Host, huge_pages, unified};

#[test]
fn a_parent_with_processes_hands_nothing_down() {
    unified(&["hugetlb"], |host| {
        let above = host.cgroup.clone();
        host.view.make(&above);
        let stranger = Command::new("sleep").arg("600").spawn().expect("start sleep");
        host.view.write(&format!("{above}/cgroup.procs"), &stranger.id().to_string());
        let bundle = host.bundle(&[]).edit("/linux/cgroupsPath", format!("{above}/inner"));
        host.runtime(["run", "--bundle"]).arg(bundle.write()).arg(&host.id).run().success();
        let bundle = bundle.edit("/linux/resources/hugepageLimits", huge_pages(0));
        host.refused(
            bundle.write(),
            &["linux.resources.hugepageLimits[0]: ", &above, "it has processes of its own"],
        );
        Host::end(stranger);
        host.view.remove(&above);
    });
}

#[test]
fn a_cgroup_that_hands_down_takes_no_process() {
    unified(&["hugetlb"], |host| {
        host.view.make(&host.cgroup);
        host.view.write(&format!("{}/cgroup.subtree_control", host.cgroup), "+hugetlb");
        let bundle = host.bundle(&[]);
        host.refused(
            bundle.write(),
            &["hands controllers down to the cgroups beneath it", &host.cgroup],
        );
    });
}

#[test]
fn beneath_a_threaded_cgroup_all_works_but_domain_controllers() {
    unified(&["hugetlb"], |host| {
        let above = host.cgroup.clone();
        host.view.make(&above);
        let threaded = format!("{above}/threaded");
        host.view.make(&threaded);
        host.view.write(&format!("{threaded}/cgroup.type"), "threaded");
        let inner = format!("{threaded}/inner");
        let bundle = host.bundle(&["pause"]).edit("/linux/cgroupsPath", inner.as_str());
        let limited = bundle.edit("/linux/resources/hugepageLimits", huge_pages(0));
        let words = ["with domain controllers -- it is in ", "hugetlb can't be limited"];
        host.refused(limited.write(), &words);

        let bundle = limited.edit("/linux/resources/hugepageLimits", Value::Null);
        let pid = host.start(bundle.write());
        assert_eq!(host.view.read(&format!("{inner}/cgroup.type")), "threaded");
        assert_eq!(host.view.read(&format!("{inner}/cgroup.threads")), pid.to_string());
        host.runtime(["exec", "--detach", &host.id, "/probe", "pause"]).run().success();
        let listed = host.runtime(["ps", "--format", "json", &host.id]).run().success().json();
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
        host.runtime(["delete", "--force", &host.id]).run().success();
        assert!(!host.view.path(&inner).exists());
        host.view.remove(&threaded);
        host.view.remove(&above);
    });
}

#[test]
fn a_container_of_spec_sees_its_own_cgroup_only() {
    unified(&[], |host| {
        let mut bundle = host.bundle(&["pause"]);
        let made = host.scene.path("made");
        std::fs::create_dir(&made).expect("mkdir");
        host.runtime(["spec", "--bundle"]).arg(&made).run().success();
        let text = std::fs::read_to_string(made.join("config.json")).expect("read the spec");
        let spec: Value = serde_json::from_str(&text).expect("it is JSON");
        bundle.config["linux"]["namespaces"] = spec["linux"]["namespaces"].clone();
        host.start(bundle.write());
        // The root of all has no such file.
        let freeze = ["exec", &host.id, "/probe", "cat", "/sys/fs/cgroup/cgroup.freeze"];
        assert_eq!(host.runtime(freeze).run().success().word(), "0");
        let inside = host.runtime(["exec", &host.id, "/probe", "cat", "/proc/self/cgroup"]).run();
        assert_eq!(inside.success().word().lines().last(), Some("0::/"));
        host.delete();
    });
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    unified(&[], |host| {
        host.start(host.bundle(&["pause"]).write());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |dir: &OwnedFd, name: &str| openat(dir, name, flags, Mode::empty());
        let mut dir = openat(CWD, host.view.path(&host.cgroup), flags, Mode::empty())
            .expect("open the container's cgroup");
        let name = "d".repeat(250);
        for _ in 0..40 {
            mkdirat(&dir, &name, Mode::RWXU).expect("mkdir");
            mkdirat(&dir, "beside", Mode::RWXU).expect("mkdir");
            dir = open(&dir, &name).expect("open");
        }
        host.runtime(["ps", &host.id]).run().success();
        host.delete();
    });
}

#[test]
fn a_cgroup_is_given_to_the_root_of_a_container_that_may_write_there() {
    unified(&["hugetlb"], |host| {
        let mounts = |mode: &str, bundle: &crate::harness::Bundle| {
            let mut mounts = bundle.config["mounts"].clone();
            for mount in mounts.as_array_mut().expect("mounts are a list") {
                if mount["destination"] == "/sys/fs/cgroup" {
                    mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", mode]);
                }
            }
            mounts
        };
        let plain = ["pid", "network", "ipc", "uts", "mount", "user"];
        let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        for (mode, namespaced, owner) in [("rw", true, 100_000), ("ro", true, 0), ("rw", false, 0)]
        {
            let kinds = plain.iter().copied().chain(namespaced.then_some("cgroup"));
            let namespaces: Vec<Value> = kinds.map(|kind| json!({ "type": kind })).collect();
            let bundle = host.bundle(&["pause"]);
            let mounts = mounts(mode, &bundle);
            let bundle = bundle
                .edit("/linux/namespaces", namespaces)
                .edit("/linux/uidMappings", ids.clone())
                .edit("/linux/gidMappings", ids.clone())
                .edit("/mounts", mounts);
            host.start(bundle.write());
            let of = |file: &str| {
                let path = host.view.path(&host.cgroup).join(file);
                std::fs::metadata(path).expect("stat").uid()
            };
            let owners = [".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"].map(of);
            assert_eq!(owners, [owner; 4], "{mode} {namespaced}");
            assert_eq!(
                [of("cgroup.freeze"), of("cgroup.max.depth")],
                [0; 2],
                "{mode} {namespaced}"
            );
            host.delete();
        }
    });
}
