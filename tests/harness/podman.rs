//! Podman and buildah of the scene's own: they have no daemon, so their mounts live in a namespace
//! that is held for them.

use std::fs;
use std::path::PathBuf;

use super::command::Cmd;
use super::daemon::Daemon;
use super::{Scene, Witness, requires};

pub(crate) struct Podman {
    dir: PathBuf,
    runtime: PathBuf,
    mounts: Daemon,
}

impl Podman {
    pub(crate) fn new(witness: &Witness, scene: &Scene) -> Self {
        Self::with_network(witness, scene, "", "")
    }

    /// With more lines for two sections of its configuration: the engine's and the network's.
    pub(crate) fn with_network(
        witness: &Witness,
        scene: &Scene,
        engine: &str,
        network: &str,
    ) -> Self {
        requires::program("podman", "podman");
        requires::program("buildah", "buildah");
        let dir = scene.path("podman");
        fs::create_dir_all(dir.join("tmp")).expect("make podman's directory");
        // Podman wants more open files than some hosts let even root have, and keeps its locks in
        // memory that all podmen of the host share.
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             {engine}[network]\nnetwork_config_dir = \"{}\"\n{network}",
            dir.join("networks").display()
        );
        fs::write(dir.join("containers.conf"), text).expect("write podman's configuration");
        Self { runtime: witness.program(), mounts: Daemon::holding_mounts(), dir }
    }

    /// `podman <line>` under our runtime.
    pub(crate) fn podman(&self, line: &str) -> Cmd {
        let podman = self.storage("podman").arg("--tmpdir").arg(self.dir.join("run"));
        podman.arg("--runtime").arg(&self.runtime).args(line.split_whitespace())
    }

    /// `buildah <line>`, whose commands take the runtime each for itself.
    pub(crate) fn buildah(&self, line: &str) -> Cmd {
        self.storage("buildah").args(line.split_whitespace())
    }

    /// [`Self::buildah`] for a command that runs containers: under our runtime, without a network.
    pub(crate) fn buildah_running(&self, command: &str) -> Cmd {
        let buildah = self.buildah(command).arg("--runtime").arg(&self.runtime);
        buildah.arg("--network=none")
    }

    fn storage(&self, program: &str) -> Cmd {
        let command = self.mounts.inside(program).arg("--root").arg(self.dir.join("root"));
        let command = command.arg("--runroot").arg(self.dir.join("runroot"));
        let command = command.args(["--storage-driver", "overlay"]);
        let command = command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command.env("TMPDIR", self.dir.join("tmp"))
    }
}

impl Drop for Podman {
    /// Containers outlive podman: what a failed test left is ended here.
    fn drop(&mut self) {
        self.podman("pod rm --all --force --time 0").run();
        self.podman("rm --all --force --time 0").run();
    }
}
