//! Ids that wrap around to root, and names that lead out of the state directory.

use std::fs;

use serde_json::json;

use super::{Bundle, Canary, Subject, snapshot, under_both};
use crate::harness::Outcome;

/// The report of a process that ran, if it did.
fn report(outcome: &Outcome) -> Option<serde_json::Value> {
    serde_json::from_str(&outcome.stdout).ok()
}

fn assert_did_not_run(outcome: &Outcome) {
    assert!(report(outcome).is_none(), "it ran: {outcome:?}");
}

#[test]
fn the_highest_id_is_not_root() {
    under_both(|it| {
        for key in ["uid", "gid"] {
            let bundle = Bundle::new(it.scene, &[]).edit(&format!("/process/user/{key}"), u32::MAX);
            assert_did_not_run(&it.attempt(&bundle, &it.scene.id("id")));
        }
    });
}

#[test]
fn exec_takes_a_user_as_it_is_written_or_not_at_all() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("user");
        it.start_pausing(bundle.write(), &id);
        let exec = |user: &str| it.run(["exec", "--user", user, &id, "/probe"]);
        let ran = report(&exec("1")).unwrap();
        assert_eq!((&ran["uid"], &ran["gid"]), (&1.into(), &0.into()));
        for user in ["1:", ":1", "-1", "4294967295", "1:4294967295", "1:2:3", "0x1", " 1", "1 "] {
            assert_did_not_run(&exec(user));
        }
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn an_id_is_a_name_and_no_path() {
    under_both(|it: &Subject| {
        let canary = Canary::new(it);
        let root = it.scene.path("state/root");
        fs::create_dir_all(&root).unwrap();
        let bundle = Bundle::new(it.scene, &[]);
        let dir = bundle.write();
        let beside = it.scene.path("state/beside");
        let absolute = canary.dir.join("container").display().to_string();
        for id in ["../beside", "a/b", "..", ".", "", "a\n", &absolute] {
            let run = it.cmd(["--root"]).arg(&root).args(["run", "--bundle"]).arg(dir);
            assert_did_not_run(&run.arg(id).run());
            assert!(snapshot(&root).is_empty(), "id {id:?} left {:?}", snapshot(&root));
            assert!(!beside.exists(), "id {id:?} leads out");
        }
        canary.assert_untouched();
    });
}

/// CVE-2021-43784: lengths that a message between the runtime's processes has no room for.
#[test]
fn endless_mappings_and_paths_are_refused_as_such() {
    under_both(|it: &Subject| {
        let mappings: Vec<_> = (0..5000)
            .map(|id| json!({ "containerID": id, "hostID": 100_000 + 2 * id, "size": 1 }))
            .collect();
        let namespaces = json!([{ "type": "mount" }, { "type": "uts" }, { "type": "user" }]);
        let bundle = Bundle::new(it.scene, &[])
            .edit("/linux/namespaces", namespaces)
            .edit("/linux/uidMappings", mappings.clone())
            .edit("/linux/gidMappings", mappings);
        let outcome = it.attempt(&bundle, &it.scene.id("mappings")).code(1);
        assert_did_not_run(&outcome);
        if !it.is_control() {
            outcome.refused(&["linux.uidMappings", "5000", "340"]);
        }
        let path = format!("/{}", "n".repeat(70_000));
        let namespaces =
            json!([{ "type": "mount" }, { "type": "uts" }, { "type": "ipc", "path": path }]);
        let bundle = Bundle::new(it.scene, &[]).edit("/linux/namespaces", namespaces);
        let outcome = it.attempt(&bundle, &it.scene.id("path")).code(1);
        assert_did_not_run(&outcome.stderr_has("file name too long"));
    });
}
