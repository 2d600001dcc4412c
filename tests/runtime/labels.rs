//! Labels of the security modules: this host has neither, and where it seems to have one, what
//! can't be applied is an error. Profiles that are heeded are in `spec-bundles/`.

use std::path::Path;

use super::{Subject, under_ours};
use crate::harness::{Bundle, Cmd};

mod selinux;

const NO_APPARMOR: &str = "apparmor: config provided but apparmor not supported";
const NO_SELINUX: &str =
    "selinux label is specified in config, but selinux is disabled or not supported";

/// Neither module may be there: their own tests are others.
fn is_without_modules() -> bool {
    let without = !Path::new("/sys/kernel/security/apparmor").exists()
        && !Path::new("/sys/fs/selinux/enforce").exists();
    if !without {
        println!("SKIP: this host has a security module");
    }
    without
}

#[test]
fn labels_are_refused_where_no_module_heeds_them() {
    if !is_without_modules() {
        return;
    }
    under_ours(|it| {
        let id = it.scene.id("labels");
        for (field, text) in [
            ("/process/apparmorProfile", NO_APPARMOR),
            ("/process/selinuxLabel", NO_SELINUX),
            ("/linux/mountLabel", NO_SELINUX),
        ] {
            let bundle = Bundle::new(it.scene, &["report"]).edit(field, "a-label");
            let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run();
            run.refused(&[text, &field[1..].replace('/', ".")]);
        }
        it.start_pausing(Bundle::new(it.scene, &["pause"]).write(), &id);
        it.run(["exec", "--apparmor", "x", &id, "/probe"]).code(255).refused(&[NO_APPARMOR]);
        it.run(["exec", "--process-label", "x", &id, "/probe"]).code(255).refused(&[NO_SELINUX]);
        let process = it.scene.path("process.json");
        let text = r#"{"cwd":"/","args":["/probe"],"apparmorProfile":"x"}"#;
        std::fs::write(&process, text).unwrap();
        let exec = it.cmd(["exec", "--process"]).arg(&process).arg(&id).run();
        exec.code(255).refused(&[NO_APPARMOR]);
        it.run(["delete", "--force", &id]).success();
    });
}

/// Makes the host look as if it had both modules, for `words` only.
fn as_if_there(words: impl IntoIterator<Item = std::ffi::OsString>) -> Cmd {
    let script = "set -e
mount -t tmpfs tmpfs /sys/kernel/security
mkdir /sys/kernel/security/apparmor
mount -t tmpfs tmpfs /sys/module
mkdir -p /sys/module/apparmor/parameters
echo Y >/sys/module/apparmor/parameters/enabled
mount -t tmpfs tmpfs /sys/fs
mkdir /sys/fs/selinux
echo 1 >/sys/fs/selinux/enforce
mkdir /sys/fs/cgroup
mount --rbind \"$1\" /sys/fs/cgroup
shift; exec \"$@\"";
    let keep = "mkdir -p $1 && mount --rbind /sys/fs/cgroup $1 && shift && exec \"$@\"";
    let kept = std::env::temp_dir().join(format!("e2e-cgroup-{}", std::process::id()));
    let enter = Cmd::line("unshare --mount --propagation private -- sh -c");
    let enter = enter.args([keep, "sh"]).arg(&kept);
    enter.args(["sh", "-c", script, "sh"]).arg(&kept).args(words)
}

fn refused_by_the_kernel(it: &Subject, field: &str, texts: &[&str]) {
    let id = it.scene.id("attr");
    let bundle = Bundle::new(it.scene, &["report"]).edit(field, "a-label");
    let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id);
    as_if_there(run.into_words()).run().refused(texts);
    it.run(["state", &id]).refused(&["container does not exist"]);
}

#[test]
fn a_label_that_can_not_be_applied_is_an_error() {
    if !is_without_modules() {
        return;
    }
    under_ours(|it| {
        let attr = "`/proc/thread-self/attr/";
        let apparmor = "apparmor failed to apply profile";
        refused_by_the_kernel(it, "/process/apparmorProfile", &[apparmor, attr]);
        // The first that is written is that of the keys.
        refused_by_the_kernel(it, "/process/selinuxLabel", &["process.selinuxLabel", attr]);
        refused_by_the_kernel(it, "/linux/mountLabel", &["error mounting"]);
    });
    let kept = std::env::temp_dir().join(format!("e2e-cgroup-{}", std::process::id()));
    std::fs::remove_dir(kept).expect("remove the mount point");
}
