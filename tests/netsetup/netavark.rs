//! Called `netavark`, `netsetup` takes podman's documents: those of podman 4.3, and those of today.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::publish::Server;
use super::{Cmd, Netns, Outcome, Scene, scene};
use crate::harness::command::binary;
use crate::harness::requires;

const ID: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";

/// Our binary by that name.
fn program(scene: &Scene) -> PathBuf {
    let path = scene.path("netavark");
    if !path.exists() {
        symlink(binary("netsetup"), &path).expect("link netavark");
    }
    path
}

fn call(scene: &Scene, words: &[&str], document: &Value) -> Outcome {
    let config = scene.path("networks");
    let call = Cmd::new(program(scene)).arg("--config").arg(config).arg("--rootless=false");
    call.args(words).stdin(document.to_string()).run()
}

fn network(name: &str, bridge: &str, subnets: &Value) -> Value {
    json!({"name": name, "id": ID, "driver": "bridge", "network_interface": bridge,
        "subnets": subnets, "ipv6_enabled": false, "internal": false, "dns_enabled": false,
        "ipam_options": {"driver": "host-local"}})
}

fn one_network() -> Value {
    let subnets = json!([{"subnet": "10.198.0.0/24", "gateway": "10.198.0.1"},
        {"subnet": "fd98::/64", "gateway": "fd98::1"}]);
    json!({"container_id": "c1", "container_name": "web",
        "port_mappings": [{"host_ip": "", "container_port": 80, "host_port": 18080, "range": 1,
            "protocol": "tcp"}],
        "networks": {"podman": {"interface_name": "eth0", "static_mac": "02:00:00:00:00:07",
            "static_ips": ["10.198.0.7", "fd98::7"]}},
        "network_info": {"podman": network("podman", "e2e0", &subnets)}})
}

#[test]
fn podmans_setup_connects_a_container_and_teardown_leaves_nothing() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        let path = container.path();
        let document = one_network();
        let status = call(scene, &["setup", &path], &document).success().json();
        let interface = &status["podman"]["interfaces"]["eth0"];
        assert_eq!(interface["mac_address"], "02:00:00:00:00:07");
        assert_eq!(interface["subnets"][0]["ipnet"], "10.198.0.7/24");
        assert_eq!(interface["subnets"][1]["gateway"], "fd98::1");
        container.line("ip route").stdout_has("default via 10.198.0.1").stdout_has("metric 100");
        let server = Server::start(&container, "serve", "80");
        for url in ["http://10.199.0.1:18080/", "http://[fd99::1]:18080/"] {
            let fetch = Cmd::line("curl -sS --max-time 5").arg(url).in_netns(&remote.name);
            fetch.run().success().stdout_has("page for");
        }
        Cmd::line("nft flush ruleset").run().success();
        call(scene, &["firewall-reload"], &Value::Null).success();
        let fetch = Cmd::line("curl -sS --max-time 5 http://127.0.0.1:18080/");
        fetch.run().success().stdout_has("page for");
        drop(server);
        call(scene, &["teardown", &path], &document).success();
        call(scene, &["teardown", "/run/netns/e2e-gone"], &document).success();
    });
}

#[test]
fn networks_in_a_list_are_connected_in_its_order() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let subnets = |number: u8| {
            json!([{"subnet": format!("10.198.{number}.0/24"),
                "gateway": format!("10.198.{number}.1")}])
        };
        let mut second = network("second", "e2e1", &subnets(1));
        second["options"] = json!({"mtu": "1400", "metric": "200", "isolate": "false"});
        second["routes"] = json!([{"destination": "10.77.0.0/16", "gateway": "10.198.1.9"},
            {"destination": "10.78.0.0/16", "route_type": "blackhole"}]);
        let document = json!({"container_id": "c1", "container_name": "web",
            "networks": [
                {"name": "second", "interface_name": "eth1", "static_ips": ["10.198.1.7"],
                    "options": {"host_interface_name": "e2e-veth"}},
                {"name": "first", "interface_name": "eth0", "static_ips": ["10.198.0.7"]}],
            "port_mappings": [{"host_ip": "127.0.0.1", "container_port": 80, "host_port": 18080,
                "range": 2, "protocol": "tcp,udp"}],
            "network_info": {"first": network("first", "e2e0", &subnets(0)), "second": second}});
        call(scene, &["setup", &path], &document).success();
        container.line("ip -o link show dev eth1").stdout_has("2: eth1").stdout_has("mtu 1400");
        container.line("ip -o link show dev eth0").stdout_has("3: eth0");
        let routes = container.line("ip route").stdout;
        for route in
            ["default via 10.198.1.1 dev eth1 proto static metric 200", "blackhole 10.78.0.0/16"]
        {
            assert!(routes.contains(route), "{route} in {routes}");
        }
        Cmd::line("ip link show dev e2e-veth").run().success().stdout_has("master e2e1");
        let ports = Cmd::line("nft list map inet netsetup ports_at").run().success().stdout;
        assert!(ports.contains("udp . 18081") && ports.contains("tcp . 18080"), "{ports}");
        call(scene, &["teardown", &path], &document).success();
        assert!(!container.line("ip route").stdout.contains("blackhole"));
    });
}

