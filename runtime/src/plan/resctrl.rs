//! The class of service for caches and memory bandwidth that `linux.intelRdt` asks for.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::spec::IntelRdt;

/// A class of service, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassPlan {
    /// The group's directory beneath the mount of resctrl; empty for the one that all start in.
    pub(crate) group: String,
    /// The group has the container's own name and nobody else's.
    pub(crate) own: bool,
    /// Lines for `schemata`.
    pub(crate) schemata: Vec<String>,
    /// The name of a group beneath `mon_groups`, if the container is to be watched by itself.
    pub(crate) monitor: Option<String>,
}

/// Decides where the container `id` belongs.
pub(crate) fn plan(asked: &IntelRdt, id: &str) -> Result<ClassPlan> {
    let class = asked.clos_id.as_str();
    if class == "." || class == ".." || (class != "/" && class.contains('/')) {
        bail!("linux.intelRdt.closID: invalid intelRdt.ClosID {class:?}");
    }
    let group = match class {
        "" => id,
        "/" => "",
        named => named,
    };
    // In this order, so that what is in `schemata` counts.
    let lines = [&asked.l3_cache_schema, &asked.mem_bw_schema].into_iter().chain(&asked.schemata);
    Ok(ClassPlan {
        group: group.to_owned(),
        own: class.is_empty(),
        schemata: lines.filter(|line| !line.is_empty()).cloned().collect(),
        monitor: asked.enable_monitoring.then(|| id.to_owned()),
    })
}

/// The first asked line that a group's `schemata` does not have already. Lines say the same though
/// one has zeros in front, spaces, or caches in another order; caches not named don't matter.
pub(crate) fn differs<'a>(asked: &'a [String], present: &str) -> Option<&'a str> {
    let present: BTreeMap<_, _> = present.lines().flat_map(entries).collect();
    // A later line overrides an earlier one.
    let wanted: BTreeMap<_, _> = asked
        .iter()
        .flat_map(|line| entries(line).map(move |(key, value)| (key, (value, line))))
        .collect();
    let unreadable = asked.iter().find(|line| entries(line).next().is_none());
    unreadable
        .or_else(|| {
            let mut wanted = wanted.iter();
            wanted
                .find(|(key, (value, _))| present.get(*key) != Some(value))
                .map(|(_, (_, line))| *line)
        })
        .map(String::as_str)
}

/// `L3:0=ff;1=0f` is ((L3, 0), ff) and ((L3, 1), f).
fn entries(line: &str) -> impl Iterator<Item = ((&str, &str), &str)> {
    let (resource, list) = line.trim().split_once(':').unwrap_or_default();
    list.split(';').filter_map(move |entry| {
        let (cache, value) = entry.split_once('=')?;
        Some(((resource.trim(), without_zeros(cache)), without_zeros(value)))
    })
}

fn without_zeros(number: &str) -> &str {
    number.trim().trim_start_matches('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<ClassPlan> {
        plan(&serde_json::from_str(json).unwrap(), "c1")
    }

    #[test]
    fn a_class_is_the_containers_own_a_named_one_or_the_default() {
        let own = planned("{}").unwrap();
        assert_eq!((&*own.group, own.own, own.monitor), ("c1", true, None));
        let named = planned(r#"{"closID":"gold","enableMonitoring":true}"#).unwrap();
        assert_eq!((&*named.group, named.own), ("gold", false));
        assert_eq!(named.monitor.as_deref(), Some("c1"));
        assert_eq!(planned(r#"{"closID":"/"}"#).unwrap().group, "");
        for class in [".", "..", "a/b", "/a", "//"] {
            let error = planned(&format!(r#"{{"closID":"{class}"}}"#)).unwrap_err().to_string();
            assert!(error.contains("invalid intelRdt.ClosID"), "{error}");
        }
    }

    #[test]
    fn the_schemata_come_last() {
        let plan = planned(
            r#"{"schemata":["L2:0=f","L3:0=1"],"memBwSchema":"MB:0=50","l3CacheSchema":"L3:0=f"}"#,
        );
        assert_eq!(plan.unwrap().schemata, ["L3:0=f", "MB:0=50", "L2:0=f", "L3:0=1"]);
    }

    #[test]
    fn lines_are_compared_by_what_they_mean() {
        let present = "    MB:0=100;1= 50\n    L3:0=fffff;1=0000f\n";
        let same = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            differs(&lines, present).is_none()
        };
        assert!(same(&["L3:1=f;0=fffff", "MB:0=100"]));
        assert!(same(&["MB:1=050"]));
        assert!(same(&["L3:0=1", "L3:0=fffff"]));
        assert!(!same(&["L3:0=ffff0"]));
        assert!(!same(&["L3:2=f"]));
        assert!(!same(&["L2:0=f"]));
        assert!(!same(&["nonsense"]));
    }
}
