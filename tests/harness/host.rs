//! What a test may not change for good: links, addresses, routes, rules, mounts, cgroups, state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::command::Cmd;

/// Directories where the three binaries keep what is alive; what a test makes there, it must undo.
const STATE: [&str; 5] =
    ["/run/runtime", "/run/runc", "/run/netsetup", "/etc/netsetup", "/var/lib/runtime"];

/// The host, as sets of lines by kind.
#[derive(Debug, PartialEq)]
pub(crate) struct HostState(BTreeMap<&'static str, BTreeSet<String>>);

impl HostState {
    pub(crate) fn capture() -> Self {
        let mut state = BTreeMap::new();
        for (kind, command) in [
            ("links", "ip -br link"),
            ("addresses", "ip -o addr"),
            ("routes", "ip route show table all"),
            ("rules", "nft -s list ruleset"),
            ("namespaces", "ip netns list"),
        ] {
            let outcome = Cmd::line(command).run().success();
            state.insert(kind, outcome.stdout.lines().map(without_passing).collect());
        }
        let mounts = fs::read_to_string("/proc/self/mounts").expect("read own mounts");
        // `ip netns` mounts its own directory once per boot, the first time it is used.
        let mounts = mounts.lines().filter(|line| !line.contains(" /run/netns "));
        state.insert("mounts", mounts.map(without_options_of_all_cgroups).collect());
        state.insert("cgroups", cgroups());
        state.insert("sysctls", sysctls());
        let mut files = BTreeSet::new();
        for dir in STATE {
            list(Path::new(dir), &mut files);
        }
        state.insert("state", files);
        Self(state)
    }

    /// Every line that one side has and the other has not: `-` was there before, `+` is new. Lines
    /// with a word of `$E2E_IGNORE` (`word,word`) are what else is going on on a shared host.
    pub(crate) fn differences(&self, after: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (kind, before) in &self.0 {
            let after = &after.0[kind];
            found.extend(before.difference(after).map(|line| format!("- {kind}: {line}")));
            found.extend(after.difference(before).map(|line| format!("+ {kind}: {line}")));
        }
        let ignored = std::env::var("E2E_IGNORE").unwrap_or_default();
        let ignored: Vec<&str> = ignored.split(',').filter(|word| !word.is_empty()).collect();
        found.retain(|line| !ignored.iter().any(|word| line.contains(word)));
        found
    }
}

/// Debian's runc mounts cgroup2 before it enters a cgroup namespace: its options, which all mounts of
/// the hierarchy share, then replace those of the host.
pub(crate) fn without_options_of_all_cgroups(line: &str) -> String {
    line.replace(",nsdelegate", "").replace(",memory_recursiveprot", "")
}

/// Without what passes: how long an address is valid, and the number by which the kernel remembers
/// a namespace that a link once led to.
fn without_passing(line: &str) -> String {
    let end = [" valid_lft", " (id: "].iter().filter_map(|word| line.find(word)).min();
    line[..end.unwrap_or(line.len())].trim_end().to_owned()
}

/// All cgroup directories but those that engines running beside the tests keep for themselves, and
/// those beside our own: what runs these tests may make more of them.
fn cgroups() -> BTreeSet<String> {
    let own = fs::read_to_string("/proc/self/cgroup").expect("read own cgroups");
    let own: Vec<&str> = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let mut dirs = BTreeSet::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted") {
        let hierarchy = hierarchy.expect("read an entry").path();
        list_cgroups(&hierarchy, &hierarchy, &own, &mut dirs);
    }
    dirs
}

fn list_cgroups(hierarchy: &Path, dir: &Path, own: &[&str], dirs: &mut BTreeSet<String>) {
    let below = format!("/{}/", dir.strip_prefix(hierarchy).unwrap_or(dir).display());
    let above_us = dir != hierarchy && own.iter().any(|path| path.starts_with(&below));
    // A directory that goes away while it is read was not ours to keep.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = format!("/{}", path.strip_prefix(hierarchy).unwrap_or(&path).display());
        let beside_us = above_us && !own.iter().any(|own| Path::new(own).starts_with(&name));
        let engine = ["docker", "libpod_parent", "machine.slice"].iter().any(|n| path.ends_with(n));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !engine && !beside_us {
            list_cgroups(hierarchy, &path, own, dirs);
            dirs.insert(path.display().to_string());
        }
    }
}

fn sysctls() -> BTreeSet<String> {
    ["net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "net/ipv6/conf/all/forwarding"]
        .iter()
        .filter_map(|name| {
            let value = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
            Some(format!("{name} = {}", value.trim()))
        })
        .collect()
}

fn list(dir: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&path, files);
        }
        // A lock that nobody holds says nothing; it stays so that there is one for all.
        if path.file_name().is_some_and(|name| name != "lock") {
            files.insert(path.display().to_string());
        }
    }
}
