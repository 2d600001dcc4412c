//! `netsetup` as the network of engines: podman's back end and its CNI plugins, containerd's plugins.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{IMAGE, archive};
use crate::harness::cni::plugin_directory;
use crate::harness::command::binary;
use crate::harness::containerd::Containerd;
use crate::harness::podman::Podman;
use crate::harness::{Cmd, Scene, Witness, eventually, scene};

const SERVE: &str = "/bin/busybox httpd -f -p 80 -h /etc";
/// Where Debian keeps podman's name server.
const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";
/// Which the server writes, and which is the same for all podmen of the host.
const AARDVARK_PID: &str = "/run/containers/networks/aardvark-dns/aardvark.pid";

/// A page of the container's, once its server listens.
#[track_caller]
fn is_served(url: &str) {
    let fetch = || Cmd::line("curl -sS --max-time 5").arg(url).run();
    assert!(eventually(|| fetch().code == 0), "{url}: {:?}", fetch());
    fetch().stdout_has("root:");
}

fn podman(scene: &Scene, engine: &str, network: &str) -> Podman {
    let podman = Podman::with_network(&Witness::new(scene), scene, engine, network);
    podman.podman("load --quiet --input").arg(archive(scene)).run().success();
    podman
}

/// Publishes a port, and looks at it from the host and from another container.
fn publishes(podman: &Podman) {
    let run = podman.podman("run --detach --name web --publish 18080:80").arg(IMAGE);
    run.args(SERVE.split(' ')).run().success();
    is_served("http://127.0.0.1:18080/passwd");
    let address = podman.podman("inspect --format {{.NetworkSettings.IPAddress}} web");
    let address = address.run().success().word().to_owned();
    let other = podman.podman("run --rm").arg(IMAGE);
    let get = ["/bin/busybox", "wget", "-qO-", &format!("http://{address}/passwd")];
    other.args(get).run().success().stdout_has("root:");
    let ports = Cmd::line("nft list map inet netsetup ports").run().success();
    ports.stdout_has("tcp . 18080");
    podman.podman("rm --force --time 0 web").run().success();
}

#[test]
fn podman_runs_on_our_netavark() {
    scene(|scene| {
        let helpers = scene.path("helpers");
        fs::create_dir_all(&helpers).expect("make the helpers' directory");
        symlink(binary("netsetup"), helpers.join("netavark")).expect("link netavark");
        let engine = format!("helper_binaries_dir = [\"{}\"]\n", helpers.display());
        if PathBuf::from(AARDVARK).exists() {
            symlink(AARDVARK, helpers.join("aardvark-dns")).expect("link the name server");
        }
        let podman = podman(scene, &engine, "network_backend = \"netavark\"\n");
        let info = podman.podman("info --format {{.Host.NetworkBackend}}");
        assert_eq!(info.run().success().word(), "netavark");
        publishes(&podman);
        podman.podman("network create net1").run().success();
        let run = podman.podman("run --detach --name web --network net1").arg(IMAGE);
        run.args(SERVE.split(' ')).run().success();
        let other = podman.podman("run --rm --network net1").arg(IMAGE);
        // Names are resolved by podman's own server, where it is installed.
        if PathBuf::from(AARDVARK).exists() {
            let get = ["/bin/busybox", "wget", "-qO-", "http://web/passwd"];
            other.args(get).run().success().stdout_has("root:");
            let pid = fs::read_to_string(AARDVARK_PID).expect("read the name server's pid");
            podman.podman("rm --force --time 0 web").run().success();
            let process = Path::new("/proc").join(pid.trim());
            assert!(eventually(|| !process.exists()), "the name server outlives all names");
        }
        podman.podman("network rm --force net1").run().success();
    });
}

#[test]
fn podman_takes_our_cni_plugins() {
    scene(|scene| {
        let plugins = plugin_directory(&scene.path("plugins"));
        let network =
            format!("network_backend = \"cni\"\ncni_plugin_dirs = [\"{}\"]\n", plugins.display());
        publishes(&podman(scene, "", &network));
    });
}

#[test]
fn containerd_takes_our_cni_plugin() {
    scene(|scene| {
        let plugins = plugin_directory(&scene.path("plugins"));
        let witness = Witness::new(scene);
        let containerd = Containerd::start(&witness, scene);
        containerd.ctr("image import").arg(archive(scene)).run().success();
        let config = scene.path("10-net.conflist");
        let text = r#"{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{"type": "netsetup",
            "bridge": "e2e0", "ipam": {"type": "netsetup", "subnet": "10.198.0.0/24"}}]}"#;
        fs::write(&config, text).expect("write the network's configuration");
        // Where the client looks is fixed.
        for line in
            ["mount -t tmpfs none /opt", "mkdir -p /opt/cni", "mount -t tmpfs none /etc/cni"]
        {
            containerd.inside(line).run().success();
        }
        containerd.inside("ln -s").arg(&plugins).arg("/opt/cni/bin").run().success();
        containerd.inside("mkdir /etc/cni/net.d").run().success();
        containerd.inside("cp").arg(&config).arg("/etc/cni/net.d").run().success();
        let run = containerd.ctr("run --cni --rm --runc-binary").arg(witness.program());
        let shown = run.args([IMAGE, "web", "/bin/busybox", "ip", "addr"]).run().success();
        shown.stdout_has("10.198.0.2/24");
    });
}
