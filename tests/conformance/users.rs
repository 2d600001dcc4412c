//! The bundles as an ordinary user runs them: with what `spec --rootless` changes, and all of them but
//! those that ask for what only root can have.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Case, Runner, cases, judge};
use crate::harness::ordinary::{FIRST_SUBID, SUBIDS, UID};
use crate::harness::{Cmd, Ordinary, Subids, requires, scene};

struct AsUser {
    user: Ordinary,
    subids: Subids,
    dir: PathBuf,
}

impl Runner for AsUser {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn id(&self) -> &str {
        "spec"
    }

    fn prepare(&self) {
        self.user.edit(&self.dir, |config| make_rootless(config, self.subids));
        self.user.own(&self.dir);
    }

    fn runtime(&self, words: &[&str]) -> Cmd {
        self.user.cmd("runtime").args(words)
    }
}

/// Ids of the user's own, no limits, and of the host's network the host's /sys.
fn make_rootless(config: &mut Value, subids: Subids) {
    let mut maps = vec![json!({ "containerID": 0, "hostID": UID, "size": 1 })];
    if subids == Subids::Granted {
        maps.push(json!({ "containerID": 1, "hostID": FIRST_SUBID, "size": SUBIDS }));
    }
    let linux = &mut config["linux"];
    linux["uidMappings"] = maps.clone().into();
    linux["gidMappings"] = maps.into();
    linux["resources"].take();
    let namespaces = linux["namespaces"].as_array_mut().expect("a list");
    namespaces.push(json!({ "type": "user" }));
    let own_network = namespaces.iter().any(|it| it["type"] == "network");
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" && !own_network {
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        } else if let Some(options) =
            mount["options"].as_array_mut().filter(|_| subids == Subids::None)
        {
            let names = |option: &Value, key| option.as_str().is_some_and(|it| it.starts_with(key));
            options.retain(|option| !names(option, "gid=") && !names(option, "uid="));
        }
    }
}

/// Why no ordinary user can run it, by what its configuration asks for.
fn barred(case: &Case, config: &Value, subids: Subids) -> Option<&'static str> {
    let linux = &config["linux"];
    let list = |value: &'static str, of: &Value| of[value].as_array().cloned().unwrap_or_default();
    let (namespaces, mounts) = (list("namespaces", linux), list("mounts", config));
    let shares = |kind: &str| !namespaces.iter().any(|it| it["type"] == kind);
    let mut resources = linux["resources"].as_object().into_iter().flatten();
    let binds = || mounts.iter().filter(|mount| mount["type"] == "bind");
    let mut options = binds().flat_map(|mount| list("options", mount));
    let user = &config["process"]["user"];
    let other_ids = [&user["uid"], &user["gid"]].iter().any(|id| id.as_u64().unwrap_or(0) != 0);
    [
        (resources.any(|(name, _)| name != "devices"), "limits need a cgroup that is the user's"),
        (linux.get("cgroupsPath").is_some(), "its cgroup is not the user's to make"),
        (
            list("devices", linux).iter().any(|node| !is_there(&node["path"])),
            "a user makes no device nodes, and the host has none to bind",
        ),
        (!shares("user"), "it maps ids that are not the user's"),
        (case.expect.namespaces.contains_key("user"), "a user has a user namespace always"),
        (
            namespaces.iter().any(|it| it.get("path").is_some()),
            "a user can't join the namespaces of others",
        ),
        (
            shares("pid") || shares("ipc"),
            "it mounts a file system of a namespace that is not the user's",
        ),
        (linux["sysctl"].get("kernel.domainname").is_some(), "the kernel lets only root set it"),
        (
            binds().any(|mount| mount.get("uidMappings").is_some())
                || options.clone().any(|option| option == "idmap" || option == "ridmap"),
            "only root can map the owners of files",
        ),
        (
            options.any(|option| option.as_str().is_some_and(|it| it.ends_with("atime"))),
            "the kernel locks how the host's mounts keep access times",
        ),
        (
            subids == Subids::None
                && (other_ids
                    || user.get("additionalGids").is_some()
                    || config["process"]["args"][2] == "chown"),
            "the user has one id only",
        ),
    ]
    .iter()
    .find_map(|(applies, why)| applies.then_some(*why))
}

fn is_there(path: &Value) -> bool {
    path.as_str().is_some_and(|path| Path::new(path).exists())
}

/// Those of one section, or of all by an empty name; `least` of them are for users.
fn bundles_pass(subids: Subids, section: &str, least: u32) {
    requires::program("newuidmap", "uidmap");
    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    scene(|scene| {
        let user = Ordinary::new(scene, subids);
        let dir = user.home("spec-bundle");
        let runner = AsUser { user, subids, dir };
        for case in cases().into_iter().filter(|case| case.name.starts_with(section)) {
            if case.expect.needs.iter().any(|need| !need.is_met()) {
                println!("{}: the host does not have what it needs", case.name);
                skipped += 1;
                continue;
            }
            let text = std::fs::read_to_string(case.dir.join("config.json")).expect("read it");
            // Some are not JSON on purpose.
            let config = serde_json::from_str(&text).unwrap_or_default();
            if let Some(why) = barred(&case, &config, subids) {
                println!("{}: {why}", case.name);
                skipped += 1;
                continue;
            }
            match judge(&case, &runner) {
                Ok(()) => passed += 1,
                Err(why) => failures.push(format!("{}: {why}", case.name)),
            }
        }
    });
    println!("{passed} bundles pass as an ordinary user ({subids:?}), {skipped} are not for one");
    assert!(failures.is_empty(), "of the bundles:\n{}", failures.join("\n"));
    assert!(passed >= least, "only {passed} bundles pass");
}

#[test]
fn bundles_that_a_user_can_run_pass_as_one_with_further_ids() {
    bundles_pass(Subids::Granted, "", 140);
}

#[test]
fn bundles_that_a_user_can_run_pass_as_one_without() {
    // Ids are the difference.
    bundles_pass(Subids::None, "process/", 30);
}
