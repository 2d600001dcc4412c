//! Several networks of one container, and what separates networks.

use super::publish::{ASK_UDP, Server};
use super::{Cmd, Netns, Outcome, Scene, netsetup, scene};

/// Bridged packets do not pass the rules for IP, as on a host without br_netfilter, until it is dropped.
struct UnfilteredBridges(Option<String>);

impl UnfilteredBridges {
    const SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

    fn new() -> Self {
        let before = std::fs::read_to_string(Self::SWITCH).ok();
        if before.is_some() {
            std::fs::write(Self::SWITCH, "0").unwrap();
        }
        Self(before)
    }
}

impl Drop for UnfilteredBridges {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            std::fs::write(Self::SWITCH, before).unwrap();
        }
    }
}

fn create(scene: &Scene, name: &str, subnet: &str, words: &[&str]) {
    let create = scene.netsetup().args(["bridge", "create", name, "--subnet", subnet]);
    create.args(words).run().success();
}

fn attach(scene: &Scene, container: &Netns, network: &str, words: &[&str]) -> Outcome {
    let attach = ["attach", &container.path(), "--network", network];
    scene.netsetup().args(attach).args(words).run().success()
}

fn reaches(from: &Netns, address: &str) -> bool {
    Cmd::line("ping -c 1 -W 1").arg(address).in_netns(&from.name).run().code == 0
}

fn leave(scene: &Scene, containers: &[&Netns], bridges: &[&str]) {
    for container in containers {
        netsetup(scene, ["detach", &container.path()]);
    }
    scene.netsetup().args(["bridge", "delete"]).args(bridges).run().success();
}

#[test]
fn a_container_on_several_networks_has_one_default_route_and_is_found_on_all() {
    scene(|scene| {
        let (container, one, two) = (Netns::new("container"), Netns::new("one"), Netns::new("two"));
        create(scene, "e2e0", "10.198.0.0/24", &[]);
        create(scene, "e2e1", "10.198.1.0/24", &[]);
        attach(scene, &container, "e2e0", &["-p", "18080:80"]);
        let second = ["--interface", "back0", "--mac", "02:00:00:00:00:09", "--ip", "10.198.1.77"];
        attach(scene, &container, "e2e1", &second);
        attach(scene, &one, "e2e0", &[]);
        attach(scene, &two, "e2e1", &[]);
        container.line("ip route").stdout_has("default via 10.198.0.1 dev eth0");
        container.line("ip -o link show dev back0").stdout_has("02:00:00:00:00:09");
        assert!(reaches(&one, "10.198.0.2") && reaches(&two, "10.198.1.77"));
        assert!(!reaches(&one, "10.198.1.77"), "networks are apart");

        // A published port is reached from the other network, by the host's address there: although the
        // container has a way of its own back to it, and whether or not bridged answers pass the host's rules.
        let server = Server::start(&container, "serve", "80");
        let fetch = || {
            let line = Cmd::line("curl -sS --max-time 5 http://10.198.1.1:18080/");
            line.in_netns(&two.name).run().success().stdout_has("page for");
        };
        fetch();
        let unfiltered = UnfilteredBridges::new();
        fetch();
        drop((unfiltered, server));

        netsetup(scene, ["detach", &container.path(), "--network", "e2e0"]);
        assert_ne!(Cmd::line("ip link show dev eth0").in_netns(&container.name).run().code, 0);
        assert!(reaches(&two, "10.198.1.77"), "the other network stays");
        netsetup(scene, ["ports"]);
        leave(scene, &[&container, &one, &two], &["e2e0", "e2e1"]);
    });
}

#[test]
fn networks_are_apart_unless_both_are_open_and_containers_unless_kept_from_each_other() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let names = ["one", "two", "three", "four"];
        let [one, two, three, four] = names.map(Netns::new);
        create(scene, "e2e0", "10.198.0.0/24", &["--isolation", "none"]);
        create(scene, "e2e1", "10.198.1.0/24", &["--isolation", "none"]);
        create(scene, "e2e2", "10.198.2.0/24", &["--isolation", "containers"]);
        attach(scene, &one, "e2e0", &[]);
        attach(scene, &two, "e2e1", &[]);
        attach(scene, &three, "e2e2", &[]);
        attach(scene, &four, "e2e2", &[]);
        assert!(reaches(&one, "10.198.1.2") && reaches(&two, "10.198.0.2"));
        assert!(!reaches(&one, "10.198.2.2") && !reaches(&three, "10.198.0.2"));
        assert!(!reaches(&three, "10.198.2.3"), "isolated containers");
        assert!(reaches(&three, "10.199.0.2"), "isolated containers have the world");
        // Another host that sends packets straight to a container gets nowhere.
        assert!(!reaches(&remote, "10.198.0.2"));
        leave(scene, &[&one, &two, &three, &four], &["e2e0", "e2e1", "e2e2"]);
    });
}

