//! What the container shares with the host or with another container, and the names in what it does not.

use anyhow::{Result, bail, ensure};

use super::is_plain_name;

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "namespaces")]
pub(super) struct Words {
    /// Processes it sees: private (the default), host, or container:ID for those of another
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// Shared memory: private (the default), shareable, none, host, or container:ID of a shareable one
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Host name: private (the default), or host for the host's own
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// What it sees of cgroups: private, or host for all [default: private with cgroup v2]
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// The cgroup in which its own is made; NAME.slice for `runtime --systemd-cgroup`
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// NIS domain name inside the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
}

/// Checked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Namespaces {
    pub(crate) pid: Shared,
    pub(crate) ipc: Shared,
    pub(crate) memory: Memory,
    /// The host's name is the container's.
    pub(crate) host_uts: bool,
    /// `None` as the host's version of cgroups has it.
    pub(crate) own_cgroup: Option<bool>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) domainname: Option<String>,
}

/// With whom a namespace is shared.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Shared {
    #[default]
    Nobody,
    Host,
    /// By the id or name of the container.
    Container(String),
}

/// Who else gets at /dev/shm of an IPC namespace of the container's own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    #[default]
    Private,
    /// Containers that join it.
    Shareable,
    /// There is none.
    None,
}

impl Words {
    pub(super) fn resolve(self) -> Result<Namespaces> {
        let Self { pid, ipc, uts, cgroupns, cgroup_parent, domainname } = self;
        let (ipc, memory) = match ipc.as_deref() {
            Some("shareable") => (Shared::Nobody, Memory::Shareable),
            Some("none") => (Shared::Nobody, Memory::None),
            word => (
                Shared::parse("--ipc", word, "private, shareable, none, host or container:ID")?,
                Memory::Private,
            ),
        };
        let host_uts = match Shared::parse("--uts", uts.as_deref(), "private or host")? {
            Shared::Nobody => false,
            Shared::Host => true,
            Shared::Container(_) => {
                bail!("--uts is private or host: --network container:ID shares a name")
            }
        };
        let own_cgroup = match cgroupns.as_deref() {
            None | Some("") => None,
            Some("host") => Some(false),
            Some("private") => Some(true),
            Some(other) => bail!("invalid --cgroupns {other:?}: use private or host"),
        };
        if let Some(parent) = &cgroup_parent {
            check_parent(parent)?;
        }
        if let Some(name) = &domainname {
            ensure!(
                !name.is_empty() && name.len() <= 64 && is_plain_name(name),
                "invalid --domainname {name:?}: letters, digits, '.', '-' and '_', at most 64 of them"
            );
            ensure!(
                !host_uts,
                "--domainname can't be used with --uts host: it would be the host's"
            );
        }
        let pid = Shared::parse("--pid", pid.as_deref(), "private, host or container:ID")?;
        Ok(Namespaces { pid, ipc, memory, host_uts, own_cgroup, cgroup_parent, domainname })
    }
}

impl Shared {
    fn parse(flag: &str, word: Option<&str>, all: &str) -> Result<Self> {
        match word.unwrap_or_default() {
            "" | "private" => Ok(Self::Nobody),
            "host" => Ok(Self::Host),
            word => match word.strip_prefix("container:") {
                Some(container) if is_plain_name(container) => {
                    Ok(Self::Container(container.to_owned()))
                }
                _ => bail!("invalid {flag} {word:?}: use {all}"),
            },
        }
    }
}

/// A path from the top of the hierarchy, or a slice of systemd's.
fn check_parent(path: &str) -> Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\n', ':']);
    let relative = path.strip_prefix('/').unwrap_or(path);
    ensure!(
        relative.split('/').all(plain),
        "invalid --cgroup-parent {path:?}: a path such as /group, or the name of a slice"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        let read = |flag: &str, word: &str| {
            let mut words = Words::default();
            let place = match flag {
                "pid" => &mut words.pid,
                "ipc" => &mut words.ipc,
                "uts" => &mut words.uts,
                "cgroupns" => &mut words.cgroupns,
                _ => &mut words.cgroup_parent,
            };
            *place = Some(word.to_owned());
            words.resolve()
        };
        assert_eq!(read("pid", "host").unwrap().pid, Shared::Host);
        assert_eq!(read("pid", "container:c1").unwrap().pid, Shared::Container("c1".into()));
        assert_eq!(read("ipc", "none").unwrap().memory, Memory::None);
        assert_eq!(read("ipc", "private").unwrap(), Namespaces::default());
        assert_eq!(read("cgroupns", "host").unwrap().own_cgroup, Some(false));
        for good in ["/a/b", "a", "user.slice"] {
            assert!(read("parent", good).is_ok(), "{good}");
        }
        for (flag, bad) in [
            ("pid", "shareable"),
            ("pid", "container:"),
            ("pid", "container:../x"),
            ("ipc", "x"),
            ("uts", "container:c1"),
            ("cgroupns", "container:c1"),
            ("parent", ""),
            ("parent", "/"),
            ("parent", "/a/../b"),
            ("parent", "a:b"),
        ] {
            assert!(read(flag, bad).is_err(), "{flag} {bad}");
        }
    }
}
