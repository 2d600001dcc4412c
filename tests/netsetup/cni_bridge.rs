//! What a configuration may ask of the plugin `bridge` for one port of it, and for its routes.

use serde_json::{Value, json};

use super::cni::{container, host_local};
use super::{Cmd, Netns, Scene, scene};
use crate::harness::cni::{CniContainer, CniNetwork, plugin_directory};
use crate::harness::requires;

/// A configuration of the plugin `bridge`.
fn bridge(scene: &Scene, more: &Value) -> Value {
    let mut bridge = json!({"type": "bridge", "bridge": "e2e0", "isGateway": true,
        "ipam": host_local(scene, "10.198.0.0/24")});
    for (key, value) in more.as_object().into_iter().flatten() {
        bridge[key] = value.clone();
    }
    bridge
}

/// A network of that plugin alone.
fn network(scene: &Scene, more: &Value) -> CniNetwork {
    let directory = scene.path("plugins");
    if !directory.exists() {
        plugin_directory(&directory);
    }
    CniNetwork::new(directory, "1.1.0", "pods", &[bridge(scene, more)])
}

fn reaches_host(pod: &Netns) -> bool {
    Cmd::line("ping -c 1 -W 1 10.198.0.1").in_netns(&pod.name).run().code == 0
}

#[test]
fn a_pod_may_be_kept_to_its_own_hardware_address() {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        let pod = container(&path, json!({}));
        for (kept, reached) in [(true, false), (false, true)] {
            let network = network(scene, &json!({"macspoofchk": kept}));
            let result = network.add(&pod);
            assert!(reaches_host(&netns));
            network.check(&pod, &result);
            netns.line("ip link set eth0 address 02:00:00:00:00:99");
            assert_eq!(reaches_host(&netns), reached, "macspoofchk {kept}");
            network.del(&pod, Some(&result));
        }
    });
}

#[test]
fn a_pods_link_may_stay_off_without_addresses() {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        let pod = container(&path, json!({}));
        let network = network(scene, &json!({"disableContainerInterface": true, "ipam": {}}));
        let result = network.add(&pod);
        assert_eq!(result["ips"], json!([]));
        let shown = netns.line("ip -j addr show dev eth0").json();
        assert_eq!(shown[0]["operstate"], "DOWN");
        assert_eq!(shown[0]["addr_info"], json!([]));
        network.check(&pod, &result);
        network.del(&pod, Some(&result));
    });
}

#[test]
fn a_pod_may_ask_neighbours_for_its_ipv6_address() {
    scene(|scene| {
        let (one, two) = (Netns::new("one"), Netns::new("two"));
        let (one_path, two_path) = (one.path(), two.path());
        let more = |address: &str| {
            json!({"enabledad": true,
                "ipam": {"type": "static", "addresses": [{"address": address}]}})
        };
        let network_of = |address: &str| network(scene, &more(address));
        let first = CniContainer { id: "one", ..container(&one_path, json!({})) };
        let second = CniContainer { id: "two", ..container(&two_path, json!({})) };
        let taken = network_of("fd98::7/64");
        let result = taken.add(&first);
        one.line("ip -6 addr show dev eth0").stdout_has("fd98::7");
        let refused = taken.call("ADD", &bridge(scene, &more("fd98::7/64")), &second, None);
        let message = refused.json()["msg"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("a neighbour has the address fd98::7"), "{refused:?}");
        assert_ne!(Cmd::line("ip link show dev eth0").in_netns(&two.name).run().code, 0);
        let free = network_of("fd98::8/64");
        let other = free.add(&second);
        two.line("ping -6 -c 1 -W 2 fd98::7");
        free.del(&second, Some(&other));
        taken.del(&first, Some(&result));
    });
}

#[test]
fn a_host_may_hear_whatever_is_sent_on_a_bridge() {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        let pod = container(&path, json!({}));
        let network = network(scene, &json!({"promiscMode": true}));
        let result = network.add(&pod);
        Cmd::line("ip link show dev e2e0").run().success().stdout_has("PROMISC");
        let veth = result["interfaces"][1]["name"].as_str().unwrap();
        Cmd::line("bridge -d link show dev").arg(veth).run().success().stdout_has("hairpin off");
        assert!(reaches_host(&netns));
        network.del(&pod, Some(&result));
    });
}

#[test]
fn a_pods_port_has_part_in_a_trunk_of_vlans() {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        let pod = container(&path, json!({}));
        let trunk = json!([{"id": 42}, {"minID": 100, "maxID": 102}]);
        for (more, vlans) in [
            (json!({"vlanTrunk": trunk}), "1 42 100-102"),
            (json!({"vlanTrunk": trunk, "preserveDefaultVlan": false}), "42 100-102"),
            (json!({"vlanTrunk": trunk, "vlan": 7, "preserveDefaultVlan": false}), "7 42 100-102"),
        ] {
            let network = network(scene, &more);
            if !requires::vlans_on_bridges() {
                let refused = network.call("ADD", &bridge(scene, &more), &pod, None);
                assert!(refused.stdout.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{refused:?}");
                return;
            }
            let result = network.add(&pod);
            let veth = result["interfaces"][1]["name"].as_str().unwrap();
            let shown = Cmd::line("bridge -compressvlans -j vlan show dev")
                .arg(veth)
                .run()
                .success()
                .json();
            let shown = shown[0]["vlans"].as_array().unwrap().iter().map(|it| {
                let last = it["vlanEnd"].as_u64().map(|last| format!("-{last}"));
                format!("{}{}", it["vlan"], last.unwrap_or_default())
            });
            assert_eq!(shown.collect::<Vec<_>>().join(" "), vlans);
            network.del(&pod, Some(&result));
        }
    });
}

#[test]
fn a_pods_routes_have_all_that_cni_says_of_them() {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        let pod = container(&path, json!({}));
        let routes = json!([{"dst": "0.0.0.0/0", "priority": 7, "mtu": 1300},
            {"dst": "10.9.0.0/16", "gw": "10.198.0.1", "advmss": 1200, "table": 4242},
            {"dst": "10.8.0.0/16", "scope": 253}]);
        let mut ipam = host_local(scene, "10.198.0.0/24");
        ipam["routes"] = routes.clone();
        let network = network(scene, &json!({"ipam": ipam}));
        let result = network.add(&pod);
        let shown = result["routes"].as_array().unwrap().iter().take(3).cloned();
        assert_eq!(shown.collect::<Value>(), routes);
        netns.line("ip route show default").stdout_has("metric 7").stdout_has("mtu 1300");
        let other = netns.line("ip route show table 4242");
        other.stdout_has("10.9.0.0/16 via 10.198.0.1").stdout_has("advmss 1200");
        netns.line("ip route show 10.8.0.0/16").stdout_has("scope link");
        network.del(&pod, Some(&result));
    });
}
