//! Trees and changes made at random: what is committed, saved and loaded elsewhere is the tree that
//! the container had; Docker's and umoci's layers are read as they mean them, and ours by them.
//!
//! `E2E_SEEDS=from..to` tries other seeds than the few that always run.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::equality::ENGINE;
use super::{Image, load, scene};
use crate::harness::command::binary;
use crate::harness::docker::Engine;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, Scene, requires};

const NAME: &str = "e2e.test/property:base";
const NEW: &str = "e2e.test/property:new";
/// What is not to change: an engine's own, and the program that changes all else.
const SPARED: [&str; 7] = ["/proc", "/sys", "/dev", "/etc", "/.dockerenv", "/probe", "/run"];

fn seeds(few: &[u64]) -> Vec<u64> {
    let Ok(text) = std::env::var("E2E_SEEDS") else { return few.to_vec() };
    let ends = text.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    let Some((Ok(from), Ok(to))) = ends else { panic!("E2E_SEEDS is not from..to: {text}") };
    (from..to).collect()
}

fn probe(words: &[&str], root: &Path) -> Cmd {
    Cmd::new(binary("probe")).arg(words[0]).arg(root).args(&words[1..])
}

fn mutate(root: &Path, seed: u64, changes: usize) {
    let (seed, changes) = (seed.to_string(), changes.to_string());
    probe(&["mutate", &seed, &changes], root).args(SPARED).run().success();
}

/// All of a tree but what an engine may have laid over it, and the root's time: making what is laid
/// over changes that.
fn tree(root: &Path) -> String {
    probe(&["tree-of"], root).args(ENGINE).args(SPARED).run().success().stdout
}

#[track_caller]
fn assert_same(ours: &str, theirs: &str, what: &str) {
    assert!(theirs.starts_with("\"/"), "{what}: there is no tree:\n{theirs}");
    let missing = theirs.lines().filter(|line| !ours.lines().any(|other| other == *line));
    let surplus = ours.lines().filter(|line| !theirs.lines().any(|other| other == *line));
    let wrong: Vec<String> = missing
        .map(|line| format!("- {line}"))
        .chain(surplus.map(|line| format!("+ {line}")))
        .collect();
    assert!(wrong.is_empty(), "{what}: {} lines differ\n{}", wrong.len(), wrong.join("\n"));
}

