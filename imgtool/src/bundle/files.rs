//! /etc/hosts, /etc/hostname and /etc/resolv.conf of the container: files of the bundle, bound in.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::flags::Hosts;
use crate::userns::{Maps, shift};

/// What systemd-resolved serves on its loopback address, with the real servers in it.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// As Docker does where the host names only servers that a container can't reach.
const PUBLIC_SERVERS: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

/// The files, by name in the bundle and path in the container.
pub(crate) const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

/// Writes the three files into `directory`. A container in the host's network sees the host's
/// names; returns what the user should know.
pub(crate) fn write(
    directory: &Path,
    hostname: &str,
    host_network: bool,
    wanted: &Hosts,
) -> Result<Option<String>> {
    let (resolv_conf, note) = if host_network || !wanted.servers.is_empty() {
        (read_host_file("/etc/resolv.conf")?, None)
    } else {
        reachable_servers()?
    };
    let resolv_conf = chosen(&resolv_conf, wanted);
    let mut hosts = if host_network { read_host_file("/etc/hosts")? } else { hosts(hostname) };
    for (name, address) in &wanted.added {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    for (name, content) in
        [("resolv.conf", resolv_conf), ("hostname", format!("{hostname}\n")), ("hosts", hosts)]
    {
        let path = directory.join(name);
        fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(note)
}

/// Gives the three files to the container's root.
pub(crate) fn give(directory: &Path, ids: &Maps) -> Result<()> {
    let handle =
        fs::File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    for (name, _) in FILES {
        shift::give_to_root(handle.as_fd(), name.as_bytes(), ids)
            .with_context(|| format!("give away {}", directory.join(name).display()))?;
    }
    Ok(())
}

/// What /etc/resolv.conf says in a network of the container's own, and what the user should know.
pub(crate) fn reachable_servers() -> Result<(String, Option<String>)> {
    let filtered = without_loopback(&read_host_file("/etc/resolv.conf")?);
    if has_server(&filtered) {
        return Ok((filtered, None));
    }
    let resolved = without_loopback(&read_host_file(RESOLVED)?);
    if has_server(&resolved) {
        return Ok((resolved, None));
    }
    let note = "no name server of the host can be reached from a container: \
                using 8.8.8.8 and 8.8.4.4";
    Ok((filtered + PUBLIC_SERVERS, Some(note.to_owned())))
}

/// The host's lines, but for those that the user gives others for.
fn chosen(host: &str, wanted: &Hosts) -> String {
    let replaced = |line: &&str| match line.split_whitespace().next() {
        Some("nameserver") => wanted.servers.is_empty(),
        Some("search" | "domain") => wanted.search.is_empty(),
        Some("options") => wanted.options.is_empty(),
        _ => true,
    };
    let mut lines: Vec<String> = host.lines().filter(replaced).map(str::to_owned).collect();
    lines.extend(wanted.servers.iter().map(|address| format!("nameserver {address}")));
    // A dot means no domain at all.
    if !wanted.search.is_empty() && wanted.search != ["."] {
        lines.push(format!("search {}", wanted.search.join(" ")));
    }
    if !wanted.options.is_empty() {
        lines.push(format!("options {}", wanted.options.join(" ")));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A host without the file is a host without entries.
pub(crate) fn read_host_file(path: &str) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("read {path}")),
    }
}

/// The host's loopback is not the container's.
fn without_loopback(resolv_conf: &str) -> String {
    let mut kept = String::new();
    for line in resolv_conf.lines() {
        if !server(line).is_some_and(|address| address.is_loopback()) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn has_server(resolv_conf: &str) -> bool {
    resolv_conf.lines().any(|line| server(line).is_some())
}

fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    words.next()?.split('%').next()?.parse().ok()
}

fn hosts(hostname: &str) -> String {
    // The address is known only once the container is attached, so its own name is the loopback.
    format!(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         127.0.1.1\t{hostname}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_left_out() {
        let text = "search lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\noptions edns0\n";
        let kept = without_loopback(text);
        assert_eq!(
            kept,
            "search lan\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\noptions edns0\n"
        );
        assert!(has_server(&kept));
        assert!(!has_server("search lan\n# nameserver 1.1.1.1\n"));
    }

    #[test]
    fn what_the_user_gives_replaces_the_host_s() {
        let host = "search lan\nnameserver 10.0.0.1\noptions edns0\n";
        assert_eq!(chosen(host, &Hosts::default()), host);
        let wanted = Hosts {
            servers: vec!["1.1.1.1".parse().unwrap()],
            search: vec!["a.example".into(), "b.example".into()],
            ..Hosts::default()
        };
        assert_eq!(
            chosen(host, &wanted),
            "options edns0\nnameserver 1.1.1.1\nsearch a.example b.example\n"
        );
        let none = Hosts { search: vec![".".into()], ..Hosts::default() };
        assert_eq!(chosen(host, &none), "nameserver 10.0.0.1\noptions edns0\n");
    }

    #[test]
    fn the_hosts_file_names_the_container() {
        assert!(hosts("box").ends_with("127.0.1.1\tbox\n"));
    }
}
