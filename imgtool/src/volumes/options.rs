//! Volumes that are not directories of ours: `--opt type=…`, `device=…` and `o=…`, as docker's local
//! driver takes them. Each becomes a mount of config.json, which the runtime makes when the container
//! starts, and which goes with the container.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// A mount as config.json has it, but for its destination.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

/// `KEY=VALUE` words become options that make sense together.
pub(crate) fn parse(words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    for word in words {
        let pair = word.split_once('=').filter(|(_, value)| !value.is_empty());
        let (key, value) = pair.with_context(|| format!("option {word:?} is not KEY=VALUE"))?;
        ensure!(
            ["type", "device", "o"].contains(&key),
            "unknown option {key:?}: there are type, device and o"
        );
        options.insert(key.to_owned(), value.to_owned());
    }
    if !options.is_empty() {
        check(&options)?;
    }
    Ok(options)
}

fn check(options: &BTreeMap<String, String>) -> Result<()> {
    let device = options.get("device").context("a volume with options needs device=…")?;
    let kind = options.get("type").map_or("none", String::as_str);
    let words: Vec<&str> = words(options).collect();
    if kind == "none" {
        ensure!(
            words.contains(&"bind") || words.contains(&"rbind"),
            "without type=… a volume is a directory of the host: o=bind,device=/directory"
        );
        ensure!(device.starts_with('/'), "device={device} is no absolute path");
    }
    if is_nfs(kind) {
        ensure!(
            address(options).is_some(),
            "type={kind} needs the server's address: o=addr=ADDRESS,…"
        );
        ensure!(device.contains(":/"), "device={device} is not of the form :/exported/directory");
    }
    Ok(())
}

fn is_nfs(kind: &str) -> bool {
    matches!(kind, "nfs" | "nfs4")
}

fn words(options: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let words = options.get("o").map_or("", String::as_str).split(',');
    words.filter(|word| !word.is_empty())
}

fn address(options: &BTreeMap<String, String>) -> Option<&str> {
    words(options).find_map(|word| word.strip_prefix("addr=")).filter(|address| !address.is_empty())
}

/// What is to be mounted; looks at the host, and asks for a server's address if it is a name.
pub(crate) fn filesystem(options: &BTreeMap<String, String>) -> Result<Filesystem> {
    let kind = options.get("type").map_or("none", String::as_str);
    let device = options.get("device").map_or("", String::as_str);
    let mut out =
        Filesystem { kind: kind.to_owned(), source: device.to_owned(), options: Vec::new() };
    for word in words(options) {
        match word.strip_prefix("addr=") {
            // The kernel takes numbers only.
            Some(name) if is_nfs(kind) => out.options.push(format!("addr={}", numeric(name)?)),
            _ => out.options.push(word.to_owned()),
        }
    }
    if kind == "none" {
        out.kind = "bind".to_owned();
    }
    let from_path = out.kind == "bind" || (device.starts_with('/') && !is_nfs(kind));
    ensure!(!from_path || Path::new(device).exists(), "{device} does not exist");
    Ok(out)
}

fn numeric(name: &str) -> Result<IpAddr> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let found =
        (name, 0).to_socket_addrs().with_context(|| format!("look up the address of {name}"))?;
    match found.map(|address| address.ip()).next() {
        Some(address) => Ok(address),
        None => bail!("{name} has no address"),
    }
}

/// Whether the kernel knows it already; a module may bring it.
pub(crate) fn is_known(kind: &str) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    kind == "bind" || known.lines().any(|line| line.split('\t').next_back() == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<BTreeMap<String, String>> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_make_sense_together() {
        for good in [
            &[][..],
            &["type=nfs", "o=addr=10.0.0.1,rw,vers=4", "device=:/data"],
            &["type=ext4", "device=/dev/sdb1"],
            &["type=tmpfs", "device=tmpfs", "o=size=1m,uid=7"],
            &["o=bind", "device=/srv"],
            &["type=none", "o=rbind,ro", "device=/srv"],
        ] {
            assert!(options(good).is_ok(), "{good:?}");
        }
        for bad in [
            &["type=nfs", "device=:/data"][..],
            &["type=nfs", "o=addr=", "device=:/data"],
            &["type=nfs", "o=addr=10.0.0.1", "device=/data"],
            &["type=ext4"],
            &["device=/srv"],
            &["o=bind", "device=srv"],
            &["size=1m"],
            &["type"],
            &["type="],
        ] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_becomes_a_mount() {
        let nfs = options(&["type=nfs", "o=addr=192.0.2.1,ro,vers=4.2", "device=:/data"]).unwrap();
        let expected = Filesystem {
            kind: "nfs".into(),
            source: ":/data".into(),
            options: ["addr=192.0.2.1", "ro", "vers=4.2"].map(str::to_owned).into(),
        };
        assert_eq!(filesystem(&nfs).unwrap(), expected);
        let bind = options(&["o=bind", "device=/"]).unwrap();
        assert_eq!(filesystem(&bind).unwrap().kind, "bind");
        let gone = options(&["type=ext4", "device=/dev/none-at-all"]).unwrap();
        assert!(filesystem(&gone).unwrap_err().to_string().contains("/dev/none-at-all"));
        assert!(is_known("tmpfs") && !is_known("none-at-all"));
    }
}
