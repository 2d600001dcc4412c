//! `netsetup` as a CNI plugin: one that does everything, or a chain by the reference plugins' names.

use serde_json::{Value, json};

use super::publish::Server;
use super::{Cmd, Netns, Scene, scene};
use crate::harness::cni::{CniContainer, CniNetwork, plugin_directory};
use crate::harness::requires;

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

pub(super) fn container<'a>(netns: &'a str, capabilities: Value) -> CniContainer<'a> {
    CniContainer { id: "pod-1", netns, interface: "eth0", capabilities }
}

pub(super) fn host_local(scene: &Scene, subnet: &str) -> Value {
    let data = scene.path("leases");
    json!({"type": "host-local", "dataDir": data, "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": subnet}], [{"subnet": "fd98::/64"}]]})
}

fn chain(scene: &Scene, version: &str) -> CniNetwork {
    let plugins = [
        json!({"type": "bridge", "bridge": "e2e0", "isGateway": true, "ipMasq": true,
            "ipam": host_local(scene, "10.198.0.0/24")}),
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "firewall"}),
        json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}}),
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
        json!({"type": "loopback"}),
    ];
    // Both joined CNI later than the first version that we know.
    let late = |plugin: &Value| version == "0.3.0" && plugin["type"] == "firewall";
    let plugins: Vec<Value> = plugins.into_iter().filter(|plugin| !late(plugin)).collect();
    CniNetwork::new(plugin_directory(&scene.path(version)), version, "pods", &plugins)
}

fn wishes() -> Value {
    json!({"portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 80_000_000, "ingressBurst": 8_000_000,
            "egressRate": 40_000_000, "egressBurst": 8_000_000}})
}

#[test]
fn a_chain_of_plugins_does_what_cnitool_asks_in_every_version() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let netns = Netns::new("pod");
        let path = netns.path();
        let pod = container(&path, wishes());
        for version in VERSIONS {
            let network = chain(scene, version);
            let result = network.add(&pod);
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["interfaces"][0]["name"], "e2e0");
            assert_eq!(result["interfaces"][2]["sandbox"], path);
            assert_eq!(result["ips"][0]["interface"], 2);
            let has_version = result["ips"][0].get("version").is_some();
            assert_eq!(has_version, version.starts_with("0."), "{result}");
            if !version.starts_with("0.3") {
                network.check(&pod, &result);
            }
            let address = result["ips"][0]["address"].as_str().unwrap();
            netns.line("ip -o addr show dev eth0").stdout_has(address).stdout_has("fd98::");
            netns.line("ip link show dev eth0").stdout_has("mtu 1400").stdout_has("qdisc tbf");
            netns.line("ip route").stdout_has("default via 10.198.0.1");
            let veth = result["interfaces"][1]["name"].as_str().unwrap();
            Cmd::line("tc qdisc show dev").arg(veth).run().stdout_has("rate 80Mbit");
            let server = Server::start(&netns, "serve", "80");
            for (url, from) in [("10.199.0.1", Some(&remote)), ("127.0.0.1", None)] {
                let fetch = Cmd::line(&format!("curl -sS --max-time 5 http://{url}:18080/"));
                let fetch = from.map_or(fetch.run(), |from| {
                    Cmd::line(&format!("curl -sS --max-time 5 http://{url}:18080/"))
                        .in_netns(&from.name)
                        .run()
                });
                fetch.success().stdout_has("page for");
            }
            // A pod is reached by its own address too: other nodes route to it.
            let direct = address.split('/').next().unwrap();
            let ping = Cmd::line("ping -c 1 -W 2").arg(direct).in_netns(&remote.name);
            ping.run().success();
            drop(server);
            network.del(&pod, Some(&result));
            network.del(&pod, None);
            let nowhere = container("/run/netns/e2e-gone", json!({}));
            network.del(&nowhere, None);
        }
    });
}

