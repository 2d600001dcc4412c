//! The process: argv, environment, ids, capabilities and limits, as the kernel takes them.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::scheduling::{self, Scheduling};
use crate::spec::{Capabilities, Linux, Process, Rlimit};

/// All that turns the cloned child into the container's process.
#[derive(Clone, Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) argv: Vec<CString>,
    /// The last of several values of one name.
    pub(crate) env: Vec<CString>,
    /// `PATH` of that environment.
    pub(crate) search_path: String,
    /// HOME is missing or empty, and to be taken from /etc/passwd.
    pub(crate) needs_home: bool,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: u32,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<(u16, u16)>,
    /// `None` leaves everything as inherited.
    pub(crate) capabilities: Option<CapabilityPlan>,
    pub(crate) limits: Vec<LimitPlan>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) apparmor_profile: String,
    pub(crate) selinux_label: String,
    pub(crate) scheduling: Scheduling,
}

/// The five sets, one bit per capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilityPlan {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) inheritable: u64,
    pub(crate) permitted: u64,
    pub(crate) ambient: u64,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitPlan {
    /// `RLIMIT_*`
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Decides all about the process; what it leaves out, as runc does, is added to `warnings`.
pub(crate) fn plan(
    process: &Process,
    linux: &Linux,
    warnings: &mut Vec<String>,
) -> Result<ProcessPlan> {
    let env = environment(&process.env)?;
    let value = |name: &str| {
        env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=')).unwrap_or("")
    };
    let search_path = value("PATH").to_owned();
    let needs_home = value("HOME").is_empty();
    let kept = env.iter().filter(|entry| !needs_home || !entry.starts_with("HOME="));
    Ok(ProcessPlan {
        argv: c_strings(process.args.iter().map(String::as_str), "args", "argument")?,
        env: c_strings(kept.map(|entry| &**entry), "env", "environment variable")?,
        search_path,
        needs_home,
        cwd: process.cwd.clone(),
        uid: id(process.user.uid).context("process.user.uid")?,
        gid: id(process.user.gid).context("process.user.gid")?,
        groups: process
            .user
            .additional_gids
            .iter()
            .map(|&gid| id(gid))
            .collect::<Result<Vec<u32>>>()
            .context("process.user.additionalGids")?,
        umask: process.user.umask.unwrap_or(0o022) & 0o777,
        terminal: process.terminal,
        console_size: process.console_size.map(|size| (size.height, size.width)),
        capabilities: process.capabilities.as_ref().map(|sets| capabilities(sets, warnings)),
        limits: limits(&process.rlimits)?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        apparmor_profile: process.apparmor_profile.clone(),
        selinux_label: process.selinux_label.clone(),
        scheduling: scheduling::plan(process, linux, warnings)?,
    })
}

impl ProcessPlan {
    /// Who joins a container is confined like its first process, unless told otherwise.
    pub(crate) fn inherit_labels(&mut self, first: &Process) {
        for (own, inherited) in [
            (&mut self.apparmor_profile, &first.apparmor_profile),
            (&mut self.selinux_label, &first.selinux_label),
        ] {
            if own.is_empty() {
                own.clone_from(inherited);
            }
        }
    }
}

/// The kernel takes the highest id for "leave as it is", which would be root.
fn id(id: u32) -> Result<u32> {
    if id > i32::MAX.cast_unsigned() {
        bail!("uids and gids must be in range 0-{}", i32::MAX);
    }
    Ok(id)
}

fn c_strings<'a>(
    words: impl Iterator<Item = &'a str>,
    field: &str,
    what: &str,
) -> Result<Vec<CString>> {
    let planned = |(index, word)| {
        CString::new(word)
            .with_context(|| format!("process.{field}[{index}]: invalid {what} {word:?}"))
    };
    words.enumerate().map(planned).collect()
}

