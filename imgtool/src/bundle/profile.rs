//! Docker's profiles: `linux.seccomp` with conditions on capabilities, architectures and kernels,
//! which are settled here.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::seccomp::filtered_abis;

/// No profile is larger.
const MAX_BYTES: u64 = 1 << 20;

/// `linux.seccomp` by such a file.
pub(crate) fn of_file(path: &Path, capabilities: &[&str], architecture: &str) -> Result<Value> {
    ensure!(
        std::fs::metadata(path)?.len() <= MAX_BYTES,
        "it is larger than the limit of {MAX_BYTES} bytes"
    );
    let document = serde_json::from_slice(&std::fs::read(path)?).context("it is not JSON")?;
    let names = nix::sys::utsname::uname().context("ask for the kernel's release")?;
    let kernel = kernel(&names.release().to_string_lossy()).unwrap_or_default();
    let native = filtered_abis(architecture).first().copied().unwrap_or_default();
    settle(&document, native, &Facts { capabilities, architecture, kernel })
}

/// What the conditions are about.
struct Facts<'a> {
    capabilities: &'a [&'a str],
    /// As images name it.
    architecture: &'a str,
    /// The kernel's release, as far as it is numbers.
    kernel: (u32, u32),
}

/// The keys of a rule that the runtime specification has.
const RULE: [&str; 4] = ["names", "action", "args", "errnoRet"];
/// Those of the profile.
const PROFILE: [&str; 5] =
    ["defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"];

/// The profile as the runtime specification has it. `native` names our architecture there.
fn settle(profile: &Value, native: &str, facts: &Facts<'_>) -> Result<Value> {
    let profile = profile.as_object().context("it is no object")?;
    ensure!(profile.contains_key("defaultAction"), "it has no defaultAction");
    let mut settled = Map::new();
    for key in PROFILE {
        if let Some(value) = profile.get(key) {
            settled.insert(key.to_owned(), value.clone());
        }
    }
    let architectures = architectures(profile, native)?;
    if !architectures.is_empty() {
        settled.insert("architectures".to_owned(), json!(architectures));
    }
    let mut rules = Vec::new();
    for rule in list(profile.get("syscalls"), "syscalls")? {
        let rule = rule.as_object().context("a rule is no object")?;
        if holds(rule.get("includes"), facts, true)? && !holds(rule.get("excludes"), facts, false)?
        {
            rules.push(plain(rule)?);
        }
    }
    settled.insert("syscalls".to_owned(), Value::Array(rules));
    Ok(Value::Object(settled))
}

fn architectures(profile: &Map<String, Value>, native: &str) -> Result<Vec<String>> {
    let mut found: Vec<String> = list(profile.get("architectures"), "architectures")?
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    for entry in list(profile.get("archMap"), "archMap")? {
        if entry["architecture"] == native {
            found.push(native.to_owned());
            let more = list(entry.get("subArchitectures"), "subArchitectures")?;
            found.extend(more.iter().filter_map(|name| name.as_str().map(str::to_owned)));
        }
    }
    Ok(found)
}

/// Docker's old profiles have one name per rule.
fn plain(rule: &Map<String, Value>) -> Result<Value> {
    let mut plain = Map::new();
    if let Some(name) = rule.get("name").filter(|name| name.as_str() != Some("")) {
        plain.insert("names".to_owned(), json!([name]));
    }
    for key in RULE {
        if let Some(value) = rule.get(key).filter(|value| !value.is_null()) {
            plain.insert(key.to_owned(), value.clone());
        }
    }
    ensure!(
        plain.contains_key("names") && plain.contains_key("action"),
        "a rule lacks names or an action"
    );
    Ok(Value::Object(plain))
}

/// Whether the conditions hold: all of them for one that includes, any for one that excludes. No
/// condition includes, and does not exclude.
fn holds(conditions: Option<&Value>, facts: &Facts<'_>, all: bool) -> Result<bool> {
    let Some(conditions) = conditions.and_then(Value::as_object) else { return Ok(all) };
    let mut results = Vec::new();
    for (key, value) in conditions {
        match key.as_str() {
            "caps" | "arches" if list(Some(value), key)?.is_empty() => {}
            "caps" => {
                let has = |name: &Value| {
                    name.as_str().is_some_and(|name| facts.capabilities.contains(&name))
                };
                let named = list(Some(value), key)?;
                let found = if all { named.iter().all(has) } else { named.iter().any(has) };
                results.push(found);
            }
            "arches" => {
                let named = list(Some(value), key)?;
                results.push(named.iter().any(|name| name == facts.architecture));
            }
            "minKernel" => {
                let text = value.as_str().unwrap_or_default();
                results.push(facts.kernel >= kernel(text).context("bad minKernel")?);
            }
            other => bail!("unknown condition {other:?}"),
        }
    }
    if results.is_empty() {
        return Ok(all);
    }
    Ok(if all { results.iter().all(|holds| *holds) } else { results.contains(&true) })
}

/// `4.8`, `6.18.0-rc1`.
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn list<'a>(value: Option<&'a Value>, name: &str) -> Result<&'a [Value]> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => bail!("{name} is no list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_settled() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] },
                        { "architecture": "SCMP_ARCH_AARCH64" }],
            "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "x",
                  "includes": {}, "excludes": {} },
                { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
                { "names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "99.0" } },
                { "names": ["arm_only"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["arm64"] } },
                { "name": "old", "action": "SCMP_ACT_ALLOW" },
            ],
        });
        let settled = |capabilities: &[&str]| {
            let facts = Facts { capabilities, architecture: "amd64", kernel: (6, 1) };
            let settled = settle(&profile, "SCMP_ARCH_X86_64", &facts).unwrap();
            let rules = settled["syscalls"].as_array().unwrap().clone();
            assert_eq!(settled["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
            assert!(rules.iter().all(|rule| rule.get("comment").is_none()));
            rules
                .iter()
                .map(|rule| rule["names"][0].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(settled(&[]), ["read", "clone", "ptrace", "old"]);
        assert_eq!(settled(&["CAP_SYS_ADMIN"]), ["read", "mount", "ptrace", "old"]);
        let facts = Facts { capabilities: &[], architecture: "amd64", kernel: (6, 1) };
        let rule = |rule: Value| json!({ "defaultAction": "x", "syscalls": [rule] });
        for bad in [
            json!([]),
            json!({}),
            json!({ "defaultAction": "x", "syscalls": {} }),
            rule(json!("x")),
            rule(json!({ "names": ["a"] })),
            rule(json!({ "names": ["a"], "action": "b", "includes": { "moon": "full" } })),
        ] {
            assert!(settle(&bad, "SCMP_ARCH_X86_64", &facts).is_err(), "{bad}");
        }
    }

    #[test]
    fn releases_are_numbers_as_far_as_they_count() {
        assert_eq!(kernel("6.18.0-rc1"), Some((6, 18)));
        assert_eq!(kernel("4.8"), Some((4, 8)));
        assert_eq!(kernel("six"), None);
    }
}