/// Go's reader of archives, which is Docker's and umoci's, takes an attribute without a value for none.
fn as_go_reads_it(tree: &str) -> String {
    let lines = tree.lines().map(|line| {
        let words = line.split(' ').filter(|word| !word.ends_with('='));
        words.collect::<Vec<_>>().join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Docker's containers have a root of Docker's making.
fn as_docker_has_it(tree: &str) -> String {
    let tree = as_go_reads_it(tree);
    tree.lines().filter(|line| !line.starts_with("\"/\" ")).collect::<Vec<_>>().join("\n")
}

/// And its layers have whole seconds, and no attributes but a file's capabilities.
fn as_docker_packs_it(tree: &str) -> String {
    let tree = as_docker_has_it(tree);
    let line = |line: &str| {
        let words = line.split(' ').filter(|word| !word.starts_with("user."));
        let words = words.map(|word| match word.split_once('.') {
            Some((seconds, fraction)) if fraction.len() == 9 => seconds,
            _ => word,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    tree.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// An image of a random tree, packed by GNU tar.
fn image(scene: &Scene, seed: u64, flags: &[&str]) -> (Image, PathBuf) {
    let base = scene.path("base");
    std::fs::create_dir(&base).unwrap();
    mutate(&base, seed, 120);
    let tar = Cmd::line("tar --create --format=pax --numeric-owner --xattrs").args(flags);
    let tar = tar.args(["--xattrs-include=*", "--pax-option=delete=atime,delete=ctime"]);
    let archive = scene.path("base.tar");
    tar.arg("--file").arg(&archive).arg("--directory").arg(&base).arg(".").run().success();
    let program = std::fs::read(binary("probe")).unwrap();
    let program = [
        Entry::dir("dev"),
        Entry::dir("proc"),
        Entry::dir("sys"),
        Entry::dir("etc"),
        Entry::dir("run"),
        Entry::file("probe", program).mode(0o755),
    ];
    let layers = vec![Tarball::of(program).bytes(), std::fs::read(&archive).unwrap()];
    (Image { layers, config: json!({ "Cmd": ["/probe"] }) }, base)
}

fn bundle(scene: &Scene, store: &str, name: &str, flags: &[&str]) -> PathBuf {
    let dir = scene.path("bundle");
    let made = scene.imgtool().env("IMGTOOL_ROOT", scene.path(store)).arg("bundle").args(flags);
    made.args(["--network", "none", name]).arg(&dir).run().success();
    dir
}

fn remove(scene: &Scene, store: &str, dir: &Path) {
    let rm = scene.imgtool().env("IMGTOOL_ROOT", scene.path(store));
    rm.arg("rm").arg(dir).run().success();
}

/// Both kinds of bundle of `name` have this tree, as `read` has it.
#[track_caller]
fn assert_bundles(
    scene: &Scene,
    store: &str,
    name: &str,
    expected: &str,
    read: impl Fn(&str) -> String,
    what: &str,
) {
    for flags in [&[][..], &["--copy"]] {
        let dir = bundle(scene, store, name, flags);
        let seen = tree(&dir.join("rootfs"));
        remove(scene, store, &dir);
        assert_same(&read(&seen), &read(expected), &format!("{what}, bundle {flags:?}"));
    }
}

/// Three containers one after the other, each of the image that the one before became.
fn commit_thrice(scene: &Scene, seed: u64) -> String {
    let mut expected = String::new();
    let mut name = NAME;
    for round in 0..3 {
        let flags = if (seed + round).is_multiple_of(2) { &[][..] } else { &["--copy"] };
        let dir = bundle(scene, "store", name, flags);
        mutate(&dir.join("rootfs"), seed * 10 + round + 1, 25);
        expected = tree(&dir.join("rootfs"));
        scene.imgtool().arg("commit").arg(&dir).arg(NEW).run().success();
        remove(scene, "store", &dir);
        assert_bundles(
            scene,
            "store",
            NEW,
            &expected,
            str::to_owned,
            &format!("seed {seed} round {round}"),
        );
        name = NEW;
    }
    expected
}

#[test]
fn what_is_committed_and_loaded_elsewhere_is_the_tree_that_was() {
    for seed in seeds(&[2, 4, 481]) {
        println!("seed {seed}");
        scene(|scene| {
            let (image, base) = image(scene, seed, &["--sparse"]);
            load(scene, &image, NAME);
            assert_bundles(
                scene,
                "store",
                NAME,
                &tree(&base),
                str::to_owned,
                &format!("seed {seed}, base"),
            );
            let expected = commit_thrice(scene, seed);
            let archive = scene.path("new.tar");
            scene.imgtool().args(["save", NEW, "-o"]).arg(&archive).run().success();
            let elsewhere = scene.imgtool().env("IMGTOOL_ROOT", scene.path("elsewhere"));
            elsewhere.args(["load", "-i"]).arg(&archive).run().success();
            assert_bundles(
                scene,
                "elsewhere",
                NEW,
                &expected,
                str::to_owned,
                &format!("seed {seed}, loaded"),
            );
        });
    }
}

/// umoci's own unpacking is no judge of layers in which a file takes a directory's place.
#[test]
fn umoci_reads_our_layers_and_we_read_umocis() {
    requires::program("umoci", "umoci");
    for seed in seeds(&[101]) {
        println!("seed {seed}");
        scene(|scene| {
            let (image, _) = image(scene, seed, &["--sparse"]);
            load(scene, &image, NAME);
            let expected = commit_thrice(scene, seed);
            let layout = scene.path("layout");
            let place = format!("oci:{}:new", layout.display());
            scene.imgtool().args(["copy", NEW, &place]).run().success();
            let image = format!("{}:new", layout.display());
            let unpack = |dir: &str| {
                let dir = scene.path(dir);
                Cmd::line("umoci unpack --image").arg(&image).arg(&dir).run().success();
                dir
            };
            let unpacked = unpack("unpacked");
            let rootfs = unpacked.join("rootfs");
            let what = format!("seed {seed}, umoci unpacks ours");
            assert_same(&as_go_reads_it(&tree(&rootfs)), &as_go_reads_it(&expected), &what);

            mutate(&rootfs, seed * 10 + 9, 30);
            Cmd::line("umoci repack --image").arg(&image).arg(&unpacked).run().success();
            // Its layers have no fractions of seconds, so the tree as it was is not expected.
            let expected = tree(&unpack("again").join("rootfs"));
            let name = "e2e.test/property:umoci";
            scene.imgtool().args(["copy", &place, name]).run().success();
            assert_bundles(
                scene,
                "store",
                name,
                &expected,
                as_go_reads_it,
                &format!("seed {seed}, umoci's layer"),
            );
        });
    }
}

#[test]
fn docker_reads_our_layers_and_we_read_dockers() {
    let docker = Engine::overlay();
    for seed in seeds(&[215]) {
        println!("seed {seed}");
        scene(|scene| {
            // Docker can't save again what has holes in the archive.
            let (image, _) = image(scene, seed, &[]);
            load(scene, &image, NAME);
            let expected = commit_thrice(scene, seed);
            let archive = scene.path("new.tar");
            scene.imgtool().args(["save", NEW, "-o"]).arg(&archive).run().success();
            docker.docker(["load", "--quiet", "--input"]).arg(&archive).run().success();
            let container = scene.id("docker");
            let run = |words: &[&str]| {
                let run = docker.docker(["run", "--name", &container, "--network", "none"]);
                let run = run.args(["--user", "0", "--entrypoint", "/probe", NEW]);
                run.args(words).args(ENGINE).args(SPARED).run().success().stdout
            };
            let seen = run(&["tree"]);
            docker.docker(["rm", &container]).run().success();
            let what = format!("seed {seed}, Docker unpacks ours");
            assert_same(&as_docker_has_it(&seen), &as_docker_has_it(&expected), &what);

            let seed_text = (seed * 10 + 9).to_string();
            let expected = run(&["mutate", "/", &seed_text, "30", "--then-tree"]);
            let made = "e2e.test/property:docker";
            docker.docker(["commit", &container, made]).run().success();
            docker.docker(["save", made, "--output"]).arg(&archive).run().success();
            docker.docker(["rm", &container]).run().success();
            docker.docker(["rmi", made, NEW]).run().success();
            scene.imgtool().args(["load", "-i"]).arg(&archive).run().success();
            assert_bundles(
                scene,
                "store",
                made,
                &expected,
                as_docker_packs_it,
                &format!("seed {seed}, Docker's"),
            );
        });
    }
}
