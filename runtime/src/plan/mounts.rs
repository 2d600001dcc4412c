//! Mounts: the words of their options become flags, decided before anything is mounted.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::namespaces::id_map;
use crate::rooted::clean;
use crate::spec::{IdMapping, Mount};

mod options;

use options::{Effect, OPTIONS};

/// The words that are options of ours and not the file system's, sorted.
pub(crate) fn option_words() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(word, ..)| *word)
}

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind {
        recursive: bool,
    },
    Proc,
    Sysfs,
    Tmpfs,
    Mqueue,
    /// By the type `cgroup`: whichever version the host has.
    Cgroup,
    /// A file system without a device, whose options are words and `key=value`.
    Virtual,
    /// Any other, whose data only it understands.
    Other,
}

/// Attributes of a mount to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: Bits,
    pub(crate) clear: Bits,
    /// Some word asked for something, be it only that nothing be set.
    named: bool,
}

/// `MOUNT_ATTR_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits(pub(crate) MountAttrFlags);

impl Default for Bits {
    fn default() -> Self {
        Bits(MountAttrFlags::empty())
    }
}

impl Attributes {
    /// Nothing is asked for.
    pub(crate) fn is_empty(self) -> bool {
        !self.named
    }

    /// How access times are kept is to be changed. Unless it is, a bind keeps the source's way, as
    /// mount(8) has it.
    pub(crate) fn changes_access_times(self) -> bool {
        self.clear.0.contains(MountAttrFlags::MOUNT_ATTR__ATIME)
            || self.set.0.contains(MountAttrFlags::MOUNT_ATTR_NODIRATIME)
    }

    fn access_times(&mut self, mode: MountAttrFlags, on: bool) {
        self.named = true;
        let all = MountAttrFlags::MOUNT_ATTR__ATIME;
        if on {
            self.change(mode, true);
        } else if self.set.0.intersection(all) == mode {
            self.set.0.remove(all);
            self.clear.0.remove(all);
        }
    }

    /// The last of two opposite words wins.
    fn change(&mut self, flag: MountAttrFlags, on: bool) {
        self.named = true;
        let atime = MountAttrFlags::MOUNT_ATTR__ATIME;
        // The three access time modes are one field, of which relatime is the zero.
        let mask = if atime.contains(flag) || flag.is_empty() { atime } else { flag };
        self.set.0.remove(mask);
        self.clear.0.remove(mask);
        if mask == atime {
            // The kernel takes a change of this field only with all of it cleared.
            self.clear.0.insert(atime);
            if on {
                self.set.0.insert(flag);
            }
        } else if on {
            self.set.0.insert(flag);
        } else {
            self.clear.0.insert(flag);
        }
    }
}

/// One mount, decided.
#[derive(Clone, Debug)]
pub(crate) struct MountPlan {
    pub(crate) kind: Kind,
    /// The type as the kernel knows it.
    pub(crate) filesystem: String,
    /// For a bind an absolute path on the host.
    pub(crate) source: PathBuf,
    /// As config.json has it, for messages.
    pub(crate) destination: PathBuf,
    /// Relative to the root and clean.
    pub(crate) target: PathBuf,
    pub(crate) attributes: Attributes,
    pub(crate) recursive: Attributes,
    /// Words for the file system as a whole: `ro`, `sync`, `dirsync`, `mand`, `lazytime`.
    pub(crate) superblock: Vec<&'static str>,
    pub(crate) propagation: Vec<(MountPropagationFlags, bool)>,
    /// What is left for the file system itself.
    pub(crate) data: Vec<String>,
    /// Fill a tmpfs with what it hides.
    pub(crate) copy_up: bool,
    pub(crate) remount: bool,
    pub(crate) id_map: Option<IdMap>,
    /// `MS_*` names, for messages.
    pub(crate) flag_names: Vec<&'static str>,
}

/// Files of the mount belong to other ids than on the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMap {
    pub(crate) recursive: bool,
    /// The maps of the uids and of the gids, as the kernel reads them; absent are those of the
    /// container's user namespace.
    pub(crate) maps: Option<(String, String)>,
}

impl MountPlan {
    /// Nothing is to be writable through it, once all is in place.
    pub(crate) fn read_only(&self) -> bool {
        self.attributes.set.0.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }
}

/// Where in the root a mount comes. A path of the host's that leads into the root is taken as one
/// of the container's, as runc takes it.
pub(crate) fn target(destination: &Path, rootfs: &Path) -> PathBuf {
    let inside = destination.strip_prefix(rootfs).ok().filter(|_| rootfs != Path::new("/"));
    clean(inside.unwrap_or(destination))
}

