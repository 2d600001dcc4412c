//! A registry on loopback: Debian's docker-registry, with its storage in the scene.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::command::Cmd;
use super::{Scene, requires};

/// Serves until it is dropped.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
}

impl Registry {
    pub(crate) fn start(scene: &Scene) -> Self {
        // Free when asked; nothing else on this machine takes ports of loopback at random.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(scene, port)
    }

    pub(crate) fn start_at(scene: &Scene, port: u16) -> Self {
        requires::program("docker-registry", "docker-registry");
        let host = format!("127.0.0.1:{port}");
        let config = scene.path("registry.yml");
        let storage = scene.path("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{host}'}}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let registry = Self { child, host };
        registry.wait_until_it_listens();
        registry
    }

    fn wait_until_it_listens(&self) {
        let ask =
            "for i in $(seq 300); do curl -sf http://$0/v2/ && exit 0; sleep 0.1; done; exit 1";
        let outcome = Cmd::new("sh").args(["-c", ask, &self.host]).run();
        assert_eq!(outcome.code, 0, "the registry does not answer: {}", outcome.stderr);
        assert!(TcpStream::connect(&self.host).is_ok());
    }

    /// Puts the image of an OCI layout there by skopeo: `name` is `lib/image:tag`.
    pub(crate) fn push(&self, layout: &Path, tag: &str, name: &str) {
        let copy = Cmd::line("skopeo copy --quiet --dest-tls-verify=false --preserve-digests");
        let source = format!("oci:{}:{tag}", layout.display());
        let copy = copy.arg("--insecure-policy").arg(source);
        copy.arg(format!("docker://{}/{name}", self.host)).run().success();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
