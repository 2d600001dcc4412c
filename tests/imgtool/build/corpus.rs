//! Many small Dockerfiles with what must come of each, literally; and, where `BUILD_PEERS` names docker or
//! buildah, with what these make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Image, load, scene};
use crate::harness::docker::Engine;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::tree::{Saved, read_archive, saved};
use crate::harness::{Cmd, Scene};

const BASE: &str = "base:latest";
const NAME: &str = "e2e.test/corpus:new";

struct Case<'a> {
    name: &'a str,
    /// Whether peers can't be asked.
    ours: bool,
    file: String,
    expected: Vec<&'a str>,
}

fn cases() -> Vec<Case<'static>> {
    let text = include_str!("corpus.txt");
    let blocks = text.split("\n=== ").skip(1);
    blocks
        .map(|block| {
            let (title, rest) = block.split_once('\n').expect("a case has lines");
            let (file, expected) = rest.split_once("---\n").expect("a case has expectations");
            let (name, ours) = match title.split_once(' ') {
                Some((name, _)) => (name, true),
                None => (title, false),
            };
            let expected = expected.lines().filter(|line| !line.is_empty()).collect();
            Case { name, ours, file: file.to_owned(), expected }
        })
        .collect()
}

fn base() -> Image {
    Image::busybox().layer(Tarball::of([
        Entry::dir("data").mode(0o750).owner(5, 6),
        Entry::file("data/old", "old"),
        Entry::symlink("ln", "data"),
        Entry::symlink("fl", "data/old"),
    ]))
}

/// The context that all cases share.
fn context(directory: &Path) {
    let write = |name: &str, text: &str, mode: u32| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, text, mode) in [
        ("a.txt", "A\n", 0o644),
        ("b.sh", "#!/bin/sh\necho b\n", 0o755),
        ("d/x", "x\n", 0o644),
        ("d/sub/y", "y\n", 0o600),
        ("d/keep.tmp", "keep\n", 0o644),
        ("d/w.tmp", "w", 0o644),
        ("z.tmp", "z", 0o644),
        ("sp ace", "blank\n", 0o644),
        ("links/file", "", 0o644),
        (".dockerignore", "**/*.tmp\n!d/keep.tmp\n", 0o644),
    ] {
        write(name, text, mode);
    }
    for (name, mode) in [("d", 0o755), ("d/sub", 0o700), ("links", 0o755)] {
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (target, name) in
        [("a.txt", "link"), ("d", "dl"), ("../a.txt", "links/rel"), ("/etc/passwd", "links/abs")]
    {
        symlink(target, directory.join(name)).unwrap();
    }
    let archive = Tarball::of([
        Entry::file("one", "1"),
        Entry::dir("deep"),
        Entry::file("deep/two", "2").mode(0o640).owner(3, 4),
    ]);
    let (bytes, _) =
        crate::harness::image::compress(&archive.bytes(), crate::harness::image::Compression::Gzip);
    fs::write(directory.join("arch.tar.gz"), bytes).unwrap();
}

#[test]
fn every_dockerfile_of_the_corpus_comes_to_what_is_written_beside_it() {
    let cases = cases();
    let texts: BTreeSet<&str> = cases.iter().map(|case| case.file.as_str()).collect();
    assert!(texts.len() >= 120 && texts.len() == cases.len(), "{} texts", texts.len());
    scene(|scene| {
        load(scene, &base(), BASE);
        let directory = scene.path("context");
        context(&directory);
        let mut wrong = Vec::new();
        for case in &cases {
            if let Err(error) = check(scene, &directory, case) {
                wrong.push(format!("{}: {error}", case.name));
            }
        }
        assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    });
}

fn check(scene: &Scene, directory: &Path, case: &Case<'_>) -> Result<(), String> {
    let file = scene.path("Dockerfile.case");
    fs::write(&file, &case.file).unwrap();
    let build = scene.imgtool().args(["build", "--quiet", "-t", NAME, "-f"]).arg(&file);
    let built = build.arg(directory).run();
    if let Some(words) = case.expected.iter().find_map(|line| line.strip_prefix("fails ")) {
        return match (built.code, built.stderr.contains(words)) {
            (1, true) => Ok(()),
            (code, _) => Err(format!("code {code}, {}", built.stderr)),
        };
    }
    if built.code != 0 {
        return Err(built.stderr);
    }
    let saved = saved(scene, NAME);
    case.expected.iter().try_for_each(|line| holds(line, &saved))
}