#[test]
fn what_podman_asks_for_in_vain_is_answered_in_its_form() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let refuse = |change: fn(&mut Value), text: &str| {
            let mut document = one_network();
            change(&mut document);
            let refused = call(scene, &["setup", &path], &document);
            assert_eq!(refused.code, 1, "{refused:?}");
            let message = refused.json()["error"].as_str().unwrap().to_owned();
            assert!(message.contains(text), "{text:?} in {message:?}");
        };
        refuse(|it| it["port_mappings"][0]["host_ip"] = json!("x"), "invalid host ip \"x\"");
        refuse(
            |it| it["network_info"]["podman"]["ipam_options"] = json!({"driver": "other"}),
            "unsupported ipam driver other",
        );
        refuse(
            |it| it["network_info"]["podman"]["options"] = json!({"mode": "unmanaged"}),
            "the bridge must already exist",
        );
        refuse(|it| it["network_info"]["podman"]["driver"] = json!("x"), "unknown network driver");
        refuse(
            |it| it["network_info"]["podman"]["options"] = json!({"outbound_addr4": "fd00::1"}),
            "unable to parse \"outbound_addr4\": invalid IPv4 address syntax",
        );
        refuse(|it| it["network_info"] = json!({}), "network info for network podman not found");
        let gone = call(scene, &["setup", "/run/netns/e2e-gone"], &one_network());
        assert!(gone.stdout.contains("invalid namespace path"), "{gone:?}");
        // A failure of the second network takes the first one back.
        let mut document = one_network();
        document["networks"]["zzz"] = json!({"interface_name": "eth0", "static_ips": []});
        document["network_info"]["zzz"] = network("zzz", "e2e1", &json!([]));
        assert_eq!(call(scene, &["setup", &path], &document).code, 1);
    });
}

#[test]
fn names_go_into_the_files_of_podmans_name_server() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        // A name server that does nothing but start.
        let setup = ["--aardvark-binary", "/bin/true", "setup", &path];
        let mut document = one_network();
        document["network_info"]["podman"]["dns_enabled"] = json!(true);
        document["networks"]["podman"]["aliases"] = json!(["www", "not one"]);
        let status = call(scene, &setup, &document).success().json();
        assert_eq!(status["podman"]["dns_server_ips"], json!(["10.198.0.1", "fd98::1"]));
        let file = scene.path("networks/aardvark-dns/podman");
        let read = || std::fs::read_to_string(&file).unwrap();
        assert_eq!(read(), "10.198.0.1,fd98::1\nc1 10.198.0.7 fd98::7 web,www\n");
        call(scene, &["update", "podman", "--network-dns-servers", "9.9.9.9"], &Value::Null)
            .success();
        assert!(read().starts_with("10.198.0.1,fd98::1 9.9.9.9\n"), "{}", read());
        call(scene, &["teardown", &path], &document).success();
        assert!(!file.exists());
        // What can not work leaves nothing either.
        for (binary, servers, text) in [
            ("/bin/false", json!([]), "aardvark-dns exited unexpectedly"),
            ("/bin/true", json!(["10.198.0.1"]), "forward queries to itself"),
        ] {
            document["network_info"]["podman"]["network_dns_servers"] = servers;
            let setup = ["--aardvark-binary", binary, "setup", &path];
            let refused = call(scene, &setup, &document);
            assert!(refused.code == 1 && refused.stdout.contains(text), "{refused:?}");
            assert!(!file.exists());
        }
    });
}

