//! Network devices that move into a container. Debian's runc does not know of them yet.

use serde_json::json;

use super::{Subject, under_ours};
use crate::harness::netns::Netns;
use crate::harness::{Bundle, Cmd};

/// A device of the host's, the other end of whose cable stays.
const DEVICE: &str = "e2e-dev";
const CABLE: &str =
    "ip link add e2e-dev mtu 1789 address 02:11:22:33:44:55 type veth peer name e2e-here";

/// Both ends go, wherever the device is by now.
struct Cable;

impl Cable {
    fn new() -> Self {
        Cmd::line(CABLE).run().success();
        Cable
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        Cmd::line("ip link del e2e-here").run();
    }
}

fn bundle(it: &Subject, namespace: &Netns, name: &str) -> Bundle {
    let mut bundle = Bundle::new(it.scene, &["cat", &format!("/sys/class/net/{name}/mtu")])
        .edit("/linux/netDevices", json!({ DEVICE: { "name": name } }));
    bundle.config["linux"]["namespaces"][1]["path"] = namespace.path().into();
    bundle
}

#[test]
fn a_device_moves_with_all_that_is_its_own() {
    under_ours(|it| {
        let (_cable, namespace) = (Cable::new(), Netns::new("devices"));
        for line in [
            "ip addr add 10.198.0.7/24 dev e2e-dev",
            "ip addr add 10.197.0.8/24 dev e2e-dev scope link",
            "ip addr add 10.198.0.9/24 dev e2e-dev valid_lft 900 preferred_lft 900",
            "ip addr add fd00:e2e::7/64 dev e2e-dev nodad",
            "ip link set e2e-dev up",
        ] {
            Cmd::line(line).run().success();
        }
        let bundle = bundle(it, &namespace, "renamed");
        let id = it.scene.id("devices");
        let outcome = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert_eq!(outcome.stdout, "1789\n");
        Cmd::line("ip link show e2e-dev").run().code(1);
        let link = namespace.line("ip link show renamed").stdout;
        assert!(link.contains("02:11:22:33:44:55") && link.contains(",UP"), "{link}");
        let addresses = namespace.line("ip -o addr show dev renamed").stdout;
        assert!(addresses.contains("10.198.0.7/24"), "{addresses}");
        assert!(addresses.contains("fd00:e2e::7/64"), "{addresses}");
        // Of one link only, or about to end: they mean nothing elsewhere.
        assert!(!addresses.contains("10.197.0.8"), "{addresses}");
        assert!(!addresses.contains("10.198.0.9"), "{addresses}");
    });
}

#[test]
fn a_device_moves_into_a_namespace_of_the_containers_own() {
    under_ours(|it| {
        let _cable = Cable::new();
        let bundle = Bundle::new(it.scene, &["cat", "/sys/class/net/e2e-dev/mtu"])
            .edit("/linux/netDevices", json!({ DEVICE: {} }));
        let id = it.scene.id("own");
        let outcome = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert_eq!(outcome.stdout, "1789\n");
    });
}

#[test]
fn a_device_that_cannot_move_stays_as_it_is() {
    under_ours(|it| {
        let (_cable, namespace) = (Cable::new(), Netns::new("devices"));
        Cmd::line("ip addr add 10.198.0.7/24 dev e2e-dev").run().success();
        Cmd::line("ip link set e2e-dev up").run().success();
        // There is one of this name in every namespace.
        let bundle = bundle(it, &namespace, "lo");
        let id = it.scene.id("devices");
        let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run();
        run.code(1).stderr_has("move netDevice e2e-dev");
        let link = Cmd::line("ip -o addr show dev e2e-dev").run().success().stdout;
        assert!(link.contains("10.198.0.7/24"), "{link}");
        let link = Cmd::line("ip link show e2e-dev").run().success().stdout;
        assert!(link.contains(",UP"), "{link}");
    });
}

#[test]
fn a_device_that_is_not_there_leaves_no_container() {
    under_ours(|it| {
        let namespace = Netns::new("devices");
        let bundle = bundle(it, &namespace, "renamed");
        let id = it.scene.id("devices");
        let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run();
        run.code(1).stderr_has("link not found for interface e2e-dev");
        it.run(["state", &id]).code(1);
    });
}