/// The layers that come with the base.
fn inherited(saved: &Saved) -> usize {
    let from_base = saved.config["history"][0]["created_by"] == "a test";
    if from_base { 2 } else { 0 }
}

fn holds(line: &str, saved: &Saved) -> Result<(), String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let config = &saved.config["config"];
    let keys = |value: &Value| -> String {
        let object = value.as_object().cloned().unwrap_or_default();
        object.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let env = || -> Vec<String> {
        let words = config["Env"].as_array().cloned().unwrap_or_default();
        words.iter().map(|word| word.as_str().unwrap_or_default().to_owned()).collect()
    };
    let parsed = || serde_json::from_str::<Value>(rest).unwrap_or_else(|_| json!(rest));
    let found = match word {
        "env" => {
            let words: Vec<String> =
                env().into_iter().filter(|word| !word.starts_with("PATH=")).collect();
            return equal(line, &words.join(" | "), rest);
        }
        "env-all" => return equal(line, &env().join(" | "), rest),
        "layers" => {
            return equal(line, &(saved.layers.len() - inherited(saved)).to_string(), rest);
        }
        "label" => {
            let labels = config["Labels"].as_object().cloned().unwrap_or_default();
            let words: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            return equal(line, &words.join(" | "), rest);
        }
        "expose" => return equal(line, &keys(&config["ExposedPorts"]), rest),
        "volume" => return equal(line, &keys(&config["Volumes"]), rest),
        "workdir" => return equal(line, config["WorkingDir"].as_str().unwrap_or(""), rest),
        "user" => return equal(line, config["User"].as_str().unwrap_or(""), rest),
        "stopsignal" => return equal(line, config["StopSignal"].as_str().unwrap_or(""), rest),
        "cmd" => &config["Cmd"],
        "entrypoint" => &config["Entrypoint"],
        "shell" => &config["Shell"],
        "health" => &config["Healthcheck"],
        "onbuild" => &config["OnBuild"],
        "author" => &saved.config["author"],
        path => return file_holds(path, line, saved),
    };
    if *found == parsed() { Ok(()) } else { Err(format!("{line}: it is {found}")) }
}

fn file_holds(word: &str, line: &str, saved: &Saved) -> Result<(), String> {
    let tree = saved.tree(0);
    if let Some(path) = word.strip_prefix("-/") {
        let path = line[2..].to_owned().replace(word, path);
        return if tree.contains_key(&path) { Err(format!("{path} is there")) } else { Ok(()) };
    }
    // A path may have blanks: what it is begins with one of these words.
    let at = [" file ", " dir ", " link "].iter().filter_map(|kind| line.find(kind)).min();
    let at = at.ok_or_else(|| format!("unknown expectation {line:?}"))?;
    let (path, expected) = (&line[1..at], &line[at + 1..]);
    let found = tree.get(path).map_or("absent", String::as_str);
    equal(line, found, expected)
}

fn equal(line: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{line}: it is {found:?}")) }
}

/// Asks the engines that `BUILD_PEERS` names, and lists what differs; this takes minutes.
#[test]
fn peers_make_the_same_of_the_corpus() {
    let peers = std::env::var("BUILD_PEERS").unwrap_or_default();
    if peers.is_empty() {
        println!("SKIP: BUILD_PEERS=docker,buildah asks them");
        return;
    }
    scene(|scene| {
        let archive = load(scene, &base(), BASE);
        let directory = scene.path("context");
        context(&directory);
        let mut differences = Vec::new();
        for peer in peers.split(',') {
            let peer = Peer::start(peer, scene, &archive);
            for case in cases().iter().filter(|case| !case.ours) {
                let file = scene.path("Dockerfile.case");
                fs::write(&file, &case.file).unwrap();
                let build = scene.imgtool().args(["build", "--quiet", "-t", NAME, "-f"]);
                let ours = build.arg(&file).arg(&directory).run();
                let theirs = peer.build(&file, &directory);
                let told = match (ours.code, theirs) {
                    (0, Ok(theirs)) => compare(&saved(scene, NAME), &theirs),
                    (0, Err(error)) => vec![format!("fails there: {error}")],
                    (_, Ok(_)) => vec![format!("fails here: {}", ours.stderr)],
                    (_, Err(_)) => Vec::new(),
                };
                differences
                    .extend(told.iter().map(|d| format!("{} {}: {d}", peer.name(), case.name)));
            }
        }
        println!("{} differences\n{}", differences.len(), differences.join("\n"));
    });
}

