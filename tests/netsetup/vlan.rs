//! VLANs on bridges.

use super::{Cmd, Netns, netsetup, scene};
use crate::harness::{eventually, requires};

const CREATE: [&str; 7] = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24", "--vlan", "10"];

fn reaches(from: &Netns, address: &str) -> bool {
    Cmd::line("ping -c 1 -W 1").arg(address).in_netns(&from.name).run().code == 0
}

#[test]
fn a_bridge_in_a_vlan_has_its_containers_and_its_gateway_in_it() {
    scene(|scene| {
        if !requires::vlans_on_bridges() {
            scene.netsetup().args(CREATE).run().refused(&["CONFIG_BRIDGE_VLAN_FILTERING", "e2e0"]);
            assert_eq!(netsetup(scene, ["bridge", "list", "-q"]).stdout, "");
            return;
        }
        let (one, two, other) = (Netns::new("one"), Netns::new("two"), Netns::new("other"));
        netsetup(scene, CREATE);
        assert_eq!(netsetup(scene, ["bridge", "inspect", "e2e0"]).json()[0]["vlan"]["id"], 10);
        netsetup(scene, ["attach", &one.path(), "--network", "e2e0", "-p", "18080:80"]);
        netsetup(scene, ["attach", &two.path(), "--network", "e2e0"]);
        // A machine on the same bridge in another VLAN.
        let name = &other.name;
        let cable = format!("ip link add e2e-other type veth peer name eth0 netns {name}");
        for line in [
            &cable,
            "ip link set e2e-other master e2e0 up",
            "bridge vlan del dev e2e-other vid 10",
            "bridge vlan add dev e2e-other vid 20 pvid untagged",
        ] {
            Cmd::line(line).run().success();
        }
        other.line("ip addr add 10.198.0.99/24 dev eth0");
        other.line("ip link set eth0 up");
        for (from, address, expected) in [
            (&one, "10.198.0.1", true),
            (&one, "10.198.0.3", true),
            (&two, "10.198.0.2", true),
            (&other, "10.198.0.1", false),
            (&other, "10.198.0.2", false),
            (&one, "10.198.0.99", false),
        ] {
            assert_eq!(reaches(from, address), expected, "{} to {address}", from.name);
        }
        // It is the VLAN that keeps them apart.
        Cmd::line("bridge vlan add dev e2e-other vid 10 pvid untagged").run().success();
        assert!(eventually(|| reaches(&other, "10.198.0.2")));
        Cmd::line("ip link del e2e-other").run().success();
        // After a reboot it is in the VLAN again.
        netsetup(scene, ["detach", &one.path()]);
        netsetup(scene, ["detach", &two.path()]);
        Cmd::line("ip link del e2e0").run().success();
        netsetup(scene, ["restore"]);
        netsetup(scene, ["attach", &one.path(), "--network", "e2e0"]);
        assert!(reaches(&one, "10.198.0.1"));
        netsetup(scene, ["detach", &one.path()]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
        let bad = ["bridge", "create", "e2e0", "--vlan", "4095"];
        scene.netsetup().args(bad).run().refused(&["4095", "4094"]);
    });
}
