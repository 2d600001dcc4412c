//! Which namespaces are made, which are joined, and the id maps of a new user namespace.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::spec::{IdMapping, Linux};

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Pid,
        Kind::Network,
        Kind::Mount,
        Kind::Ipc,
        Kind::Uts,
        Kind::User,
        Kind::Cgroup,
        Kind::Time,
    ];

    /// The kind that config.json calls `name`.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(kind),
            None => bail!("namespace {name:?} does not exist"),
        }
    }

    /// Its name in config.json.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Pid => "pid",
            Kind::Network => "network",
            Kind::Mount => "mount",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::User => "user",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
        }
    }

    /// Its name in /proc/PID/ns.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Kind::Network => "net",
            Kind::Mount => "mnt",
            other => other.name(),
        }
    }

    /// Its `CLONE_NEW*` bit.
    pub(crate) fn flag(self) -> u64 {
        let flag = match self {
            Kind::Pid => libc::CLONE_NEWPID,
            Kind::Network => libc::CLONE_NEWNET,
            Kind::Mount => libc::CLONE_NEWNS,
            Kind::Ipc => libc::CLONE_NEWIPC,
            Kind::Uts => libc::CLONE_NEWUTS,
            Kind::User => libc::CLONE_NEWUSER,
            Kind::Cgroup => libc::CLONE_NEWCGROUP,
            Kind::Time => libc::CLONE_NEWTIME,
        };
        u64::from(flag.cast_unsigned())
    }
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    /// To be made.
    pub(crate) new: Vec<Kind>,
    /// To be joined, by the path of each.
    pub(crate) join: Vec<(Kind, PathBuf)>,
    /// The lines of `uid_map` and `gid_map`; empty without a new user namespace.
    pub(crate) uid_map: String,
    pub(crate) gid_map: String,
    /// The lines of `timens_offsets`.
    pub(crate) time_offsets: String,
}

impl Namespaces {
    /// Reads `linux.namespaces` and what belongs to them.
    pub(crate) fn plan(linux: &Linux) -> Result<Self> {
        let mut plan = Namespaces::default();
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let kind = Kind::parse(&namespace.kind)
                .with_context(|| format!("linux.namespaces[{index}].type"))?;
            if plan.has(kind) {
                bail!(
                    "linux.namespaces[{index}].type: malformed spec file: duplicated ns {:?}",
                    namespace.kind
                );
            }
            if namespace.path.is_empty() {
                plan.new.push(kind);
            } else {
                plan.join.push((kind, PathBuf::from(&namespace.path)));
            }
        }
        if plan.is_new(Kind::User) {
            plan.uid_map = id_map(&linux.uid_mappings);
            plan.gid_map = id_map(&linux.gid_mappings);
        }
        for (clock, offset) in &linux.time_offsets {
            // Writing to a String can't fail.
            let _ = writeln!(plan.time_offsets, "{clock} {} {}", offset.secs, offset.nanosecs);
        }
        Ok(plan)
    }

    /// The container does not share this kind with its host.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.is_new(kind) || self.join.iter().any(|(joined, _)| *joined == kind)
    }

    /// The container gets one of its own.
    pub(crate) fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// The container joins another's.
    pub(crate) fn joins(&self, kind: Kind) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }

    /// What clone3 makes. The cgroup namespace has to wait until the process is in its cgroup,
    /// clocks can only be set before anybody is in the time namespace, and see
    /// [`Namespaces::late_ipc`].
    pub(crate) fn clone_flags(&self) -> u64 {
        let late = |kind: &&Kind| match kind {
            Kind::Cgroup | Kind::Time => false,
            Kind::Ipc => !self.late_ipc(),
            _ => true,
        };
        self.new.iter().filter(late).fold(0, |flags, kind| flags | kind.flag())
    }

    /// The message queues of an IPC namespace belong to whoever made it: in a user namespace that
    /// has to be its root.
    pub(crate) fn late_ipc(&self) -> bool {
        self.is_new(Kind::Ipc) && self.has(Kind::User)
    }

    /// All that the container does not share with its host.
    pub(crate) fn all_flags(&self) -> u64 {
        let joined = self.join.iter().map(|(kind, _)| kind);
        self.new.iter().chain(joined).fold(0, |flags, kind| flags | kind.flag())
    }
}

/// As the kernel reads it.
pub(super) fn id_map(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut map, mapping| {
        // Writing to a String can't fail.
        let _ =
            writeln!(map, "{} {} {}", mapping.container_id(), mapping.host_id(), mapping.size());
        map
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: &str) -> Linux {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_path_means_to_join() {
        let plan = Namespaces::plan(&linux(
            r#"{"namespaces":[{"type":"pid"},{"type":"network","path":"/n"},{"type":"cgroup"}]}"#,
        ))
        .unwrap();
        assert!(plan.is_new(Kind::Pid) && plan.joins(Kind::Network) && !plan.has(Kind::User));
        assert_eq!(plan.clone_flags(), Kind::Pid.flag());
    }

    #[test]
    fn a_kind_may_come_only_once() {
        let error = Namespaces::plan(&linux(r#"{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#));
        assert!(error.unwrap_err().to_string().contains("duplicated ns"));
    }

    #[test]
    fn maps_are_written_as_the_kernel_reads_them() {
        let plan = Namespaces::plan(&linux(
            r#"{"namespaces":[{"type":"user"},{"type":"time"}],
                "uidMappings":[{"containerID":0,"hostID":1000,"size":10}],
                "timeOffsets":{"boottime":{"secs":5}}}"#,
        ))
        .unwrap();
        assert_eq!(plan.uid_map, "0 1000 10\n");
        assert_eq!(plan.time_offsets, "boottime 5 0\n");
    }
}