#[test]
fn an_internal_network_has_no_way_out() {
    scene(|scene| {
        let _remote = Netns::remote_host();
        let (one, two) = (Netns::new("one"), Netns::new("two"));
        create(scene, "e2e0", "10.198.0.0/24", &["--internal", "--subnet", "fd98::/64"]);
        attach(scene, &one, "e2e0", &[]);
        attach(scene, &two, "e2e0", &[]);
        assert_eq!(one.line("ip route show default").stdout, "");
        assert!(reaches(&one, "10.198.0.3") && reaches(&one, "fd98::3"));
        one.line("ip route add default via 10.198.0.1");
        one.line("ip route add default via fd98::1");
        assert!(!reaches(&one, "10.199.0.2") && !reaches(&one, "fd99::2"));
        leave(scene, &[&one, &two], &["e2e0"]);
    });
}

#[test]
fn routes_ranges_and_the_mtu_are_as_asked_for() {
    scene(|scene| {
        let (container, other) = (Netns::new("container"), Netns::new("other"));
        let range = ["--range", "10.198.0.40-10.198.0.41", "--mtu", "1400", "--no-masquerade"];
        create(scene, "e2e0", "10.198.0.0/24", &range);
        let route = ["--route", "10.77.0.0/16=10.198.0.9", "--no-default-route"];
        assert_eq!(attach(scene, &container, "e2e0", &route).word(), "10.198.0.40");
        container.line("ip route").stdout_has("10.77.0.0/16 via 10.198.0.9");
        assert_eq!(container.line("ip route show default").stdout, "");
        container.line("ip link show dev eth0").stdout_has("mtu 1400");
        attach(scene, &other, "e2e0", &["--ip", "10.198.0.41"]);
        let full = Netns::new("full");
        let words = ["attach", &full.path(), "--network", "e2e0"];
        scene.netsetup().args(words).run().refused(&["10.198.0.0/24", "no free address"]);
        leave(scene, &[&container, &other], &["e2e0"]);
    });
}

/// A sender that never stops must not stay with the container that had the port before.
#[test]
fn a_udp_flow_goes_to_the_container_that_has_the_port_now() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let (old, new) = (Netns::new("old"), Netns::new("new"));
        create(scene, "e2e0", "10.198.0.0/24", &["--subnet", "fd98::/64"]);
        attach(scene, &old, "e2e0", &["-p", "15353:53/udp"]);
        attach(scene, &new, "e2e0", &[]);
        let servers =
            [Server::start(&old, "serve-udp", "53"), Server::start(&new, "serve-udp", "54")];
        let ask = |address: &str| {
            let from_one_port = ASK_UDP.replace(
                "s.settimeout(5);",
                "s.settimeout(1); \
                s.bind(('',5555));",
            );
            let ask = Cmd::new("python3").args(["-c", &from_one_port, address, "15353"]);
            ask.in_netns(&remote.name).run()
        };
        for address in ["10.199.0.1", "fd99::1"] {
            ask(address).success();
        }
        netsetup(scene, ["unpublish", &old.path(), "15353/udp"]);
        for address in ["10.199.0.1", "fd99::1"] {
            assert_ne!(ask(address).code, 0, "the withdrawn port still answers at {address}");
        }
        netsetup(scene, ["publish", &new.path(), "15353:54/udp"]);
        for address in ["10.199.0.1", "fd99::1"] {
            ask(address).success();
        }
        drop(servers);
        leave(scene, &[&old, &new], &["e2e0"]);
    });
}

#[test]
fn ranges_and_sctp_are_published() {
    scene(|scene| {
        let container = Netns::new("container");
        create(scene, "e2e0", "10.198.0.0/24", &[]);
        let ports = ["-p", "18000-18002:80-82", "-p", "18000:80/sctp", "-p", "18000-18009:99"];
        attach(scene, &container, "e2e0", &ports);
        let listed = netsetup(scene, ["ports", &container.path()]).stdout;
        for line in
            ["81/tcp -> 0.0.0.0:18001", "80/sctp -> 0.0.0.0:18000", "99/tcp -> 0.0.0.0:18003"]
        {
            assert!(listed.contains(line), "{line} in {listed}");
        }
        let map = Cmd::line("nft list map inet netsetup ports").run().success();
        map.stdout_has("sctp . 18000");
        netsetup(scene, ["unpublish", &container.path(), "18000-18001/tcp"]);
        let left = netsetup(scene, ["ports", &container.path()]).stdout;
        assert!(!left.contains("18001") && left.contains("18002"), "{left}");
        leave(scene, &[&container], &["e2e0"]);
    });
}
