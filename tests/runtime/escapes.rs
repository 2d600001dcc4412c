//! Ways out of a container that runtimes were caught at, tried on ours and on Debian's runc. Judged
//! by what became of the host, never by an exit code: some escapes end in 0 and some in 1. Where
//! that runc is known to let one through, the test asserts that it still does: so it bites.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Subject, binary, scene, under_both};
use crate::harness::{Bundle, Cmd, Outcome};

mod descriptors;
mod devices;
mod identity;
mod links;
mod planted;
mod program;
mod races;

/// A directory of the host that no container is given: whatever happens to it is an escape.
struct Canary {
    dir: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    fn new(it: &Subject) -> Self {
        let dir = it.scene.path("canary");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("secret"), "of the host").unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        let before = snapshot(&dir);
        Self { dir, before }
    }

    fn untouched(&self) -> bool {
        snapshot(&self.dir) == self.before
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(snapshot(&self.dir), self.before, "the canary on the host was touched");
    }
}

/// Every name beneath, with type, mode, owner and content.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let content =
            if meta.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        all.insert(path.clone(), format!("{:o} {} {content}", meta.mode(), meta.uid()));
        if meta.is_dir() {
            all.extend(snapshot(&path));
        }
    }
    all
}

impl Subject<'_> {
    /// Debian 12's runc, which some recipes are known to work on.
    fn is_control(&self) -> bool {
        self.program == Path::new("runc")
    }

    /// Runs the container to its end, and takes away what is left if it failed half-way.
    fn attempt(&self, bundle: &Bundle, id: &str) -> Outcome {
        let outcome = self.cmd(["run", "--bundle"]).arg(bundle.write()).arg(id).run();
        self.run(["delete", "--force", id]);
        outcome
    }

    /// Starts the container and gives its mounts as the host sees them, if it lives.
    fn mounts_of(&self, bundle: &Path, id: &str) -> Option<String> {
        self.mounts_after(self.cmd(["run", "--detach", "--bundle"]).arg(bundle).arg(id), id)
    }

    /// The same of a container that `run` starts.
    fn mounts_after(&self, run: Cmd, id: &str) -> Option<String> {
        run.run();
        let state = self.run(["state", id]);
        let mounts = (state.code == 0).then(|| {
            let pid = &state.json()["pid"];
            fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default()
        });
        self.run(["delete", "--force", id]);
        mounts.filter(|mounts| !mounts.is_empty())
    }
}
