//! `--sysctl`: what the container's own namespaces let it have for itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Of an IPC namespace.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// `KEY=VALUE` each; the last of a key counts.
pub(super) fn resolve(words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for word in words {
        let (key, value) = one(word).with_context(|| format!("invalid --sysctl {word:?}"))?;
        all.insert(key, value);
    }
    Ok(all)
}

fn one(word: &str) -> Result<(String, String)> {
    let (key, value) = word.split_once('=').context("want KEY=VALUE")?;
    let key = key.trim();
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    ensure!(key.split(['.', '/']).all(plain), "{key:?} is no name of a setting");
    ensure!(!value.contains(['\0', '\n']), "the value is not one line");
    if !is_of_ipc(key) && !is_of_network(key) {
        bail!(
            "only net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm* can be the container's own: \
             set others on the host"
        );
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Whether each IPC namespace has one of its own.
pub(crate) fn is_of_ipc(key: &str) -> bool {
    // As sysctl(8), the kernel's files are named with dots or with slashes.
    let key = key.replace('/', ".");
    IPC.contains(&key.as_str()) || key.starts_with("fs.mqueue.")
}

/// Whether each network namespace has one of its own.
pub(crate) fn is_of_network(key: &str) -> bool {
    key.starts_with("net.") || key.starts_with("net/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_namespaces() {
        let words = ["net.ipv4.ip_forward=1", "kernel/sem=1 2 3 4", "net.ipv4.ip_forward=0"];
        let all = resolve(&words.map(String::from)).unwrap();
        let all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(all, [("kernel/sem", "1 2 3 4"), ("net.ipv4.ip_forward", "0")]);
        for bad in
            ["", "net.a", "=1", "vm.swappiness=1", "kernel.panic=1", "net..a=1", "net.../x=1"]
        {
            assert!(one(bad).is_err(), "{bad:?}");
        }
    }
}