#[test]
fn one_plugin_does_everything_in_one_call() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let netns = Netns::new("pod");
        let path = netns.path();
        let mut capabilities = wishes();
        capabilities["ips"] = json!(["10.198.0.77/24"]);
        capabilities["mac"] = json!("02:00:00:00:00:77");
        let pod = container(&path, capabilities);
        let declared = json!({"portMappings": true, "bandwidth": true, "ips": true, "mac": true});
        let plugin = json!({"type": "netsetup", "bridge": "e2e0", "capabilities": declared,
            "ipam": {"type": "netsetup", "ranges": [[{"subnet": "10.198.0.0/24"}]]}});
        let plugins = [plugin.clone()];
        let directory = plugin_directory(&scene.path("plugins"));
        let network = CniNetwork::new(directory, "1.1.0", "pods", &plugins);
        let result = network.add(&pod);
        assert_eq!(result["ips"][0]["address"], "10.198.0.77/24");
        assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");
        assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:77");
        network.check(&pod, &result);
        let server = Server::start(&netns, "serve", "80");
        let fetch = Cmd::line("curl -sS --max-time 5 http://10.199.0.1:18080/");
        fetch.in_netns(&remote.name).run().success().stdout_has("page for");
        drop(server);
        // Unlike the plugin `bridge` it keeps others out.
        let ping = Cmd::line("ping -c 1 -W 1 10.198.0.77").in_netns(&remote.name);
        assert_ne!(ping.run().code, 0);
        netns.line("ip addr del 10.198.0.77/24 dev eth0");
        let broken = network.call("CHECK", &plugin, &pod, Some(&result));
        assert!(broken.json()["msg"].as_str().unwrap().contains("10.198.0.77"), "{broken:?}");
        network.del(&pod, Some(&result));
    });
}

