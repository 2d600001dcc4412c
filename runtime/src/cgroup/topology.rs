//! Where cgroups are mounted and where we are in them: `/proc/self/mountinfo` and
//! `/proc/self/cgroup`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::files::{self, Kind};
use crate::plan::cgroup::Mode;
use crate::procfs::unescape;

const UNIFIED: &str = "/sys/fs/cgroup";
const HYBRID: &str = "/sys/fs/cgroup/unified";
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// The v1 hierarchies we join, as runc does: other named ones belong to their makers.
const KNOWN: [&str; 14] = [
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "name=systemd",
];

/// One mounted hierarchy and our own place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Empty for the unified hierarchy.
    pub(super) controllers: Vec<String>,
    pub(super) mount: PathBuf,
    /// The directory of our own cgroup beneath the mount; `None` where it can't be seen there.
    pub(super) own: Option<PathBuf>,
}

impl Mode {
    /// How this mount namespace shows cgroups. Two calls where cgroups lie where they always do.
    pub(crate) fn probe() -> Result<Self> {
        if files::kind(Path::new(UNIFIED))? == Some(Kind::V2) {
            return Ok(Self::V2);
        }
        if files::kind(Path::new(HYBRID))? == Some(Kind::V2) {
            return Ok(Self::Hybrid);
        }
        let mounts = listed(|_| false)?;
        let any = |unified| mounts.iter().any(|mount| mount.controllers.is_empty() == unified);
        Ok(match (any(false), any(true)) {
            (true, true) => Self::Hybrid,
            (false, true) => Self::V2,
            (_, false) => Self::V1,
        })
    }
}

/// The hierarchies that a container joins.
pub(super) fn places(mode: Mode) -> Result<Vec<Place>> {
    let own = own(&read("/proc/self/cgroup")?);
    let mounts = match mode {
        Mode::V2 => unified_mounts(&own)?,
        Mode::V1 | Mode::Hybrid => listed(|found| {
            own.iter()
                .filter(|place| is_wanted(mode, place))
                .all(|(controllers, _)| found.iter().any(|mount| mount.shows(controllers)))
        })?,
    };
    match_places(mode, &own, &mounts)
}

/// The directory of a process in the unified hierarchy; `None` if it has ended or can't be seen.
pub(super) fn unified_path_of(pid: i32) -> Result<Option<PathBuf>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = match crate::pseudo::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {path}")),
    };
    let own = own(&text);
    let places = match_places(Mode::V2, &own, &unified_mounts(&own)?)?;
    Ok(places.into_iter().next().and_then(|place| place.own))
}

/// The mount of the unified hierarchy: where it always is if it shows our own cgroup there, which
/// a mount of a part of it does not, else what the kernel lists.
fn unified_mounts(own: &[(Vec<String>, PathBuf)]) -> Result<Vec<Mount>> {
    let (root, point) = (PathBuf::from("/"), PathBuf::from(UNIFIED));
    let mount = Mount { controllers: Vec::new(), root, point };
    let seen = own
        .iter()
        .find(|(controllers, _)| controllers.is_empty())
        .and_then(|(_, path)| visible_beneath(&mount, path));
    match seen {
        Some(path) if files::kind(&path)? == Some(Kind::V2) => Ok(vec![mount]),
        _ => listed(|found| found.iter().any(|mount| mount.controllers.is_empty())),
    }
}

/// The mounts of cgroups that the kernel lists, until there are `enough` of them. Hosts have them
/// since they booted, and those of a thousand containers, of which each line costs time, after them.
fn listed(enough: impl Fn(&[Mount]) -> bool) -> Result<Vec<Mount>> {
    let reading = || format!("read {MOUNT_TABLE}");
    // The kernel makes as many lines as are asked for at a time.
    let table = BufReader::with_capacity(4096, File::open(MOUNT_TABLE).with_context(reading)?);
    until_enough(table, enough).with_context(reading)
}

fn until_enough(
    mut table: impl BufRead,
    enough: impl Fn(&[Mount]) -> bool,
) -> std::io::Result<Vec<Mount>> {
    let (mut found, mut line) = (Vec::new(), Vec::new());
    while table.read_until(b'\n', &mut line)? > 0 {
        if let Some(mount) = mount(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
            found.push(mount);
            if enough(&found) {
                break;
            }
        }
        line.clear();
    }
    Ok(found)
}

/// Whether a hierarchy of /proc/self/cgroup is one that containers join.
fn is_wanted(mode: Mode, (controllers, _): &(Vec<String>, PathBuf)) -> bool {
    match mode {
        Mode::V1 | Mode::Hybrid if !controllers.is_empty() => {
            controllers.iter().any(|name| KNOWN.contains(&name.as_str()))
        }
        Mode::V1 => false,
        Mode::Hybrid => true,
        Mode::V2 => controllers.is_empty(),
    }
}

