//! Freezing, killing, joining.

use std::process::Command;

use serde_json::json;

use super::{Host, unified};

#[test]
fn pausing_freezes_and_a_frozen_container_dies_all_the_same() {
    unified(&[], |host| {
        host.start(host.bundle(&["pause"]).write());
        host.runtime(["pause", &host.id]).run().success();
        assert!(host.read("cgroup.events").contains("frozen 1"));
        let line = host.runtime(["exec", &host.id, "/probe"]).run().code(255);
        line.stderr_has("cannot exec in a paused container");
        host.runtime(["resume", &host.id]).run().success();
        assert!(host.read("cgroup.events").contains("frozen 0"));
        host.runtime(["exec", &host.id, "/probe"]).run().success();
        host.runtime(["pause", &host.id]).run().success();
        host.delete();
    });
}

#[test]
fn a_frozen_cgroup_above_hangs_nothing() {
    unified(&[], |host| {
        let (above, inner) = (host.cgroup.clone(), format!("{}/inner", host.cgroup));
        host.view.make(&above);
        let bundle = host.bundle(&["pause"]).edit("/linux/cgroupsPath", inner.as_str());
        host.start(bundle.write());
        host.view.write(&format!("{above}/cgroup.freeze"), "1");
        let line = host.runtime(["exec", &host.id, "/probe"]).run().code(255);
        line.stderr_has("a cgroup above its own is frozen");
        let second = format!("{}-second", host.id);
        let bundle = bundle.edit("/linux/cgroupsPath", format!("{above}/second"));
        host.runtime(["run", "--bundle"])
            .arg(bundle.write())
            .arg(&second)
            .run()
            .refused(&["container's cgroup unexpectedly frozen", &format!("{above}/second")]);
        host.runtime(["delete", "--force", &host.id]).run().success();
        assert!(!host.view.path(&inner).exists());
        host.view.remove(&above);
    });
}

#[test]
fn a_frozen_or_used_cgroup_is_refused() {
    unified(&[], |host| {
        host.view.make(&host.cgroup);
        host.view.write(&format!("{}/cgroup.freeze", host.cgroup), "1");
        let bundle = host.bundle(&[]);
        host.refused(bundle.write(), &["container's cgroup unexpectedly frozen"]);
        host.view.write(&format!("{}/cgroup.freeze", host.cgroup), "0");
        let stranger = Command::new("sleep").arg("600").spawn().expect("start sleep");
        host.view.write(&format!("{}/cgroup.procs", host.cgroup), &stranger.id().to_string());
        host.refused(bundle.write(), &["container's cgroup is not empty: 1 process(es) found"]);
        Host::end(stranger);
        host.view.remove(&host.cgroup);
    });
}

#[test]
fn all_are_killed_where_no_pid_namespace_does_it() {
    unified(&[], |host| {
        let namespaces = json!([{ "type": "mount" }, { "type": "uts" }]);
        let bundle = host.bundle(&["pause"]).edit("/linux/namespaces", namespaces);
        host.start(bundle.write());
        for _ in 0..3 {
            host.runtime(["exec", "--detach", &host.id, "/probe", "pause"]).run().success();
        }
        let pids: Vec<i32> =
            host.read("cgroup.procs").lines().map(|line| line.parse().expect("a pid")).collect();
        assert_eq!(pids.len(), 4);
        // Those whose init has gone before them, too.
        let init = host.pid();
        host.runtime(["kill", &host.id, "TERM"]).run().success();
        Host::wait(init);
        host.runtime(["kill", &host.id, "KILL"]).run().success();
        pids.into_iter().for_each(Host::wait);
        host.runtime(["kill", &host.id, "KILL"]).run().refused(&["container not running"]);
        host.delete();
    });
}

#[test]
fn who_comes_later_follows_an_init_that_has_moved() {
    unified(&["hugetlb"], |host| {
        let pid = host.start(host.bundle(&["pause"]).write());
        let inner = format!("{}/init", host.cgroup);
        host.view.make(&inner);
        host.view.write(&format!("{inner}/cgroup.procs"), &pid.to_string());
        host.view.write(&format!("{}/cgroup.subtree_control", host.cgroup), "+hugetlb");
        host.runtime(["exec", "--detach", &host.id, "/probe", "pause"]).run().success();
        assert_eq!(host.view.read(&format!("{inner}/cgroup.procs")).lines().count(), 2);
        // Where it is asked for by name there is no choice.
        host.runtime(["exec", "--cgroup", "/", &host.id, "/probe"])
            .run()
            .code(255)
            .stderr_has("hands controllers down to the cgroups beneath it");
        host.delete();
    });
}

#[test]
fn who_comes_later_follows_an_init_whose_first_cgroup_is_gone() {
    unified(&[], |host| {
        let pid = host.start(host.bundle(&["pause"]).write());
        let other = format!("{}-other", host.cgroup);
        host.view.make(&other);
        host.view.write(&format!("{other}/cgroup.procs"), &pid.to_string());
        host.view.remove(&host.cgroup);
        host.runtime(["exec", "--detach", &host.id, "/probe", "pause"]).run().success();
        let processes = host.view.read(&format!("{other}/cgroup.procs"));
        assert_eq!(processes.lines().count(), 2, "{processes}");
        // A choice of the caller's is no wish to be elsewhere.
        for asked in ["/", "sub"] {
            host.runtime(["exec", "--cgroup", asked, &host.id, "/probe"])
                .run()
                .code(255)
                .stderr_has("can't open cgroup: ")
                .stderr_has("no such file or directory");
        }
        assert_eq!(host.runtime(["state", &host.id]).run().success().json()["status"], "running");
        host.delete();
        host.view.remove(&other);
    });
}
