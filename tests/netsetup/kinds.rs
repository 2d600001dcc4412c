//! What an attachment can be besides a port of a bridge, how fast it may be, and who it knows.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::publish::Server;
use super::{Cmd, Netns, netsetup, scene};
use crate::harness::requires;

#[test]
fn a_macvlan_is_on_the_network_of_its_parent() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        let path = container.path();
        let kind = ["--kind", "macvlan", "--network", "e2e-here"];
        let attach = scene.netsetup().args(["attach", &path]).args(kind);
        let address = ["--address", "10.199.0.9/24", "--gateway", "10.199.0.2"];
        attach.args(address).args(["--egress", "10m"]).run().success();
        container.line("ip route").stdout_has("default via 10.199.0.2");
        container.line("tc qdisc show dev eth0").stdout_has("rate 10Mbit");
        Cmd::line("ping -c 1 -W 2 10.199.0.9").in_netns(&remote.name).run().success();
        netsetup(scene, ["check"]);
        netsetup(scene, ["detach", &path]);
        assert_eq!(container.line("ip -br link").stdout.lines().count(), 1);
        for (words, texts) in [
            (["--kind", "macvlan", "--network", "e2e-none"], ["no link", "e2e-none"]),
            (["--kind", "macvlan", "--ip", "10.0.0.1"], ["needs the link", "--network"]),
            (["--address", "10.0.0.1/8", "--network", "e2e0"], ["for macvlan", "--ip"]),
            (["--kind", "ipvlan", "--mode", "l9"], ["needs the link", "--network"]),
        ] {
            scene.netsetup().args(["attach", &path]).args(words).run().refused(&texts);
        }
        let mode = ["--kind", "macvlan", "--network", "e2e-here", "--mode", "l2"];
        let mode = scene.netsetup().args(["attach", &path]).args(mode);
        mode.run().refused(&["macvlan has no mode", "l2"]);
    });
}

#[test]
fn an_ipvlan_shares_the_hardware_address_of_its_parent() {
    scene(|scene| {
        let remote = Netns::remote_host();
        if !requires::link_kind("ipvlan", Some("e2e-here")) {
            return;
        }
        let container = Netns::new("container");
        let path = container.path();
        let kind = ["--kind", "ipvlan", "--mode", "l2", "--network", "e2e-here"];
        let attach = scene.netsetup().args(["attach", &path]).args(kind);
        let attach = attach.args(["--address", "10.199.0.9/24", "--format", "json"]);
        let attached = attach.run().success().json();
        let mac = attached["mac"].as_str().unwrap();
        Cmd::line("ip link show dev e2e-here").run().stdout_has(mac);
        container.line("ip -d link show dev eth0").stdout_has("ipvlan").stdout_has("mode l2");
        Cmd::line("ping -c 1 -W 5 10.199.0.9").in_netns(&remote.name).run().success();
        netsetup(scene, ["detach", &path]);
        assert_eq!(container.line("ip -br link").stdout.lines().count(), 1);
    });
}

#[test]
fn what_a_container_receives_and_sends_is_limited() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        let attach = scene.netsetup().args(["attach", &path, "--network", "e2e0"]);
        let attach = attach.args(["--ingress", "20mbit", "--egress", "5m", "--format", "json"]);
        let attached = attach.run().success().json();
        let veth = attached["host_interface"].as_str().unwrap();
        Cmd::line("tc qdisc show dev").arg(veth).run().stdout_has("tbf").stdout_has("20Mbit");
        container.line("tc qdisc show dev eth0").stdout_has("tbf").stdout_has("5Mbit");
        let shown = netsetup(scene, ["inspect", &path]).stdout;
        assert!(shown.contains("20000000") && shown.contains("5000000"), "{shown}");
        let bad = scene.netsetup().args(["attach", &path, "--ingress", "fast"]).run();
        bad.refused(&["fast", "bits per second"]);
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn containers_of_one_network_know_each_others_names() {
    scene(|scene| {
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        netsetup(scene, ["bridge", "create", "e2e1", "--subnet", "10.198.1.0/24"]);
        let (one, two, three) = (Netns::new("one"), Netns::new("two"), Netns::new("three"));
        // A container of a bundle, by its hook; the others by hand.
        let bundle = scene.path("bundle");
        fs::create_dir_all(&bundle).unwrap();
        let hosts = bundle.join("hosts");
        fs::write(&hosts, "127.0.0.1\tlocalhost\n").unwrap();
        let config = json!({"hostname": "web", "mounts": [
            {"destination": "/etc/hosts", "source": hosts, "type": "bind"}]});
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let server = Server::start(&one, "serve", "80");
        let hook = |status: &str| {
            let state = json!({"ociVersion": "1.0.2", "id": "c1", "status": status,
                "pid": server.pid(), "bundle": bundle});
            let hook = scene.netsetup().args(["hook", "--network", "e2e0", "--alias", "www"]);
            hook.stdin(state.to_string()).run().success();
        };
        hook("created");
        let second = scene.path("hosts");
        fs::write(&second, "").unwrap();
        let words = ["attach", &two.path(), "--network", "e2e0", "--alias", "db", "--hosts"];
        scene.netsetup().args(words).arg(&second).run().success();
        netsetup(scene, ["attach", &three.path(), "--network", "e2e1", "--alias", "far"]);
        let read = |path| fs::read_to_string(path).unwrap();
        let (first, other) = (read(&hosts), read(&second));
        assert!(first.starts_with("127.0.0.1\tlocalhost\n"), "{first}");
        assert!(first.contains("10.198.0.3\tdb ") && first.contains("10.198.0.2\twww web c1"));
        assert!(other.contains("10.198.0.2\twww web c1"), "{other}");
        assert!(!first.contains("far") && !other.contains("far"), "another network's: {first}");
        // A second network brings its names, and takes them along.
        netsetup(scene, ["attach", &two.path(), "--network", "e2e1"]);
        assert!(!read(&second).contains("far"), "without --hosts");
        netsetup(scene, ["detach", &two.path()]);
        assert!(!read(&hosts).contains("db") && read(&second).is_empty());
        let inode = fs::metadata(&hosts).unwrap().ino();
        hook("stopped");
        assert_eq!(read(&hosts), "127.0.0.1\tlocalhost\n");
        assert_eq!(inode, fs::metadata(&hosts).unwrap().ino());
        netsetup(scene, ["detach", &three.path()]);
        scene.netsetup().args(["bridge", "delete", "e2e0", "e2e1"]).run().success();
    });
}
