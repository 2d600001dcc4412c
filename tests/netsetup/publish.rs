//! Published ports: reached from another host, from the host's own addresses and from loopback.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{Cmd, Netns, netsetup, scene};
use crate::harness::command::binary;

/// The probe serving in a namespace until it is dropped.
pub(super) struct Server(Child);

impl Server {
    pub(super) fn start(netns: &Netns, verb: &str, port: &str) -> Self {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.path())).arg(binary("probe"));
        Self::serve(command, verb, port)
    }

    /// The same on the host itself.
    pub(super) fn start_here(verb: &str, port: &str) -> Self {
        Self::serve(Command::new(binary("probe")), verb, port)
    }

    fn serve(mut command: Command, verb: &str, port: &str) -> Self {
        let mut child = command
            .args([verb, port, "page for"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the server");
        // It says so when it listens.
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("read from the server");
        assert!(line.starts_with("listening"), "{line}");
        Self(child)
    }
}

impl Server {
    /// A process in the namespace.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) const ASK_UDP: &str = "import socket,sys; \
    s=socket.socket([socket.AF_INET,socket.AF_INET6][':' in sys.argv[1]],socket.SOCK_DGRAM); \
    s.settimeout(5); s.connect((sys.argv[1],int(sys.argv[2]))); s.send(b'?'); \
    print(s.recv(100).decode(),end='')";

#[test]
fn a_tcp_port_answers_remote_hosts_own_addresses_and_loopback() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        let (path, port) = (container.path(), "18080:80");
        netsetup(scene, ["attach", &path, "--network", "e2e0", "--publish", port]);
        let server = Server::start(&container, "serve", "80");
        let fetch = |address: &str| {
            Cmd::line("curl -sS --max-time 10").arg(format!("http://{address}:18080/"))
        };
        // A container must see who asks: the remote host's own address.
        let from_remote = fetch("10.199.0.1").in_netns(&remote.name).run().success();
        assert_eq!(from_remote.stdout, "page for 10.199.0.2\n");
        for address in ["10.199.0.1", "10.198.0.1", "127.0.0.1"] {
            fetch(address).run().success().stdout_has("page for");
        }
        // From the container itself, through the host, to itself.
        fetch("10.199.0.1").in_netns(&container.name).run().success().stdout_has("page for");

        netsetup(scene, ["ports"]).stdout_has("18080");
        netsetup(scene, ["ports", &path]).stdout_has("18080");
        netsetup(scene, ["unpublish", &path, "18080"]);
        assert_ne!(fetch("10.199.0.1").in_netns(&remote.name).run().code, 0);
        assert_ne!(fetch("127.0.0.1").run().code, 0);
        netsetup(scene, ["publish", &path, "127.0.0.1:18080:80"]);
        fetch("127.0.0.1").run().success().stdout_has("page for");
        let hidden = fetch("10.199.0.1").in_netns(&remote.name).run();
        assert_ne!(hidden.code, 0, "a port of loopback answers a remote host");
        drop(server);
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn a_udp_port_answers_remote_hosts_own_addresses_and_loopback() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let container = Netns::new("container");
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        let path = container.path();
        netsetup(scene, ["attach", &path, "--network", "e2e0", "-p", "15353:53/udp"]);
        let server = Server::start(&container, "serve-udp", "53");
        let ask = |address: &str| Cmd::new("python3").args(["-c", ASK_UDP, address, "15353"]);
        let from_remote = ask("10.199.0.1").in_netns(&remote.name).run().success();
        assert_eq!(from_remote.stdout, "page for 10.199.0.2\n");
        for address in ["10.199.0.1", "127.0.0.1"] {
            ask(address).run().success().stdout_has("page for");
        }
        drop(server);
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

/// From wherever one looks: another host, the host by each of its addresses, the container itself, its
/// neighbour, and a container on a bridge that is kept apart.
#[test]
fn a_published_port_is_reached_from_everywhere_in_both_families() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let [container, neighbour, stranger] =
            ["container", "neighbour", "stranger"].map(Netns::new);
        for (name, subnet, subnet6) in
            [("e2e0", "10.198.0.0/24", "fd98::/64"), ("e2e1", "10.197.0.0/24", "fd97::/64")]
        {
            netsetup(scene, ["bridge", "create", name, "--subnet", subnet, "--subnet", subnet6]);
        }
        let path = container.path();
        let ports = ["-p", "18080:80", "-p", "18053:53/udp"];
        let attach = scene.netsetup().args(["attach", &path, "--network", "e2e0"]);
        attach.args(ports).run().success();
        netsetup(scene, ["attach", &neighbour.path(), "--network", "e2e0"]);
        netsetup(scene, ["attach", &stranger.path(), "--network", "e2e1"]);
        let servers = [
            Server::start(&container, "serve", "80"),
            Server::start(&container, "serve-udp", "53"),
        ];
        let own = ["10.199.0.1", "fd99::1"];
        let mut ways: Vec<(Option<&Netns>, &str)> =
            ["10.198.0.1", "127.0.0.1", "fd98::1"].map(|address| (None, address)).into();
        for address in own {
            ways.push((None, address));
            for from in [&remote, &container, &neighbour, &stranger] {
                ways.push((Some(from), address));
            }
        }
        for (from, address) in ways {
            let bracketed =
                if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            let fetch =
                Cmd::line("curl -sS --max-time 10").arg(format!("http://{bracketed}:18080/"));
            let ask = Cmd::new("python3").args(["-c", ASK_UDP, address, "18053"]);
            for call in [fetch, ask] {
                let call = match from {
                    Some(netns) => call.in_netns(&netns.name),
                    None => call,
                };
                call.run().success().stdout_has("page for");
            }
        }
        drop(servers);
        for netns in [&container, &neighbour, &stranger] {
            netsetup(scene, ["detach", &netns.path()]);
        }
        netsetup(scene, ["bridge", "delete", "e2e0", "e2e1"]);
    });
}

/// What is on its way to another host's port of the same number goes there.
#[test]
fn transit_traffic_is_left_alone() {
    scene(|scene| {
        let remote = Netns::remote_host();
        let (container, other) = (Netns::new("container"), Netns::new("other"));
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        let path = container.path();
        netsetup(scene, ["attach", &path, "--network", "e2e0", "--publish", "18080:80"]);
        netsetup(scene, ["attach", &other.path(), "--network", "e2e0"]);
        let published = Server::start(&container, "serve", "80");
        let elsewhere = Server::start(&remote, "serve", "18080");
        let fetch = Cmd::line("curl -sS --max-time 10 http://10.199.0.2:18080/");
        let seen = fetch.in_netns(&other.name).run().success();
        assert_eq!(seen.stdout, "page for 10.199.0.1\n");
        drop((published, elsewhere));
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["detach", &other.path()]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}
