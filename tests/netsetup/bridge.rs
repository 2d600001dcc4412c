//! Bridges, and what a container gets on one.

use super::{Cmd, Netns, address_of, netsetup, scene};

#[test]
fn a_bridge_is_made_listed_and_deleted() {
    scene(|scene| {
        let made = netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        assert_eq!(made.word(), "e2e0");
        netsetup(scene, ["bridge", "list"]).stdout_has("e2e0").stdout_has("10.198.0.0/24");
        assert_eq!(netsetup(scene, ["bridge", "list", "--quiet"]).word(), "e2e0");
        let listed = netsetup(scene, ["bridge", "list", "--format", "json"]);
        assert!(listed.stdout.contains("10.198.0.0/24"), "{}", listed.stdout);
        Cmd::line("ip -o addr show dev e2e0").run().success().stdout_has("10.198.0.1/24");
        netsetup(scene, ["bridge", "delete", "e2e0"]);
        assert_ne!(Cmd::line("ip link show dev e2e0").run().code, 0);
    });
}

#[test]
fn a_container_gets_an_address_a_route_and_the_world() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        netsetup(scene, ["attach", &container.path(), "--network", "e2e0"]);
        container.line("ip -o addr show dev eth0").stdout_has("10.198.0.2/24");
        container.line("ip route").stdout_has("default via 10.198.0.1");
        container.line("ping -c 1 -W 5 10.198.0.1");
        // The remote host knows no way to 10.198.0.0/24: an answer means the source was masqueraded.
        remote.line("ip route del default");
        container.line("ping -c 1 -W 5 10.199.0.2");

        // A second attach changes nothing.
        netsetup(scene, ["attach", &container.path(), "--network", "e2e0"]);
        assert_eq!(address_of(scene, &container.path()), "10.198.0.2");
        netsetup(scene, ["detach", &container.path()]);
        netsetup(scene, ["detach", &container.path()]);
        let gone = Cmd::line("ip link show dev eth0").in_netns(&container.name).run();
        assert_ne!(gone.code, 0, "the interface is left: {}", gone.stdout);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn containers_on_one_bridge_reach_each_other_and_get_addresses_of_their_own() {
    scene(|scene| {
        let (one, two) = (Netns::new("one"), Netns::new("two"));
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/29"]);
        for container in [&one, &two] {
            netsetup(scene, ["attach", &container.path(), "--network", "e2e0"]);
        }
        let address = address_of(scene, &two.path());
        assert_ne!(address_of(scene, &one.path()), address);
        one.line(&format!("ping -c 1 -W 5 {address}"));
        netsetup(scene, ["detach", &one.path()]);
        netsetup(scene, ["detach", &two.path()]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn without_a_bridge_the_default_one_is_made_and_goes_with_its_last_container() {
    scene(|scene| {
        let container = Netns::new("container");
        netsetup(scene, ["attach", &container.path()]);
        container.line("ip route").stdout_has("default via");
        netsetup(scene, ["status"]);
        netsetup(scene, ["detach", &container.path()]);
    });
}
