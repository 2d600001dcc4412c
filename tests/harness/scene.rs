//! A scene: a directory, a store and names of its own for one test, and the check at its end.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use super::command::{Cmd, binary};
use super::host::HostState;

/// What one test works with. Its names carry the process id: leftovers tell where they come from.
pub(crate) struct Scene {
    dir: TempDir,
}

/// Runs `body` alone on this host and asserts that the host is then as it was before.
///
/// Links, rules, mounts and cgroups are one set per host, so scenes take turns by a file lock that
/// also holds between processes.
#[track_caller]
pub(crate) fn scene(body: impl FnOnce(&Scene)) {
    let path = std::env::temp_dir().join("e2e-scenes.lock");
    let file = fs::File::options().create(true).truncate(false).write(true).open(path);
    let turn = Flock::lock(file.expect("open the scenes' lock"), FlockArg::LockExclusive);
    let _turn = turn.map_err(|(_, errno)| errno).expect("wait for the scenes' lock");

    let scene = Scene { dir: TempDir::with_prefix("e2e-").expect("make a directory") };
    let before = HostState::capture();
    let result = catch_unwind(AssertUnwindSafe(|| body(&scene)));
    let differences = before.differences(&HostState::capture());
    if result.is_err() || !differences.is_empty() {
        scene.sweep();
    }
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    assert!(differences.is_empty(), "left on the host:\n{}", differences.join("\n"));
}

impl Scene {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A container id that no other scene has.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("e2e-{}-{name}", std::process::id())
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn runtime(&self) -> Cmd {
        self.ours("runtime")
    }

    pub(crate) fn imgtool(&self) -> Cmd {
        self.ours("imgtool")
    }

    pub(crate) fn netsetup(&self) -> Cmd {
        self.ours("netsetup")
    }

    /// Our binaries find each other as an installed set does: in one directory on the PATH.
    fn ours(&self, name: &str) -> Cmd {
        let program = binary(name);
        let dir = program.parent().unwrap_or(Path::new("/")).display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        Cmd::new(&program).env("PATH", format!("{dir}:{path}")).env("IMGTOOL_ROOT", self.store())
    }

    /// Takes away what a failed test left, so that the tests after it are judged by themselves.
    fn sweep(&self) {
        let mark = format!("e2e-{}-", std::process::id());
        let here = self.dir.path().display().to_string();
        for root in ["/run/runtime", "/run/runc"] {
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                let id = entry.file_name().to_string_lossy().into_owned();
                // Ids may be generated: what is this scene's has its bundle here.
                let state = fs::read_to_string(entry.path().join("state.json"));
                if id.starts_with(&mark) || state.is_ok_and(|state| state.contains(&here)) {
                    self.runtime().args(["--root", root, "delete", "-f", &id]).run();
                }
            }
        }
        for entry in fs::read_dir("/var/lib/runtime").into_iter().flatten().flatten() {
            let record = fs::read_to_string(entry.path().join("record.json"));
            if record.is_ok_and(|record| record.contains(&here)) {
                self.runtime().args(["delete", "-f"]).arg(entry.file_name()).run();
            }
        }
        for entry in fs::read_dir("/run/netsetup/containers").into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().trim_end_matches(".json").to_owned();
            self.netsetup().args(["detach", &id]).run();
        }
        for bridge in ["e2e0", "e2e1"] {
            self.netsetup().args(["bridge", "delete", bridge]).run();
            // Other plugins' bridge of this name is not netsetup's to delete.
            Cmd::line("ip link del").arg(bridge).run();
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let dir = self.dir.path().display().to_string();
        for line in mounts.lines().rev() {
            let point = line.split(' ').nth(1).unwrap_or_default();
            if point.starts_with(&dir) {
                Cmd::new("umount").args(["-l", point]).run();
            }
        }
    }
}
