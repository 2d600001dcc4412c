//! Bundles made by tests: one base configuration, a rootfs with nothing but the probe, and edits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::command::binary;
use super::scene::Scene;

/// A bundle directory whose configuration is written when it is asked for.
pub(crate) struct Bundle {
    dir: PathBuf,
    pub(crate) config: Value,
}

impl Bundle {
    /// A bundle that runs `/probe <words>` with namespaces of its own for all but users and time,
    /// and the mounts a container expects.
    pub(crate) fn new(scene: &Scene, words: &[&str]) -> Self {
        let dir = scene.path("bundle");
        let mut config: Value =
            serde_json::from_str(include_str!("base.json")).expect("the base is JSON");
        let args = std::iter::once("/probe").chain(words.iter().copied());
        config["process"]["args"] = args.collect();
        rootfs(&dir.join("rootfs"));
        Self { dir, config }
    }

    pub(crate) fn edit(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer starts with /");
        let parent = self.config.pointer_mut(parent).expect("the parent is in the base");
        parent[key] = value.into();
        self
    }

    /// Writes config.json; the bundle's directory.
    pub(crate) fn write(&self) -> &Path {
        let text = serde_json::to_string_pretty(&self.config).expect("a value prints");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
        &self.dir
    }
}

/// The rootfs that all bundles of these tests use: the probe and the directories mounts need.
pub(crate) fn rootfs(root: &Path) {
    for dir in ["dev", "proc", "sys", "tmp", "etc", "var"] {
        fs::create_dir_all(root.join(dir)).expect("make the rootfs");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod tmp");
    fs::copy(binary("probe"), root.join("probe")).expect("copy the probe");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/probe\nuser:x:1000:1000::/home/user:\n")
        .expect("write passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
        .expect("write group");
}
