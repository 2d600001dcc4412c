//! Symlinks in the image where the runtime makes things: nothing may be made where they lead.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::{Bundle, Canary, Subject, under_both};

/// The bundle with nothing on /dev but what is in its rootfs.
fn without_dev(bundle: Bundle) -> Bundle {
    let mounts = bundle.config["mounts"].as_array().unwrap().iter();
    let rest: Vec<Value> = mounts
        .filter(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"))
        .cloned()
        .collect();
    bundle.edit("/mounts", rest)
}

/// The bundle with a symlink in its rootfs in place of what is there.
fn linked(it: &Subject, bundle: Bundle, name: &str, target: &std::path::Path) -> Bundle {
    let path = it.scene.path("bundle/rootfs").join(name);
    if path.is_dir() {
        fs::remove_dir(&path).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, &path).unwrap();
    bundle
}

#[test]
fn a_dev_that_is_a_symlink_gets_no_devices_made_where_it_leads() {
    for on_tmpfs in [true, false] {
        under_both(|it| {
            let canary = Canary::new(it);
            let bundle = Bundle::new(it.scene, &["echo", "runs"]);
            let bundle = if on_tmpfs { bundle } else { without_dev(bundle) };
            let bundle = linked(it, bundle, "dev", &canary.dir);
            it.attempt(&bundle, &it.scene.id("dev"));
            assert_eq!(canary.untouched(), !it.is_control(), "{:?}", super::snapshot(&canary.dir));
        });
    }
}

#[test]
fn nor_where_it_leads_to_a_place_that_the_rootfs_has_too() {
    under_both(|it| {
        let canary = Canary::new(it);
        let bundle = without_dev(Bundle::new(it.scene, &["echo", "runs"]));
        let inside = it.scene.path("bundle/rootfs").join(canary.dir.strip_prefix("/").unwrap());
        fs::create_dir_all(inside).unwrap();
        let bundle = linked(it, bundle, "dev", &canary.dir);
        it.attempt(&bundle, &it.scene.id("dev"));
        assert_eq!(canary.untouched(), !it.is_control(), "{:?}", super::snapshot(&canary.dir));
    });
}

#[test]
fn a_proc_or_sys_that_is_a_symlink_is_not_mounted_on() {
    for name in ["proc", "sys"] {
        under_both(|it| {
            let canary = Canary::new(it);
            let fake = it.scene.path("bundle/rootfs/fake");
            let bundle = Bundle::new(it.scene, &["echo", "runs"]);
            fs::create_dir(&fake).unwrap();
            let bundle = linked(it, bundle, name, std::path::Path::new("fake"));
            let id = it.scene.id("fake");
            assert_eq!(it.mounts_of(bundle.write(), &id), None, "it runs on a fake /{name}");
            assert_eq!(fs::read_dir(&fake).unwrap().count(), 0, "something was made there");
            canary.assert_untouched();
        });
    }
}

#[test]
fn a_mask_is_the_null_device_and_no_link_in_its_place() {
    under_both(|it| {
        let bundle = without_dev(Bundle::new(it.scene, &["pause"]))
            .edit("/linux/maskedPaths", json!(["/proc/timer_list"]));
        let target = std::path::Path::new("/proc/sys/kernel/hostname");
        let bundle = linked(it, bundle, "dev/null", target);
        let mounts = it.mounts_of(bundle.write(), &it.scene.id("mask")).unwrap_or_default();
        let escaped = mounts.contains(" /sys/kernel/hostname ");
        assert_eq!(escaped, it.is_control(), "{mounts}");
    });
}

#[test]
fn a_bind_mount_on_a_symlink_stays_within_the_rootfs() {
    under_both(|it| {
        let canary = Canary::new(it);
        let up = format!("/a/../../..{}", canary.dir.display());
        for destination in ["/vol", &up] {
            let bind = json!({
                "destination": destination, "type": "bind",
                "source": "rootfs/etc", "options": ["bind", "rw"],
            });
            let bundle = Bundle::new(it.scene, &["try", "write", "/vol/pwn", "x"]);
            let link = it.scene.path("bundle/rootfs/vol");
            if !link.is_symlink() {
                symlink(&canary.dir, &link).unwrap();
            }
            let mut mounts = bundle.config["mounts"].as_array().unwrap().clone();
            mounts.push(bind);
            it.attempt(&bundle.edit("/mounts", mounts), &it.scene.id("vol"));
            canary.assert_untouched();
        }
    });
}

#[test]
fn nothing_but_procfs_lies_on_proc() {
    under_both(|it| {
        for destination in ["/proc", "/proc/self/attr", "/proc/self/../self/attr", "/proc/sys/net"]
        {
            let bundle = Bundle::new(it.scene, &["pause"]);
            let mut mounts = bundle.config["mounts"].as_array().unwrap().clone();
            mounts.push(json!({
                "destination": destination, "type": "bind",
                "source": "rootfs/etc", "options": ["bind"],
            }));
            let bundle = bundle.edit("/mounts", mounts);
            let mounts = it.mounts_of(bundle.write(), &it.scene.id("proc"));
            assert_eq!(mounts, None, "it runs with a mount on {destination}");
        }
    });
}

#[test]
fn sysctl_names_do_not_lead_out_of_proc_sys() {
    under_both(|it| {
        let read = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let before = read();
        for name in ["net/../kernel/core_pattern", "net.ipv4/../../kernel/core_pattern"] {
            let bundle = Bundle::new(it.scene, &["pause"])
                .edit("/linux/sysctl", json!({ name: before.trim_end() }));
            let mounts = it.mounts_of(bundle.write(), &it.scene.id("sysctl"));
            // The value is the one that is there: runc takes the name, and nothing is changed by it.
            assert!(mounts.is_none() || it.is_control(), "it runs with the sysctl {name}");
        }
        assert_eq!(read(), before);
    });
}
