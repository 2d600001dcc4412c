//! Our runtime as an engine is given it: a program named `runc` that writes down what it was called
//! with, so that a test can tell that the engine called it, and for what.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::command::{Cmd, binary};
use super::scene::Scene;

pub(crate) struct Witness {
    dir: PathBuf,
}

impl Witness {
    pub(crate) fn new(scene: &Scene) -> Self {
        let witness = Self { dir: scene.path("witness") };
        fs::create_dir_all(witness.dir.join("ours")).expect("make the witness's directory");
        // Engines go by the name: podman asks for JSON errors only of a runtime named `runc`.
        let ours = witness.dir.join("ours/runc");
        let target = binary("runtime").canonicalize().expect("find the runtime");
        symlink(target, &ours).expect("link the runtime");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{}'\nexec '{}' \"$@\"\n",
            witness.log().display(),
            ours.display(),
        );
        fs::write(witness.program(), script).expect("write the witness");
        fs::set_permissions(witness.program(), fs::Permissions::from_mode(0o755))
            .expect("make the witness a program");
        witness
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.dir.join("runc")
    }

    /// `X` of the line `runc version X`: what engines report as the runtime's version.
    pub(crate) fn version(&self) -> String {
        let told = Cmd::new(self.dir.join("ours/runc")).arg("--version").run().success();
        let first = told.stdout.lines().next().unwrap_or_default();
        first.strip_prefix("runc version ").expect("engines want this prefix").to_owned()
    }

    /// Asserts that for each of `calls` there is one in which its words stand in this order.
    #[track_caller]
    pub(crate) fn saw(&self, calls: &[&str]) {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        for call in calls {
            let found = log.lines().any(|line| {
                let mut words = line.split(' ');
                call.split(' ').all(|wanted| words.any(|word| word == wanted))
            });
            assert!(found, "our runtime was not called to {call:?}; its calls:\n{log}");
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("calls")
    }
}
