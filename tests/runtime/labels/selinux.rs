//! SELinux where the kernel has it, under a policy of these tests' own: `tests/run --vm` boots a machine
//! for them.

use std::path::Path;

use serde_json::{Value, json};

use super::super::{Subject, under_ours};
use crate::harness::{Bundle, Cmd, requires};

const PROCESS: &str = "system_u:system_r:container_t:s0:c4,c5";
const FILES: &str = "system_u:object_r:container_file_t:s0:c4,c5";

/// Tells why and returns false unless the kernel heeds SELinux; gives it the policy if it has none.
fn selinux_heeds_our_policy() -> bool {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if !modules.split(',').any(|module| module == "selinux") {
        println!("SKIP: the kernel does not use SELinux");
        return false;
    }
    requires::program("secilc", "secilc");
    requires::program("getfattr", "attr");
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        Cmd::line("mount -t selinuxfs selinuxfs /sys/fs/selinux").run().success();
    }
    let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    if own.starts_with("system_u:system_r:host_t:s0") {
        return true;
    }
    let policy = std::env::temp_dir().join("e2e-selinux-policy");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/labels/selinux.cil");
    let compile = Cmd::line("secilc --filecontext /dev/null --output").arg(&policy).arg(source);
    compile.run().success();
    let bytes = std::fs::read(&policy).expect("read the policy");
    std::fs::remove_file(&policy).expect("remove the policy");
    std::fs::write("/sys/fs/selinux/load", bytes).expect("load the policy");
    std::fs::write("/sys/fs/selinux/enforce", "1").expect("enforce the policy");
    true
}

fn labelled(it: &Subject, words: &[&str]) -> Bundle {
    Bundle::new(it.scene, words).edit("/process/selinuxLabel", PROCESS)
}

fn run(it: &Subject, bundle: &Bundle, id: &str) -> Value {
    it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(id).run().success().json()
}

#[test]
fn a_process_and_its_keys_have_the_selinux_label() {
    if !selinux_heeds_our_policy() {
        return;
    }
    under_ours(|it| {
        let id = it.scene.id("selinux");
        let ids = json!([{ "containerID": 0, "hostID": 0, "size": 65_536 }]);
        let kinds = ["pid", "network", "ipc", "uts", "mount", "user"];
        let namespaces: Value = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        let plain = labelled(it, &["report"]);
        let mapped = labelled(it, &["report"])
            .edit("/linux/namespaces", namespaces)
            .edit("/linux/uidMappings", ids.clone())
            .edit("/linux/gidMappings", ids);
        for bundle in [plain, mapped] {
            let report = run(it, &bundle, &id);
            assert_eq!(report["selinux"], PROCESS);
            assert_eq!(report["keyring"], PROCESS);
        }
        // Without a wish, the caller's own label.
        let report = run(it, &Bundle::new(it.scene, &["report"]), &id);
        assert_eq!(report["selinux"], "system_u:system_r:host_t:s0");
    });
}

#[test]
fn a_further_process_has_the_containers_selinux_label_or_its_own() {
    if !selinux_heeds_our_policy() {
        return;
    }
    under_ours(|it| {
        let id = it.scene.id("selinux");
        it.start_pausing(labelled(it, &["pause"]).write(), &id);
        let report = it.run(["exec", &id, "/probe", "report"]).success().json();
        assert_eq!((&report["selinux"], &report["keyring"]), (&json!(PROCESS), &json!(PROCESS)));
        let other = "system_u:system_r:container_t:s0";
        let exec = it.run(["exec", "--process-label", other, &id, "/probe", "report"]);
        assert_eq!(exec.success().json()["selinux"], other);
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn file_systems_made_for_a_container_have_the_mount_label() {
    if !selinux_heeds_our_policy() {
        return;
    }
    under_ours(|it| {
        let id = it.scene.id("selinux");
        let bundle = labelled(it, &["pause"]).edit("/linux/mountLabel", FILES);
        it.start_pausing(bundle.write(), &id);
        let root = format!("/proc/{}/root", it.pid(&id));
        // The last is the directory that stands for a masked one.
        for path in ["dev", "dev/shm", "dev/pts", "dev/mqueue", "sys/firmware"] {
            let path = format!("{root}/{path}");
            let label = Cmd::line("getfattr --only-values -n security.selinux").arg(&path).run();
            let label = label.success().stdout;
            assert_eq!(label.trim_end_matches('\0'), FILES, "{path}");
        }
        // These have the labels that the policy gives them.
        for path in ["proc", "sys", "sys/fs/cgroup"] {
            let path = format!("{root}/{path}");
            let label = Cmd::line("getfattr --only-values -n security.selinux").arg(&path).run();
            assert!(!label.stdout.contains("container_file_t"), "{path}: {}", label.stdout);
        }
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_selinux_label_that_the_policy_refuses_is_an_error() {
    if !selinux_heeds_our_policy() {
        return;
    }
    under_ours(|it| {
        let id = it.scene.id("selinux");
        for (field, label, words) in [
            ("/process/selinuxLabel", "system_u:system_r:nonesuch_t:s0", "process.selinuxLabel"),
            // The policy has the type, and lets nobody become it.
            ("/process/selinuxLabel", "system_u:system_r:refused_t:s0", "permission denied"),
            ("/linux/mountLabel", "system_u:object_r:nonesuch_t:s0", "error mounting"),
        ] {
            let bundle = Bundle::new(it.scene, &["report"]).edit(field, label);
            it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().refused(&[words]);
            it.run(["state", &id]).refused(&["container does not exist"]);
        }
    });
}
