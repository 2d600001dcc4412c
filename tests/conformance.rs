//! Walks `spec-bundles/`: each bundle says in `expect.json` what must hold when a runtime runs it.
//! The same data judges any runtime; runc is the control that proves the bundles right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::harness::command::binary;
use crate::harness::{Cmd, Outcome, Scene, bundle, requires, scene};

mod users;

/// What `expect.json` may say; spec-bundles/README.md explains each key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Expect {
    #[allow(dead_code, reason = "for the reader of the bundle")]
    about: String,
    #[allow(dead_code, reason = "for the reader of the bundle")]
    spec: String,
    #[serde(default)]
    since: BTreeMap<String, String>,
    #[serde(default)]
    needs: Vec<Need>,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    exit: i32,
    stdout: Option<String>,
    #[serde(default)]
    stderr: Vec<String>,
    #[serde(default)]
    report: BTreeMap<String, Value>,
    #[serde(default)]
    namespaces: BTreeMap<String, Owner>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    created: BTreeMap<String, Value>,
    #[serde(default)]
    running: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Owner {
    Own,
    Host,
}

/// A security module, there or not.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum Need {
    #[serde(rename = "apparmor")]
    AppArmor,
    #[serde(rename = "no apparmor")]
    NoAppArmor,
    #[serde(rename = "selinux")]
    SeLinux,
    #[serde(rename = "no selinux")]
    NoSeLinux,
    /// What cgroup v2 has nothing for, or no exact number.
    #[serde(rename = "cgroup v1")]
    CgroupV1,
}

impl Need {
    fn is_met(self) -> bool {
        let (path, wanted) = match self {
            Need::AppArmor => (APPARMOR, true),
            Need::NoAppArmor => (APPARMOR, false),
            Need::SeLinux => (SELINUX, true),
            Need::NoSeLinux => (SELINUX, false),
            Need::CgroupV1 => (CGROUP_V2_ALONE, false),
        };
        Path::new(path).exists() == wanted
    }
}

const APPARMOR: &str = "/sys/kernel/security/apparmor/profiles";
const CGROUP_V2_ALONE: &str = "/sys/fs/cgroup/cgroup.controllers";
const SELINUX: &str = "/sys/fs/selinux/enforce";

struct Case {
    name: String,
    dir: PathBuf,
    expect: Expect,
}

#[test]
fn every_bundle_passes_under_our_runtime() {
    assert_all_pass(&binary("runtime"));
}

#[test]
fn every_bundle_passes_under_runc() {
    requires::program("runc", "runc");
    assert_all_pass(Path::new("runc"));
}

#[test]
fn no_bundle_passes_under_a_runtime_that_does_nothing() {
    scene(|scene| {
        for case in cases() {
            let outcome = judge(&case, &AsRoot::new(scene, Path::new("/bin/true")));
            assert!(outcome.is_err(), "{} passes under /bin/true: it proves nothing", case.name);
        }
    });
}

#[test]
fn there_are_enough_bundles() {
    assert!(cases().len() >= 170, "{} bundles", cases().len());
}

#[test]
fn the_table_of_properties_names_every_bundle() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec-bundles/README.md");
    let readme = fs::read_to_string(readme).expect("read the README");
    let rows = readme.lines().filter(|line| line.starts_with("| "));
    let words: Vec<&str> = rows.flat_map(|row| row.split([' ', ','])).collect();
    let missing: Vec<String> = cases()
        .into_iter()
        .map(|case| case.name)
        .filter(|name| !words.contains(&&**name))
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[track_caller]
fn assert_all_pass(runtime: &Path) {
    let (name, version) = version_of(runtime);
    let mut failures = Vec::new();
    let (mut passed, mut newer, mut skipped) = (0, 0, 0);
    scene(|scene| {
        let runner = AsRoot::new(scene, runtime);
        for case in cases() {
            if case.expect.since.get(&name).is_some_and(|since| numbers(since) > numbers(&version))
            {
                newer += 1;
                continue;
            }
            if let Some(need) = case.expect.needs.iter().find(|need| !need.is_met()) {
                println!("{}: skipped, the host does not have what it needs: {need:?}", case.name);
                skipped += 1;
                continue;
            }
            match judge(&case, &runner) {
                Ok(()) => passed += 1,
                Err(why) => failures.push(format!("{}: {why}", case.name)),
            }
        }
    });
    println!(
        "{name} {version}: {passed} bundles pass, {newer} ask for a newer one, {skipped} for another host"
    );
    assert!(failures.is_empty(), "{} of the bundles:\n{}", name, failures.join("\n"));
}

/// `runc version 1.1.5+ds1` gives (`runc`, `1.1.5`).
fn version_of(runtime: &Path) -> (String, String) {
    let outcome = Cmd::new(runtime).arg("--version").run().success();
    let first = outcome.stdout.lines().next().unwrap_or_default().to_owned();
    let mut words = first.split_whitespace();
    let name = words.next().unwrap_or_default().to_owned();
    let version = words.last().unwrap_or_default();
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    (name, version[..end].to_owned())
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec-bundles");
    let mut cases = Vec::new();
    for section in sorted(&root) {
        for dir in sorted(&section) {
            let path = dir.join("expect.json");
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            let expect = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("parse {}: {error}", path.display()));
            let name = dir.strip_prefix(&root).unwrap_or(&dir).display().to_string();
            cases.push(Case { name, dir, expect });
        }
    }
    cases
}

fn sorted(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("read {}: {e}", dir.display()));
    let mut dirs: Vec<_> =
        entries.filter_map(Result::ok).map(|e| e.path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    dirs
}