#[test]
fn what_is_not_valid_is_collected_and_a_full_network_says_so() {
    scene(|scene| {
        let (one, two) = (Netns::new("one"), Netns::new("two"));
        let (one_path, two_path) = (one.path(), two.path());
        let bridge = json!({"type": "bridge", "bridge": "e2e0", "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": scene.path("leases"),
                "subnet": "10.198.0.0/30"}});
        let directory = plugin_directory(&scene.path("plugins"));
        let network = CniNetwork::new(directory, "1.1.0", "pods", std::slice::from_ref(&bridge));
        assert!(network.call_all("STATUS", &json!({})).iter().all(|it| it.code == 0));
        let dead = CniContainer { id: "dead", ..container(&one_path, json!({})) };
        network.add(&dead);
        let full = network.call_all("STATUS", &json!({}));
        assert_eq!(full[0].json()["code"], 50);
        let other = CniContainer { id: "other", ..container(&two_path, json!({})) };
        let refused = network.call("ADD", &bridge, &other, None);
        let message = refused.json()["msg"].as_str().unwrap().to_owned();
        assert!(refused.code != 0 && message.contains("10.198.0.0/30"), "{message}");
        let valid = json!({"cni.dev/valid-attachments": []});
        assert!(network.call_all("GC", &valid).iter().all(|it| it.code == 0));
        assert_ne!(Cmd::line("ip link show dev eth0").in_netns(&one.name).run().code, 0);
        network.add(&other);
        let valid =
            json!({"cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}]});
        assert!(network.call_all("GC", &valid).iter().all(|it| it.code == 0));
        two.line("ip link show dev eth0");
        network.del(&other, None);
    });
}

#[test]
fn ports_of_containers_that_other_plugins_attached_are_published() {
    scene(|scene| {
        let forwarding = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
            .map(|name| (name, Cmd::line("sysctl -n").arg(name).run().success().stdout));
        let remote = Netns::remote_host();
        let netns = Netns::new("pod");
        let path = netns.path();
        let directory = scene.path("plugins");
        std::fs::create_dir(&directory).unwrap();
        for name in ["portmap", "firewall"] {
            let ours = crate::harness::command::binary("netsetup");
            std::os::unix::fs::symlink(ours, directory.join(name)).unwrap();
        }
        // The bridge and its leases are Debian's.
        let plugins = [
            json!({"type": "bridge", "bridge": "e2e0", "isGateway": true, "hairpinMode": true,
                "ipam": host_local(scene, "10.198.0.0/24")}),
            json!({"type": "portmap", "capabilities": {"portMappings": true}}),
            json!({"type": "firewall"}),
        ];
        let network = CniNetwork::new(directory, "1.0.0", "pods", &plugins);
        let pod = container(&path, wishes());
        let result = network.add(&pod);
        let server = Server::start(&netns, "serve", "80");
        let line = "curl -sS --max-time 5 http://10.199.0.1:18080/";
        for fetch in [Cmd::line(line), Cmd::line(line).in_netns(&remote.name)] {
            fetch.run().success().stdout_has("page for");
        }
        Cmd::line("curl -sS --max-time 5 http://127.0.0.1:18080/").run().success();
        // Its own published port, by the way of the host.
        Cmd::line(line).in_netns(&netns.name).run().success().stdout_has("page for");
        drop(server);
        network.check(&pod, &result);
        network.del(&pod, Some(&result));
        Cmd::line("ip link del e2e0").run().success();
        // Debian's bridge switches forwarding on for good.
        for (name, value) in forwarding {
            Cmd::line(&format!("sysctl -qw {name}={}", value.trim())).run().success();
        }
    });
}

#[test]
fn what_tuning_changed_is_given_back() {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        netns.line("ip link add eth0 mtu 1500 txqueuelen 500 type veth peer name eth1");
        netns.line("ip link set eth0 address 02:00:00:00:00:01");
        let tuning = json!({"type": "tuning", "mtu": 1400, "mac": "02:00:00:00:00:99",
            "promisc": true, "allmulti": true, "txQLen": 900,
            "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}});
        let directory = plugin_directory(&scene.path("plugins"));
        let network = CniNetwork::new(directory, "1.1.0", "pods", std::slice::from_ref(&tuning));
        let pod = container(&path, json!({}));
        let previous = json!({"cniVersion": "1.1.0", "interfaces": [], "ips": []});
        let look = || {
            let link = netns.line("ip -o link show dev eth0").stdout;
            let notify = netns.line("sysctl -n net.ipv4.conf.eth0.arp_notify").stdout;
            format!("{} {notify}", link.split_once(": ").unwrap().1)
        };
        let before = look();
        network.call("ADD", &tuning, &pod, Some(&previous)).success();
        let tuned = look();
        for part in ["mtu 1400", "PROMISC", "ALLMULTI", "qlen 900", "02:00:00:00:00:99"] {
            assert!(tuned.contains(part), "{part} in {tuned}");
        }
        network.del(&pod, None);
        assert_eq!(look(), before);
        network.del(&pod, None);
        // What became of a pod without a DEL is no business of the next command's.
        network.call("ADD", &tuning, &pod, Some(&previous)).success();
        let valid = json!({"cni.dev/valid-attachments": []});
        assert!(network.call_all("GC", &valid).iter().all(|it| it.code == 0));
    });
}

#[test]
fn a_pods_port_is_in_the_vlan_of_its_network() {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        let directory = plugin_directory(&scene.path("plugins"));
        let pod = container(&path, json!({}));
        for (keeps, vlans) in [(true, "1 10"), (false, "10")] {
            let bridge = json!({"type": "bridge", "bridge": "e2e0", "isGateway": true, "vlan": 10,
                "preserveDefaultVlan": keeps, "ipam": host_local(scene, "10.198.0.0/24")});
            let network =
                CniNetwork::new(directory.clone(), "1.0.0", "pods", std::slice::from_ref(&bridge));
            if !requires::vlans_on_bridges() {
                let refused = network.call("ADD", &bridge, &pod, None);
                assert!(refused.stdout.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{refused:?}");
                return;
            }
            let result = network.add(&pod);
            let veth = result["interfaces"][1]["name"].as_str().unwrap();
            let shown = Cmd::line("bridge -j vlan show dev").arg(veth).run().success().json();
            let shown = shown[0]["vlans"].as_array().unwrap().iter();
            let shown: Vec<String> = shown.map(|it| it["vlan"].to_string()).collect();
            assert_eq!(shown.join(" "), vlans);
            netns.line("ping -c 1 -W 2 10.198.0.1");
            network.check(&pod, &result);
            network.del(&pod, Some(&result));
        }
    });
}