/// Options of a tmpfs that generic lists of options carry, so that they stand on binds as well.
const TMPFS_OPTIONS: [&str; 6] = ["gid", "mode", "nr_blocks", "nr_inodes", "size", "uid"];

/// Decides all mounts, in the order given; relative sources of binds start at the bundle. What a
/// bind can't take and harmlessly goes without is added to `warnings`.
pub(crate) fn plan(
    mounts: &[Mount],
    bundle: &Path,
    rootfs: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<MountPlan>> {
    let planned = |(index, mount)| {
        let plan = plan_one(mount, bundle, rootfs).with_context(|| format!("mounts[{index}]"))?;
        if matches!(plan.kind, Kind::Bind { .. }) && !plan.data.is_empty() {
            let (place, data) = (plan.destination.display(), plan.data.join(","));
            warnings.push(format!("mounts[{index}]: {place} is a bind mount: ignoring {data}"));
        }
        Ok(plan)
    };
    mounts.iter().enumerate().map(planned).collect()
}

fn plan_one(mount: &Mount, bundle: &Path, rootfs: &Path) -> Result<MountPlan> {
    let filesystem = mount.typ().clone().unwrap_or_default();
    let mut plan = MountPlan {
        kind: Kind::Other,
        source: mount.source().clone().unwrap_or_default(),
        destination: mount.destination().clone(),
        target: target(mount.destination(), rootfs),
        attributes: Attributes::default(),
        recursive: Attributes::default(),
        superblock: Vec::new(),
        propagation: Vec::new(),
        data: Vec::new(),
        copy_up: false,
        remount: false,
        id_map: None,
        flag_names: Vec::new(),
        filesystem,
    };
    let mut bind = (plan.filesystem == "bind").then_some(false);
    for word in mount.options().iter().flatten() {
        let Some((_, effect, name)) = OPTIONS.iter().find(|(known, ..)| known == word) else {
            plan.data.push(word.clone());
            continue;
        };
        match *effect {
            Effect::Bind { recursive } => bind = Some(recursive || bind == Some(true)),
            Effect::Attribute(flag, on) => plan.attributes.change(flag, on),
            Effect::AccessTimes(mode, on) => plan.attributes.access_times(mode, on),
            Effect::Recursive(flag, on) => plan.recursive.change(flag, on),
            Effect::Propagation(flag, recursive) => plan.propagation.push((flag, recursive)),
            Effect::Superblock(word, on) => {
                plan.superblock.retain(|other| *other != word);
                if on {
                    plan.superblock.push(word);
                }
            }
            Effect::CopyUp => plan.copy_up = true,
            Effect::Remount => plan.remount = true,
            Effect::Idmap { recursive } => {
                plan.id_map = Some(IdMap { recursive, maps: None });
            }
            Effect::Nothing => {}
        }
        if !name.is_empty() {
            plan.flag_names.push(name);
        }
    }
    finish(&mut plan, mount, bind, bundle)?;
    Ok(plan)
}

fn finish(plan: &mut MountPlan, mount: &Mount, bind: Option<bool>, bundle: &Path) -> Result<()> {
    let map = |list: &Option<Vec<IdMapping>>| list.as_deref().map(id_map).unwrap_or_default();
    let (uids, gids) = (map(mount.uid_mappings()), map(mount.gid_mappings()));
    match (uids.is_empty(), gids.is_empty()) {
        (true, true) => {}
        (false, false) => plan.id_map.get_or_insert_default().maps = Some((uids, gids)),
        _ => bail!("id mappings are for uids and gids, or for neither"),
    }
    if plan.id_map.is_some() && bind.is_none() {
        bail!("idmap, ridmap and id mappings are for bind mounts only");
    }
    if let Some(recursive) = bind {
        // Anything else may be a flag misspelt, or a label: going on would give less than was asked.
        let harmless = |word: &String| {
            word.split_once('=').is_some_and(|(key, _)| TMPFS_OPTIONS.contains(&key))
        };
        if let Some(word) = plan.data.iter().find(|word| !harmless(word)) {
            bail!(
                "bind mounts cannot have any filesystem-specific options applied: {} has {word:?}",
                plan.destination.display()
            );
        }
        plan.kind = Kind::Bind { recursive };
        plan.source = bundle.join(&plan.source);
        return Ok(());
    }
    plan.kind = match plan.filesystem.as_str() {
        "proc" => Kind::Proc,
        "sysfs" => Kind::Sysfs,
        "tmpfs" => Kind::Tmpfs,
        "mqueue" => Kind::Mqueue,
        "cgroup" => Kind::Cgroup,
        "devpts" | "cgroup2" | "ramfs" | "bpf" | "debugfs" | "tracefs" | "securityfs"
        | "hugetlbfs" | "binfmt_misc" | "pstore" => Kind::Virtual,
        _ => Kind::Other,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(options: &str) -> Result<MountPlan> {
        let json =
            format!(r#"{{"destination":"/x","type":"tmpfs","source":"s","options":{options}}}"#);
        plan_one(
            &serde_json::from_str(&json).unwrap(),
            Path::new("/bundle"),
            Path::new("/bundle/r"),
        )
    }

    #[test]
    fn the_last_of_two_opposites_wins() {
        let plan = planned(r#"["ro","nosuid","rw","suid","nosuid","exec"]"#).unwrap();
        assert_eq!(plan.attributes.set.0, MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert!(plan.attributes.clear.0.contains(MountAttrFlags::MOUNT_ATTR_NOEXEC));
        assert!(!plan.read_only());
    }

    #[test]
    fn a_bind_keeps_its_access_times_unless_another_way_is_named() {
        for (options, changes) in [
            (r#"["bind","atime"]"#, false),
            (r#"["bind","norelatime","diratime"]"#, false),
            (r#"["bind","noatime","atime"]"#, false),
            (r#"["bind","relatime"]"#, true),
            (r#"["bind","relatime","atime"]"#, true),
            (r#"["bind","nodiratime"]"#, true),
        ] {
            let attributes = planned(options).unwrap().attributes;
            assert_eq!(attributes.changes_access_times(), changes, "{options}");
            assert!(!attributes.is_empty());
        }
    }

    #[test]
    fn a_path_of_the_host_into_the_root_is_one_of_the_container() {
        let rootfs = Path::new("/b/r");
        assert_eq!(target(Path::new("/b/r/x"), rootfs), Path::new("x"));
        assert_eq!(target(Path::new("/b/rx"), rootfs), Path::new("b/rx"));
        assert_eq!(target(Path::new("/x"), Path::new("/")), Path::new("x"));
    }

    #[test]
    fn owners_are_mapped_for_binds_only() {
        let id_map = planned(r#"["rbind","ridmap"]"#).unwrap().id_map.unwrap();
        assert_eq!(id_map, IdMap { recursive: true, maps: None });
        assert!(planned(r#"["idmap"]"#).is_err());
    }

    #[test]
    fn access_time_modes_replace_each_other() {
        let plan = planned(r#"["noatime","strictatime"]"#).unwrap();
        assert_eq!(plan.attributes.set.0, MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        assert_eq!(plan.attributes.clear.0, MountAttrFlags::MOUNT_ATTR__ATIME);
    }

    #[test]
    fn unknown_words_go_to_the_file_system() {
        let plan = planned(r#"["size=64k","mode=755","tmpcopyup"]"#).unwrap();
        assert_eq!(plan.data, ["size=64k", "mode=755"]);
        assert!(plan.copy_up);
    }

    #[test]
    fn a_bind_starts_at_the_bundle_and_takes_no_data() {
        let plan = planned(r#"["rbind","rro"]"#).unwrap();
        assert_eq!(plan.kind, Kind::Bind { recursive: true });
        assert_eq!(plan.source, Path::new("/bundle/s"));
        assert_eq!(plan.recursive.set.0, MountAttrFlags::MOUNT_ATTR_RDONLY);
        for refused in [r#"["bind","readonly"]"#, r#"["bind","size=1","context=x"]"#] {
            let error = planned(refused).unwrap_err().to_string();
            assert!(error.starts_with("bind mounts cannot have any filesystem-specific options"));
        }
    }

    #[test]
    fn what_generic_lists_carry_for_a_tmpfs_is_left_out_of_a_bind_with_a_warning() {
        let json =
            r#"[{"destination":"/x","source":"/s","options":["bind","size=1k","mode=755"]}]"#;
        let mut warnings = Vec::new();
        let mounts: Vec<Mount> = serde_json::from_str(json).unwrap();
        plan(&mounts, Path::new("/bundle"), Path::new("/bundle/r"), &mut warnings).unwrap();
        assert_eq!(warnings, ["mounts[0]: /x is a bind mount: ignoring size=1k,mode=755"]);
    }

    #[test]
    fn propagation_words_keep_their_order() {
        let plan = planned(r#"["rslave","shared"]"#).unwrap();
        assert_eq!(
            plan.propagation,
            [(MountPropagationFlags::DOWNSTREAM, true), (MountPropagationFlags::SHARED, false)]
        );
    }
}