/// Who runs the bundles, and where.
trait Runner {
    /// Of the bundle.
    fn dir(&self) -> &Path;
    fn id(&self) -> &str;
    /// Makes the bundle what it has to be for this runner.
    fn prepare(&self);
    fn runtime(&self, words: &[&str]) -> Cmd;

    /// Ends what a failure may have left; it must work, and nothing is to be said of it.
    fn delete(&self) {
        self.runtime(&["delete", "--force", self.id()]).run();
    }
}

struct AsRoot<'a> {
    runtime: &'a Path,
    dir: PathBuf,
    id: String,
}

impl<'a> AsRoot<'a> {
    fn new(scene: &Scene, runtime: &'a Path) -> Self {
        Self { runtime, dir: scene.path("spec-bundle"), id: scene.id("spec") }
    }
}

impl Runner for AsRoot<'_> {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn prepare(&self) {}

    fn runtime(&self, words: &[&str]) -> Cmd {
        Cmd::new(self.runtime).args(words)
    }
}

/// Copies the bundle, gives it a rootfs, runs it, and says the first thing that is not as expected.
fn judge(case: &Case, runner: &impl Runner) -> Result<(), String> {
    let profile = case.dir.join("apparmor.profile");
    let _loaded = profile.exists().then(|| Profile::load(&profile));
    let dir = runner.dir();
    if dir.exists() {
        fs::remove_dir_all(dir).expect("remove the bundle before");
    }
    bundle::rootfs(&dir.join("rootfs"));
    let path = dir.display().to_string();
    let config = fs::read_to_string(case.dir.join("config.json")).expect("read config.json");
    fs::write(dir.join("config.json"), config.replace("@BUNDLE@", &path))
        .expect("write config.json");
    runner.prepare();

    if case.expect.created.is_empty() {
        let run = runner.runtime(&["run", "--bundle", &path, runner.id()]);
        let outcome = if case.expect.terminal { run.on_terminal() } else { run }.run();
        runner.delete();
        ended(&case.expect, &outcome)?;
    } else {
        let outcome = lifecycle(&case.expect, runner, &path);
        runner.delete();
        outcome?;
    }
    for (name, text) in &case.expect.files {
        let found = fs::read_to_string(dir.join(name)).unwrap_or_default();
        if found != *text {
            return Err(format!("file {name} has {found:?}, not {text:?}"));
        }
    }
    Ok(())
}

/// An AppArmor profile that the kernel has for a while.
struct Profile<'a>(&'a Path);

impl<'a> Profile<'a> {
    fn load(path: &'a Path) -> Self {
        if Need::AppArmor.is_met() {
            Cmd::new("apparmor_parser")
                .args(["--replace", "--skip-cache"])
                .arg(path)
                .run()
                .success();
        }
        Self(path)
    }
}

impl Drop for Profile<'_> {
    fn drop(&mut self) {
        if Need::AppArmor.is_met() {
            Cmd::new("apparmor_parser").arg("--remove").arg(self.0).run();
        }
    }
}

fn lifecycle(expect: &Expect, runner: &impl Runner, dir: &str) -> Result<(), String> {
    let id = runner.id();
    let step = |words: &[&str]| {
        let outcome = runner.runtime(words).run();
        if outcome.code == 0 { Ok(outcome) } else { Err(format!("{outcome:?}")) }
    };
    step(&["create", "--bundle", dir, id])?;
    matches(&parse(&step(&["state", id])?.stdout)?, &expect.created)?;
    step(&["start", id])?;
    matches(&parse(&step(&["state", id])?.stdout)?, &expect.running)
}

fn ended(expect: &Expect, outcome: &Outcome) -> Result<(), String> {
    if outcome.code != expect.exit {
        return Err(format!("exit code {} instead of {}: {outcome:?}", outcome.code, expect.exit));
    }
    for text in &expect.stderr {
        if !outcome.stderr.contains(text) {
            return Err(format!("{text:?} is not on stderr: {:?}", outcome.stderr));
        }
    }
    if let Some(stdout) = &expect.stdout {
        // A terminal turns each line's end into CR LF.
        if outcome.stdout.replace("\r\n", "\n") != *stdout {
            return Err(format!(
                "stdout is {:?}, not {stdout:?}; {}",
                outcome.stdout, outcome.stderr
            ));
        }
    }
    if expect.report.is_empty() && expect.namespaces.is_empty() {
        return Ok(());
    }
    let report = parse(&outcome.stdout)?;
    matches(&report, &expect.report)?;
    for (name, owner) in &expect.namespaces {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("read own namespace");
        let found = report["namespaces"][name].as_str().unwrap_or_default();
        let found = if Path::new(found) == host { Owner::Host } else { Owner::Own };
        if found != *owner {
            return Err(format!("namespace {name} is {found:?}, not {owner:?}"));
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}: {text:.300?}"))
}

/// Each pointer's value equals what is expected, or fits it: `{"has": […]}`, `{"lacks": […]}`,
/// `{"absent": true}`.
fn matches(found: &Value, expected: &BTreeMap<String, Value>) -> Result<(), String> {
    for (pointer, want) in expected {
        let value = found.pointer(pointer).unwrap_or(&Value::Null);
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let words = |key: &str| want.get(key).and_then(Value::as_array);
        let fits = if let Some(has) = words("has") {
            has.iter().all(|word| list.contains(word))
        } else if let Some(lacks) = words("lacks") {
            value.is_array() && lacks.iter().all(|word| !list.contains(word))
        } else if want.get("absent").is_some() {
            value.is_null()
        } else {
            value == want
        };
        if !fits {
            return Err(format!("{pointer} is {value}, not {want}"));
        }
    }
    Ok(())
}