fn environment(entries: &[String]) -> Result<Vec<&str>> {
    let mut kept: Vec<&str> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=') else {
            bail!("process.env[{index}]: invalid environment variable: missing '=' in {entry:?}");
        };
        if name.is_empty() {
            bail!(
                "process.env[{index}]: invalid environment variable: name cannot be empty in {entry:?}"
            );
        }
        let same = |other: &&str| other.split_once('=').is_some_and(|(other, _)| other == name);
        match kept.iter().position(same) {
            Some(earlier) => kept[earlier] = entry,
            None => kept.push(entry),
        }
    }
    Ok(kept)
}

fn capabilities(sets: &Capabilities, warnings: &mut Vec<String>) -> CapabilityPlan {
    let mut unknown = BTreeSet::new();
    let plan = CapabilityPlan {
        bounding: bits(&sets.bounding, &mut unknown),
        effective: bits(&sets.effective, &mut unknown),
        inheritable: bits(&sets.inheritable, &mut unknown),
        permitted: bits(&sets.permitted, &mut unknown),
        ambient: bits(&sets.ambient, &mut unknown),
    };
    if !unknown.is_empty() {
        let names = Vec::from_iter(unknown).join(" ");
        warnings.push(format!("ignoring unknown or unavailable capabilities: [{names}]"));
    }
    plan
}

fn bits<'a>(names: &'a [String], unknown: &mut BTreeSet<&'a str>) -> u64 {
    names.iter().fold(0, |bits, name| match caps::Capability::from_str(name) {
        Ok(capability) => bits | 1 << capability.index(),
        Err(_) => {
            unknown.insert(name);
            bits
        }
    })
}

const LIMITS: [(&str, libc::__rlimit_resource_t); 16] = [
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
];

fn limits(limits: &[Rlimit]) -> Result<Vec<LimitPlan>> {
    let planned = |(index, it)| limit(it).with_context(|| format!("process.rlimits[{index}].type"));
    limits.iter().enumerate().map(planned).collect()
}

fn limit(limit: &Rlimit) -> Result<LimitPlan> {
    let Some((_, resource)) = LIMITS.iter().find(|(name, _)| *name == limit.kind) else {
        bail!("wrong rlimit value: {}", limit.kind);
    };
    Ok(LimitPlan { resource: *resource, soft: limit.soft, hard: limit.hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<(ProcessPlan, Vec<String>)> {
        let mut warnings = Vec::new();
        let plan = plan(&serde_json::from_str(json).unwrap(), &Linux::default(), &mut warnings)?;
        Ok((plan, warnings))
    }

    #[test]
    fn unknown_capabilities_make_one_warning() {
        let (plan, warnings) = planned(
            r#"{"capabilities":{"bounding":["CAP_NOPE","CAP_CHOWN"],"effective":["CAP_NOPE","CAP_A"],
                "permitted":["CAP_KILL"]}}"#,
        )
        .unwrap();
        assert_eq!(warnings, ["ignoring unknown or unavailable capabilities: [CAP_A CAP_NOPE]"]);
        let sets = plan.capabilities.unwrap();
        assert_eq!((sets.bounding, sets.effective, sets.permitted), (1, 0, 1 << 5));
    }

    #[test]
    fn the_last_value_of_a_variable_wins() {
        let (plan, _) = planned(r#"{"env":["A=1","PATH=/a","A=2","HOME="]}"#).unwrap();
        assert_eq!(plan.env, [c"A=2".to_owned(), c"PATH=/a".to_owned()]);
        assert!(plan.needs_home);
        assert_eq!(plan.search_path, "/a");
    }

    #[test]
    fn a_variable_needs_a_name() {
        assert!(planned(r#"{"env":["A"]}"#).is_err());
        assert!(planned(r#"{"env":["=a"]}"#).is_err());
    }

    #[test]
    fn the_highest_id_is_not_root() {
        assert!(planned(r#"{"user":{"uid":4294967295}}"#).is_err());
        assert!(planned(r#"{"user":{"gid":4294967295}}"#).is_err());
    }

    #[test]
    fn an_unknown_limit_is_refused_by_name() {
        let error = planned(r#"{"rlimits":[{"type":"RLIMIT_X"}]}"#).unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(text, "process.rlimits[0].type: wrong rlimit value: RLIMIT_X");
    }
}
