//! `pasta`, which goes into the background once it is ready.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::process::{self, Identity};
use super::{ADDRESS, GATEWAY, INTERFACE, PREFIX, Port};
use crate::port::Protocol;

/// Connects the network namespace of `pid`.
pub(super) fn start(
    program: &Path,
    directory: &Path,
    pid: u32,
    ports: &[Port],
) -> Result<Identity> {
    let mut command = process::command(program, directory)?;
    command.args(words(ports)).arg("--pid").arg(directory.join("pid"));
    command.arg(pid.to_string());
    let status = command.status().with_context(|| format!("execute {}", program.display()))?;
    if !status.success() {
        let complaint = process::complaint(directory);
        bail!("{status}: {complaint}{}", remedy(&complaint));
    }
    Identity::of_file(directory).context("it does not run")
}

/// The profile that came with its first releases lets it open no namespace of another process.
fn remedy(complaint: &str) -> &'static str {
    if complaint.contains("namespace") && complaint.contains("Permission denied") {
        " (AppArmor confines it so on Debian 12: install slirp4netns, or a newer passt)"
    } else {
        ""
    }
}

/// Nothing of the host is reached by an address that looks like the container's own gateway, and
/// no port is published that was not asked for: that is its default.
fn words(ports: &[Port]) -> Vec<String> {
    let mut words: Vec<String> = ["--config-net", "--quiet", "--no-map-gw"].map(Into::into).into();
    words.extend(["--ns-ifname".into(), INTERFACE.into()]);
    words.extend(["--address".into(), ADDRESS.to_string()]);
    words.extend(["--netmask".into(), PREFIX.to_string()]);
    words.extend(["--gateway".into(), GATEWAY.to_string()]);
    for (flag, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let mut specs = ports.iter().filter(|port| port.protocol == protocol).map(spec).peekable();
        if specs.peek().is_none() {
            words.extend([flag.into(), "none".into()]);
        }
        for spec in specs {
            words.extend([flag.into(), spec]);
        }
    }
    words.extend(["--tcp-ns", "none", "--udp-ns", "none"].map(Into::into));
    words
}

fn spec(port: &Port) -> String {
    let Port { host_ip, host_port, container_port, .. } = port;
    match host_ip.as_str() {
        "0.0.0.0" => format!("{host_port}:{container_port}"),
        ip => format!("{ip}/{host_port}:{container_port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_published() {
        let port = |protocol, ip: &str, host_port| Port {
            protocol,
            host_ip: ip.to_owned(),
            host_port,
            container_port: 80,
        };
        let words = words(&[]).join(" ");
        assert!(words.contains("--tcp-ports none --udp-ports none --tcp-ns none"), "{words}");
        let ports = [port(Protocol::Tcp, "0.0.0.0", 1), port(Protocol::Tcp, "127.0.0.1", 2)];
        let words = super::words(&ports).join(" ");
        assert!(words.contains("--tcp-ports 1:80 --tcp-ports 127.0.0.1/2:80 --udp-ports none"));
    }
}
