//! IPv6, beside IPv4 and alone.

use super::publish::{ASK_UDP, Server};
use super::{Cmd, Netns, Outcome, Scene, netsetup, scene};

const BOTH: [&str; 7] =
    ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24", "--subnet", "fd98::/64"];

fn fetch(address: &str, from: Option<&Netns>) -> Outcome {
    let fetch = Cmd::line("curl -sS --max-time 10").arg(format!("http://{address}:18080/"));
    match from {
        Some(netns) => fetch.in_netns(&netns.name).run(),
        None => fetch.run(),
    }
}

fn attach(scene: &Scene, container: &Netns, words: &[&str]) -> Outcome {
    let attach = ["attach", &container.path(), "--network", "e2e0"];
    scene.netsetup().args(attach).args(words).run()
}

fn leave(scene: &Scene, containers: &[&Netns]) {
    for container in containers {
        netsetup(scene, ["detach", &container.path()]);
    }
    netsetup(scene, ["bridge", "delete", "e2e0"]);
}

#[test]
fn a_container_gets_both_families_and_the_world() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        netsetup(scene, BOTH);
        assert_eq!(attach(scene, &container, &[]).success().stdout, "10.198.0.2\nfd98::2\n");
        container.line("ip -o addr show dev eth0").stdout_has("fd98::2/64");
        container.line("ip -6 route").stdout_has("default via fd98::1");
        container.line("ping -c 1 -W 5 fd98::1");
        // The remote host knows no way to fd98::/64: an answer means the source was masqueraded.
        remote.line("ip -6 route del default");
        container.line("ping -c 1 -W 5 fd99::2");
        leave(scene, &[&container]);
    });
}

#[test]
fn ports_are_published_for_both_families() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let (container, neighbour) = (Netns::new("container"), Netns::new("neighbour"));
        netsetup(scene, BOTH);
        attach(scene, &container, &["-p", "18080:80", "-p", "15353:53/udp"]).success();
        attach(scene, &neighbour, &[]).success();
        let servers = [
            Server::start(&container, "serve", "80"),
            Server::start(&container, "serve-udp", "53"),
        ];
        for (address, own) in [("10.199.0.1", "10.199.0.2"), ("[fd99::1]", "fd99::2")] {
            // A container must see who asks: the remote host's own address.
            let seen = fetch(address, Some(&remote)).success();
            assert_eq!(seen.stdout, format!("page for {own}\n"));
            for from in [None, Some(&container), Some(&neighbour)] {
                fetch(address, from).success().stdout_has("page for");
            }
            let bare = address.trim_matches(['[', ']']);
            let ask = Cmd::new("python3").args(["-c", ASK_UDP, bare, "15353"]);
            let seen = ask.in_netns(&remote.name).run().success();
            assert_eq!(seen.stdout, format!("page for {own}\n"));
        }
        fetch("[fd98::1]", None).success().stdout_has("page for");
        // Nothing can rewrite [::1], so that it must fail at once: localhost is tried there first.
        assert_eq!(fetch("[::1]", None).code, 7, "refused");
        fetch("localhost", None).success().stdout_has("page for");

        netsetup(scene, ["ports", &container.path()]).stdout_has("80/tcp -> [::]:18080");
        netsetup(scene, ["unpublish", &container.path(), "[::]:18080"]);
        assert_ne!(fetch("[fd99::1]", Some(&remote)).code, 0);
        fetch("10.199.0.1", Some(&remote)).success();
        netsetup(scene, ["publish", &container.path(), "[fd99::1]:18080:80"]);
        fetch("[fd99::1]", Some(&remote)).success();
        assert_ne!(fetch("[fd98::1]", Some(&neighbour)).code, 0, "another address of the host");
        drop(servers);
        leave(scene, &[&container, &neighbour]);
    });
}

#[test]
fn a_bridge_of_ipv6_alone_works() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        netsetup(
            scene,
            ["bridge", "create", "e2e0", "--subnet", "fd98::/112", "--gateway", "fd98::9"],
        );
        let attached = attach(scene, &container, &["--ip", "fd98::7", "-p", "18080:80"]);
        assert_eq!(attached.success().word(), "fd98::7");
        let server = Server::start(&container, "serve", "80");
        fetch("[fd99::1]", Some(&remote)).success().stdout_has("page for fd99::2");
        assert_ne!(fetch("10.199.0.1", Some(&remote)).code, 0);
        drop(server);
        leave(scene, &[&container]);
    });
}

#[test]
fn what_ipv6_cannot_do_is_refused() {
    scene(|scene| {
        let (container, other) = (Netns::new("container"), Netns::new("other"));
        netsetup(scene, BOTH);
        attach(scene, &container, &["-p", "[::1]:18080:80"]).refused(&["[::1]", "127.0.0.1"]);
        attach(scene, &container, &["-p", "[fd77::1]:18080:80"]).refused(&["fd77::1"]);
        attach(scene, &container, &["-p", "::1:18080:80"]).refused(&["brackets"]);
        attach(scene, &container, &["--ip", "fd97::2"]).refused(&["fd97::2", "not in subnet"]);
        attach(scene, &container, &["--ip", "fd98::5", "-p", "[::]:18080:80"]).success();
        attach(scene, &other, &["--ip", "fd98::5"]).refused(&["fd98::5", "taken"]);
        attach(scene, &other, &["-p", "18080:80"]).refused(&["18080", "already published"]);
        for subnet in ["fd98::/64", "fd98::8000:0:0:0/65", "fe80::/64", "fd00::/127"] {
            let create = ["bridge", "create", "e2e1", "--subnet", subnet];
            scene.netsetup().args(create).run().refused(&[subnet]);
        }
        leave(scene, &[&container]);
    });
}

#[test]
fn a_free_ipv6_subnet_is_a_random_unique_local_one() {
    scene(|scene| {
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24", "--ipv6"]);
        let seen = netsetup(scene, ["bridge", "inspect", "e2e0"]).json();
        let subnet = seen[0]["subnets"][1]["subnet"].as_str().unwrap();
        assert!(subnet.starts_with("fd") && subnet.ends_with("/64"), "{subnet}");
        // What is chosen by chance stays what it was chosen to be.
        netsetup(scene, ["bridge", "create", "e2e0"]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}
