//! Capability names, Docker's default set, and what `--cap-add` and `--cap-drop` make of it.

use anyhow::{Result, bail};

/// Every capability of Linux, by number.
pub(crate) const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What Docker gives a container, in its order.
pub(crate) const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Which capabilities to add to, and drop from, the default set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilityChange {
    add: Vec<&'static str>,
    drop: Vec<&'static str>,
    add_all: bool,
    drop_all: bool,
}

impl CapabilityChange {
    /// Names with or without `CAP_`, in any case; `ALL` means every one.
    pub(crate) fn parse(add: &[String], drop: &[String]) -> Result<Self> {
        let (add, add_all) = names(add, "add")?;
        let (drop, drop_all) = names(drop, "drop")?;
        Ok(Self { add, drop, add_all, drop_all })
    }

    /// The resulting set. `ALL` reaches as far as `available`, since what the caller itself
    /// lacks can't be given.
    pub(crate) fn apply(&self, available: &[&'static str]) -> Vec<&'static str> {
        let base: &[&'static str] = match (self.add_all, self.drop_all) {
            (true, _) => available,
            (false, true) => &[],
            (false, false) => &DEFAULT,
        };
        let mut set: Vec<_> =
            base.iter().copied().filter(|name| !self.drop.contains(name)).collect();
        for name in &self.add {
            if !set.contains(name) {
                set.push(name);
            }
        }
        set
    }
}

fn names(words: &[String], verb: &str) -> Result<(Vec<&'static str>, bool)> {
    let mut names = Vec::new();
    let mut all = false;
    for word in words.iter().flat_map(|word| word.split(',')) {
        let upper = word.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            all = true;
            continue;
        }
        match NAMES.iter().find(|name| name.strip_prefix("CAP_") == Some(bare)) {
            Some(name) => names.push(*name),
            None => bail!("unknown capability to {verb}: {word:?}"),
        }
    }
    Ok((names, all))
}

/// The names of the bits set in `mask`, as /proc/self/status writes it.
pub(crate) fn from_mask(mask: u64) -> Vec<&'static str> {
    NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        CapabilityChange::parse(&words(add), &words(drop)).unwrap().apply(&NAMES)
    }

    #[test]
    fn names_come_with_or_without_prefix() {
        for word in ["NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN", "net_admin"] {
            let caps = set(&[word], &[]);
            assert_eq!(caps.len(), 15, "{word}");
            assert_eq!(caps[14], "CAP_NET_ADMIN");
        }
    }

    #[test]
    fn all_adds_or_drops_everything() {
        assert_eq!(set(&["ALL"], &[]).len(), 41);
        assert_eq!(set(&["ALL"], &["MKNOD"]).len(), 40);
        assert!(set(&[], &["ALL"]).is_empty());
        assert_eq!(set(&["CHOWN", "KILL"], &["all"]), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(set(&["CHOWN"], &[]).len(), 14);
        assert_eq!(set(&[], &["CHOWN,KILL"]).len(), 12);
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = CapabilityChange::parse(&["FLY".into()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "unknown capability to add: \"FLY\"");
    }
}
