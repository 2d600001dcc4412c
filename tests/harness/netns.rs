//! Network namespaces that play other hosts.

use super::command::{Cmd, Outcome};

/// A named namespace, deleted when it is dropped.
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("e2e-{}-{name}", std::process::id());
        Cmd::line("ip netns add").arg(&name).run().success();
        let netns = Self { name };
        netns.line("ip link set lo up");
        netns
    }

    /// A host of its own on the other end of a cable: this side has `10.199.0.1/24` and
    /// `fd99::1/64`, that one `10.199.0.2/24`, `fd99::2/64` and default routes to here.
    pub(crate) fn remote_host() -> Self {
        let remote = Self::new("remote");
        let name = &remote.name;
        let cable = format!("ip link add e2e-here type veth peer name eth0 netns {name}");
        Cmd::line(&cable).run().success();
        Cmd::line("ip addr add 10.199.0.1/24 dev e2e-here").run().success();
        Cmd::line("ip addr add fd99::1/64 dev e2e-here nodad").run().success();
        Cmd::line("ip link set e2e-here up").run().success();
        remote.line("ip addr add 10.199.0.2/24 dev eth0");
        remote.line("ip addr add fd99::2/64 dev eth0 nodad");
        remote.line("ip link set eth0 up");
        remote.line("ip route add default via 10.199.0.1");
        remote.line("ip route add default via fd99::1");
        remote
    }

    /// Runs a line of plain words in it.
    #[track_caller]
    pub(crate) fn line(&self, line: &str) -> Outcome {
        Cmd::line(line).in_netns(&self.name).run().success()
    }

    /// Where it can be opened.
    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A cable goes with its end; taking it first makes that happen at once.
        Cmd::line("ip link del e2e-here").run();
        Cmd::line("ip netns del").arg(&self.name).run();
    }
}