enum Peer {
    Docker(&'static Engine, PathBuf),
    Buildah(PathBuf),
}

impl Peer {
    fn start(name: &str, scene: &Scene, base: &Path) -> Self {
        let out = scene.path("peer.tar");
        if name == "docker" {
            let engine = Engine::overlay();
            engine.docker(["load", "--quiet", "--input"]).arg(base).run().success();
            return Self::Docker(engine, out);
        }
        let peer = Self::Buildah(scene.path("buildah"));
        let source = format!("docker-archive:{}", base.display());
        peer.buildah(&["pull", "--quiet", &source]).run().success();
        peer
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Docker(..) => "docker",
            Self::Buildah(_) => "buildah",
        }
    }

    fn buildah(&self, words: &[&str]) -> Cmd {
        let Self::Buildah(home) = self else { panic!("it is no buildah") };
        Cmd::line("buildah --storage-driver vfs --root")
            .arg(home.join("root"))
            .arg("--runroot")
            .arg(home.join("run"))
            .args(words)
    }

    fn build(&self, file: &Path, directory: &Path) -> Result<Saved, String> {
        match self {
            Self::Docker(engine, out) => {
                let build = engine.docker(["build", "--quiet", "--network", "none", "-t", NAME]);
                let build =
                    build.env("DOCKER_BUILDKIT", "0").arg("-f").arg(file).arg(directory).run();
                if build.code != 0 {
                    return Err(last_line(&build.stderr));
                }
                engine.docker(["save", NAME, "-o"]).arg(out).run().success();
                Ok(read_archive(&fs::read(out).unwrap()))
            }
            Self::Buildah(home) => {
                let words = ["bud", "--quiet", "--isolation", "chroot", "--format", "docker", "-t"];
                let build = self.buildah(&words).arg(NAME).arg("-f").arg(file).arg(directory).run();
                if build.code != 0 {
                    return Err(last_line(&build.stderr));
                }
                let out = home.join("out.tar");
                let _ = fs::remove_file(&out);
                let target = format!("docker-archive:{}", out.display());
                self.buildah(&["push", "--quiet", NAME, &target]).run().success();
                Ok(read_archive(&fs::read(out).unwrap()))
            }
        }
    }
}

fn last_line(text: &str) -> String {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

/// What differs in how the image runs, and in its files, but for times and labels of builders.
fn compare(ours: &Saved, theirs: &Saved) -> Vec<String> {
    let mut differences = Vec::new();
    let settings = |saved: &Saved| -> BTreeMap<String, Value> {
        let config = saved.config["config"].as_object().cloned().unwrap_or_default();
        let nothing = [json!(null), json!(""), json!([]), json!({}), json!(false)];
        config
            .into_iter()
            .map(|(key, mut value)| {
                if let Some(labels) = value.as_object_mut() {
                    labels.remove("io.buildah.version");
                }
                (key, value)
            })
            .filter(|(key, value)| {
                let of_builders = ["Image", "Hostname", "ArgsEscaped"].contains(&key.as_str());
                !nothing.contains(value) && !of_builders
            })
            .collect()
    };
    let (a, b) = (settings(ours), settings(theirs));
    for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        if a.get(key) != b.get(key) {
            differences.push(format!("{key}: here {:?}, there {:?}", a.get(key), b.get(key)));
        }
    }
    let (a, b) = (ours.tree(0), theirs.tree(0));
    for path in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        if a.get(path) != b.get(path) {
            differences.push(format!("/{path}: here {:?}, there {:?}", a.get(path), b.get(path)));
        }
    }
    differences
}