#[test]
fn definitions_of_networks_are_completed() {
    scene(|scene| {
        let define = |more: Value| {
            let mut network = json!({"name": "net1", "id": ID, "driver": "bridge"});
            for (key, value) in more.as_object().unwrap() {
                network[key] = value.clone();
            }
            let options = json!({"subnet_pools": [{"base": "10.89.0.0/16", "size": 24}],
                "default_interface_name": "podman", "check_used_subnets": true});
            let used = json!({"interfaces": ["podman1"], "names": {"old": "x"},
                "subnets": ["10.89.0.0/24"]});
            let document = json!({"network": network, "used": used, "options": options});
            call(scene, &["create"], &document)
        };
        let plain = define(json!({"ipv6_enabled": true})).success().json();
        assert_eq!(plain["network_interface"], "podman2");
        assert_eq!(plain["subnets"][0], json!({"subnet": "10.89.1.0/24", "gateway": "10.89.1.1"}));
        assert!(plain["subnets"][1]["subnet"].as_str().unwrap().starts_with("fd"));
        assert_eq!(plain["ipam_options"]["driver"], "host-local");
        for (more, text) in [
            (json!({"name": "old"}), "network already exists old"),
            (json!({"subnets": [{"subnet": "10.89.0.128/25"}]}), "is already used"),
            (json!({"options": {"mtu": "x"}}), "unable to parse \"mtu\": invalid digit"),
            (json!({"driver": "ipvlan"}), "ipam driver dhcp is not supported with ipvlan"),
            (
                json!({"routes": [{"destination": "10.0.0.0/24"}]}),
                "route 10.0.0.0/24 requires a gateway for type unicast",
            ),
        ] {
            let refused = define(more.clone());
            assert!(refused.code == 1 && refused.stdout.contains("error"), "{more}");
            let message = refused.json()["error"].as_str().unwrap().to_owned();
            assert!(message.contains(text), "{text:?} in {message:?}");
        }
        let version = call(scene, &["version"], &Value::Null).success().json();
        assert!(version["version"].as_str().unwrap().starts_with("2."), "{version}");
    });
}

#[test]
fn a_macvlan_is_a_link_on_a_link_of_the_host() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        let path = container.path();
        let mut lan = network(
            "lan",
            "e2e-here",
            &json!([{"subnet": "10.199.0.0/24",
            "gateway": "10.199.0.2"}]),
        );
        lan["driver"] = json!("macvlan");
        let document = json!({"container_id": "c1", "container_name": "web",
            "networks": {"lan": {"interface_name": "eth0", "static_ips": ["10.199.0.77"]}},
            "network_info": {"lan": lan}});
        let status = call(scene, &["setup", &path], &document).success().json();
        let mac = status["lan"]["interfaces"]["eth0"]["mac_address"].as_str().unwrap();
        container
            .line("ip -d link show dev eth0")
            .stdout_has("macvlan mode bridge")
            .stdout_has(mac);
        let ping = Cmd::line("ping -c 1 -W 2 10.199.0.77").in_netns(&remote.name);
        ping.run().success();
        call(scene, &["teardown", &path], &document).success();
        assert_ne!(Cmd::line("ip link show dev eth0").in_netns(&container.name).run().code, 0);
    });
}

#[test]
fn packets_leave_with_the_address_that_the_network_names() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        let path = container.path();
        let mut document = one_network();
        document["network_info"]["podman"]["options"] =
            json!({"outbound_addr4": "10.199.0.9", "outbound_addr6": "fd99::9"});
        // Addresses of the host's, besides the one that packets would leave with.
        for line in
            ["ip addr add 10.199.0.9/24 dev e2e-here", "ip addr add fd99::9/64 dev e2e-here nodad"]
        {
            Cmd::line(line).run().success();
        }
        call(scene, &["setup", &path], &document).success();
        let server = Server::start(&remote, "serve", "80");
        for (url, source) in
            [("http://10.199.0.2/", "10.199.0.9"), ("http://[fd99::2]/", "fd99::9")]
        {
            let fetch = Cmd::line("curl -sS --max-time 5").arg(url).in_netns(&container.name);
            assert_eq!(fetch.run().success().stdout, format!("page for {source}\n"));
        }
        drop(server);
        call(scene, &["teardown", &path], &document).success();
    });
}

#[test]
fn a_port_is_in_the_vlan_that_its_network_names() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let mut document = one_network();
        document["network_info"]["podman"]["options"] = json!({"vlan": "20"});
        if !requires::vlans_on_bridges() {
            let refused = call(scene, &["setup", &path], &document);
            assert!(refused.stdout.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{refused:?}");
            return;
        }
        call(scene, &["setup", &path], &document).success();
        let shown = Cmd::line("bridge -j vlan show dev veth0").run().success().json();
        assert_eq!(shown[0]["vlans"][1]["vlan"], 20);
        assert_eq!(shown[0]["vlans"][1]["flags"], json!(["PVID", "Egress Untagged"]));
        container.line("ping -c 1 -W 2 10.198.0.1");
        call(scene, &["teardown", &path], &document).success();
    });
}

#[test]
fn a_bridge_is_in_the_routing_domain_that_its_network_names() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let mut document = one_network();
        document["network_info"]["podman"]["options"] = json!({"vrf": "e2e-vrf"});
        let refused = call(scene, &["setup", &path], &document);
        assert!(refused.stdout.contains("get vrf to set up bridge interface"), "{refused:?}");
        if !requires::link_kind("vrf table 78", None) {
            return;
        }
        Cmd::line("ip link add e2e-vrf type vrf table 77").run().success();
        call(scene, &["setup", &path], &document).success();
        Cmd::line("ip -d link show dev e2e0").run().stdout_has("master e2e-vrf");
        call(scene, &["teardown", &path], &document).success();
        Cmd::line("ip link del e2e-vrf").run().success();
    });
}