#[test]
fn calls_that_make_no_sense_are_answered_with_the_codes_of_cni() {
    scene(|scene| {
        let directory = plugin_directory(&scene.path("plugins"));
        let call = |name: &str, verb: &str, config: &str| {
            let call = Cmd::new(directory.join(name)).env("CNI_COMMAND", verb);
            call.env("CNI_CONTAINERID", "pod-1")
                .env("CNI_NETNS", "/run/netns/e2e-none")
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", &directory)
                .stdin(config)
                .run()
        };
        let config = |version: &str, more: &str| {
            format!(r#"{{"cniVersion":"{version}","name":"pods","type":"bridge"{more}}}"#)
        };
        let off = r#","disableContainerInterface":true,"ipam":{"type":"host-local","subnet":"10.198.0.0/24"}"#;
        for (name, verb, config, code) in [
            ("bridge", "ADD", "{".to_owned(), 6),
            ("bridge", "ADD", config("9.0.0", ""), 1),
            ("bridge", "GC", config("1.0.0", ""), 1),
            ("bridge", "ADD", config("1.0.0", r#","promiscMode":true,"hairpinMode":true"#), 7),
            ("bridge", "ADD", config("1.0.0", r#","vlanTrunk":[{"minID":9}]"#), 7),
            ("bridge", "ADD", config("1.0.0", r#","vlanTrunk":[{"id":4095}]"#), 7),
            ("bridge", "ADD", config("1.0.0", off), 7),
            ("bridge", "ADD", config("1.0.0", r#","vlan":4095"#), 7),
            ("bridge", "ADD", config("1.0.0", r#","ipam":{"type":"../../sh"}"#), 8),
            ("bridge", "JUMP", config("1.0.0", ""), 4),
            ("bridge", "ADD", config("1.0.0", r#","bridge":"a/b""#), 8),
            ("bridge", "ADD", config("1.0.0", ""), 8),
            ("portmap", "ADD", config("1.0.0", ""), 7),
            ("loopback", "ADD", config("1.0.0", ""), 8),
        ] {
            let refused = call(name, verb, &config);
            assert_eq!(refused.code, 1, "{name} {verb} {config}");
            assert_eq!(refused.json()["code"], code, "{name} {verb} {config}: {refused:?}");
        }
        let version = call("portmap", "VERSION", r#"{"cniVersion":"1.1.0"}"#).success().json();
        assert_eq!(version["supportedVersions"], json!(VERSIONS));
        let unset = Cmd::new(directory.join("bridge")).env("CNI_COMMAND", "ADD");
        let unset = unset.stdin(config("1.0.0", "")).run();
        assert_eq!(unset.json()["code"], 4);
        Cmd::new(directory.join("bridge")).run().success().stderr_has("a CNI plugin");
    });
}

#[test]
fn the_firewall_plugin_keeps_others_out_by_its_policy() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let (one, two) = (Netns::new("one"), Netns::new("two"));
        let (one_path, two_path) = (one.path(), two.path());
        let directory = plugin_directory(&scene.path("plugins"));
        let reaches = |from: &Netns, address: &str| {
            let ping = Cmd::line("ping -c 1 -W 1").arg(address).in_netns(&from.name);
            ping.run().code == 0
        };
        for (policy, from_outside, from_inside) in
            [("open", true, true), ("same-bridge", false, true), ("isolated", false, false)]
        {
            let plugins = [
                json!({"type": "bridge", "bridge": "e2e0", "isGateway": true,
                    "ipam": host_local(scene, "10.198.0.0/24")}),
                json!({"type": "firewall", "ingressPolicy": policy}),
            ];
            let network = CniNetwork::new(directory.clone(), "1.0.0", "pods", &plugins);
            let first = CniContainer { id: "one", ..container(&one_path, json!({})) };
            let second = CniContainer { id: "two", ..container(&two_path, json!({})) };
            let (first_result, second_result) = (network.add(&first), network.add(&second));
            let address = second_result["ips"][0]["address"].as_str().unwrap();
            let address = address.split('/').next().unwrap();
            assert_eq!(reaches(&remote, address), from_outside, "{policy}: another host");
            assert_eq!(reaches(&one, address), from_inside, "{policy}: another pod");
            assert!(reaches(&two, "10.199.0.2"), "{policy}: the world");
            network.check(&first, &first_result);
            network.del(&first, Some(&first_result));
            network.del(&second, Some(&second_result));
        }
    });
}
