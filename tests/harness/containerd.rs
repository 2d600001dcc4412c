//! A containerd of the scene's own, also with its plugin for Kubernetes: state in one directory, mounts
//! and links in namespaces of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::command::{Cmd, binary};
use super::daemon::{CgroupParent, Daemon};
use super::{Scene, Witness, requires};

pub(crate) struct Containerd {
    dir: PathBuf,
    /// containerd's namespace, and the name of its cgroup.
    namespace: String,
    daemon: Daemon,
    cgroup: CgroupParent,
}

impl Containerd {
    pub(crate) fn start(witness: &Witness, scene: &Scene) -> Self {
        requires::program("containerd", "containerd");
        requires::program("ctr", "containerd");
        let dir = scene.path("containerd");
        fs::create_dir_all(dir.join("cni")).expect("make containerd's directory");
        let config = dir.join("config.toml");
        let at = dir.display();
        let program = witness.program();
        // Even root may lack the right to protect a process from the OOM killer.
        let text = format!(
            r#"
version = 2
root = "{at}/root"
state = "{at}/state"
[grpc]
  address = "{at}/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{at}/cni/bin"
    conf_dir = "{at}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "ours"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ours]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ours.options]
        BinaryName = "{program}"
"#,
            image = PAUSE,
            program = program.display(),
        );
        fs::write(&config, text).expect("write containerd's configuration");
        // As the README has it.
        let network = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [
            {"type": "netsetup", "bridge": "cni0", "capabilities": {"portMappings": true},
             "ipam": {"type": "netsetup", "ranges": [[{"subnet": "10.199.7.0/24"}]]}}]}"#;
        let plugins = dir.join("cni/bin");
        fs::create_dir_all(&plugins).expect("make the plugins' directory");
        symlink(binary("netsetup"), plugins.join("netsetup")).expect("link the plugin");
        // The runtime adds the loopback device by a plugin of that name.
        symlink(binary("netsetup"), plugins.join("loopback")).expect("link the plugin");
        fs::write(dir.join("cni/1.conflist"), network).expect("write the network's configuration");
        let namespace = scene.id("ctr");
        let cgroup = CgroupParent::new(&namespace);
        // Its network is that of another host, and so is what netsetup notes of it.
        let state = format!("NETSETUP_STATE={at}/netsetup");
        let words = [&state, "containerd", "--config", &config.display().to_string()];
        let daemon = Daemon::start(&dir, &["--net"], "env", &words.map(str::to_owned));
        Self { dir, namespace, daemon, cgroup }
    }

    /// `ctr <line>`, in a namespace of the scene's own.
    pub(crate) fn ctr(&self, line: &str) -> Cmd {
        self.ctr_in(&self.namespace, line)
    }

    pub(crate) fn ctr_in(&self, namespace: &str, line: &str) -> Cmd {
        // The client mounts a new container's rootfs itself, to look a user up in it.
        let ctr = self.daemon.inside("ctr").arg("--address").arg(self.socket());
        ctr.args(["--namespace", namespace]).args(line.split_whitespace())
    }

    /// A command that sees containerd's mounts; what it mounts goes with them.
    pub(crate) fn inside(&self, line: &str) -> Cmd {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a line has a first word");
        self.daemon.inside(program).args(words)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// A cgroup for pods, absolute.
    pub(crate) fn cgroup(&self) -> String {
        self.cgroup.path()
    }
}

impl Drop for Containerd {
    /// Containers outlive containerd: what a failed test left is ended here.
    fn drop(&mut self) {
        for namespace in [self.namespace.clone(), CRI_NAMESPACE.to_owned()] {
            let tasks = self.ctr_in(&namespace, "task ls --quiet").run().stdout;
            for task in tasks.lines() {
                self.ctr_in(&namespace, "task rm --force").arg(task).run();
            }
            // The shim makes the runtime's root here whatever containerd's own directory is; it
            // stays where a container is left in it.
            let _ = fs::remove_dir(Path::new("/run/containerd/runc").join(namespace));
        }
    }
}

/// The image whose program holds a pod's namespaces.
pub(crate) const PAUSE: &str = "e2e.test/pause:latest";

/// Where the plugin for Kubernetes keeps its images and containers.
pub(crate) const CRI_NAMESPACE: &str = "k8s.io";
