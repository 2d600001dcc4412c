//! What a host must not lose by having containers: its loopback to itself, its own way into the
//! world, and answers that come another way than the question went.

use super::publish::Server;
use super::{Cmd, Netns, netsetup, scene};

fn set(name: &str, value: &str) {
    Cmd::line("sysctl -qw").arg(format!("{name}={value}")).run().success();
}

#[test]
fn what_listens_on_loopback_is_reached_by_no_container() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        netsetup(scene, ["attach", &path, "--network", "e2e0"]);
        // A service of the host's, and a container that looks for it beyond its own loopback.
        let server = Server::start_here("serve", "18099");
        Cmd::line("curl -sS --max-time 5 http://127.0.0.1:18099/").run().success();
        container.line("sysctl -qw net.ipv4.conf.all.route_localnet=1");
        container.line("ip addr del 127.0.0.1/8 dev lo");
        container.line("ip route add 127.0.0.0/8 via 10.198.0.1 src 10.198.0.2");
        let reach = || {
            let reach = Cmd::line("curl -sS --max-time 2 http://127.0.0.1:18099/");
            reach.in_netns(&container.name).run().code == 0
        };
        assert!(!reach());
        // It is the table that keeps it out.
        Cmd::line("nft flush chain inet netsetup guard").run().success();
        assert!(reach());
        drop(server);
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn a_host_that_forwards_keeps_its_route_from_a_router() {
    scene(|scene| {
        let _remote = Netns::remote_host();
        let accepts = || {
            let path = "/proc/sys/net/ipv6/conf/e2e-here/accept_ra";
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        };
        let forwarding = "net.ipv6.conf.all.forwarding";
        let before = Cmd::line("sysctl -n").arg(forwarding).run().success().word().to_owned();
        set(forwarding, "0");
        set("net.ipv6.conf.e2e-here.accept_ra", "1");
        // As the kernel notes it of a router's advertisement.
        let route = "ip -6 route add fd96::/64 via fd99::2 dev e2e-here proto ra";
        Cmd::line(route).run().success();
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "fd98::/64"]);
        assert_eq!(accepts(), "2", "to accept although it forwards");
        netsetup(scene, ["bridge", "delete", "e2e0"]);
        set(forwarding, &before);
    });
}

#[test]
fn a_port_on_a_second_network_answers_where_reverse_paths_are_checked() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        let path = container.path();
        set("net.ipv4.conf.all.rp_filter", "1");
        for (name, subnet) in [("e2e0", "10.198.0.0/24"), ("e2e1", "10.197.0.0/24")] {
            netsetup(scene, ["bridge", "create", name, "--subnet", subnet]);
        }
        // The default route is that of the first network, by which the answers leave.
        netsetup(scene, ["attach", &path, "--network", "e2e0"]);
        netsetup(scene, ["attach", &path, "--network", "e2e1", "-p", "18080:80"]);
        let server = Server::start(&container, "serve", "80");
        let fetch = Cmd::line("curl -sS --max-time 5 http://10.199.0.1:18080/");
        let fetch = fetch.in_netns(&remote.name).run();
        set("net.ipv4.conf.all.rp_filter", "0");
        fetch.success().stdout_has("page for");
        drop(server);
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0", "e2e1"]);
    });
}