fn match_places(
    mode: Mode,
    own: &[(Vec<String>, PathBuf)],
    mounts: &[Mount],
) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for place @ (controllers, path) in own {
        if !is_wanted(mode, place) {
            continue;
        }
        let mount = mounts.iter().find(|mount| mount.shows(controllers));
        // What is not mounted can't be joined, and its limits are refused later.
        let Some(mount) = mount else { continue };
        places.push(Place {
            controllers: controllers.clone(),
            mount: mount.point.clone(),
            own: visible_beneath(mount, path),
        });
    }
    if places.is_empty() {
        bail!("no cgroup mount found in mountinfo");
    }
    Ok(places)
}

/// A mount may show a part of the hierarchy only (a container without a cgroup namespace), and
/// a path that climbs out of the cgroup namespace is not beneath anything.
fn visible_beneath(mount: &Mount, own: &Path) -> Option<PathBuf> {
    let rest = own.strip_prefix(&mount.root).ok()?;
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| mount.point.join(rest))
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Mount options, controllers and names among them; empty for the unified hierarchy.
    controllers: Vec<String>,
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Whether this is a mount of the hierarchy with these controllers; of the unified one, with none.
    fn shows(&self, controllers: &[String]) -> bool {
        match controllers.first() {
            None => self.controllers.is_empty(),
            Some(first) => self.controllers.contains(first),
        }
    }
}

/// `ID PARENT DEV ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE SUPER-OPTIONS`
fn mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, point) = (unescape(head.next()?), unescape(head.next()?));
    let mut tail = tail.split(' ');
    let controllers = match tail.next()? {
        "cgroup" => tail.nth(1)?.split(',').map(str::to_owned).collect(),
        "cgroup2" => Vec::new(),
        _ => return None,
    };
    Some(Mount { controllers, root: root.into(), point: point.into() })
}

/// `ID:CONTROLLER,…:PATH`, the unified hierarchy with no controller.
fn own(text: &str) -> Vec<(Vec<String>, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            let controllers =
                controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
            Some((controllers.collect(), PathBuf::from(path)))
        })
        .collect()
}

fn read(path: &str) -> Result<String> {
    crate::pseudo::read_to_string(path).with_context(|| format!("read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /outer /sys/fs/cgroup/mem\\040ory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const OWN: &str = "\
12:pids:/
9:name=systemd:/a
8:name=elogind:/a
4:memory:/outer/b
2:cpu,cpuacct:/../up
0::/u:v
";

    fn mounts(table: &str, enough: impl Fn(&[Mount]) -> bool) -> Vec<Mount> {
        until_enough(table.as_bytes(), enough).unwrap()
    }

    fn found(mode: Mode) -> Vec<(String, String, Option<String>)> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        match_places(mode, &own(OWN), &mounts(HYBRID_MOUNTS, |_| false))
            .unwrap()
            .into_iter()
            .map(|place| (place.controllers.join(","), text(place.mount), place.own.map(text)))
            .collect()
    }

    fn place(name: &str, mount: &str, own: Option<&str>) -> (String, String, Option<String>) {
        (name.to_owned(), mount.to_owned(), own.map(str::to_owned))
    }

    #[test]
    fn own_places_are_found_beneath_the_mounts() {
        let v1 = [
            place("name=systemd", "/sys/fs/cgroup/systemd", Some("/sys/fs/cgroup/systemd/a")),
            place("memory", "/sys/fs/cgroup/mem ory", Some("/sys/fs/cgroup/mem ory/b")),
            place("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", None),
        ];
        let unified = place("", "/sys/fs/cgroup/unified", Some("/sys/fs/cgroup/unified/u:v"));
        assert_eq!(found(Mode::V1), v1);
        assert_eq!(found(Mode::V2), std::slice::from_ref(&unified));
        assert_eq!(found(Mode::Hybrid), v1.into_iter().chain([unified]).collect::<Vec<_>>());
    }

    #[test]
    fn the_table_is_read_as_far_as_it_is_needed() {
        assert_eq!(mounts(HYBRID_MOUNTS, |_| false).len(), 4);
        let memory = ["memory".to_owned()];
        let read = mounts(HYBRID_MOUNTS, |found| found.iter().any(|mount| mount.shows(&memory)));
        assert!(read.last().is_some_and(|mount| mount.shows(&memory)));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn a_host_without_cgroups_is_told() {
        let error = match_places(Mode::V1, &own(OWN), &[]).unwrap_err();
        assert_eq!(error.to_string(), "no cgroup mount found in mountinfo");
    }
}
