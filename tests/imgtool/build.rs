//! build: Dockerfiles as users write them.

use std::fs;

use serde_json::json;

use super::{Image, bundle, load, remove, run, scene};
use crate::harness::image::BUSYBOX;
use crate::harness::tree::{Saved, Tree, saved};
use crate::harness::{Cmd, Outcome, Scene, eventually, requires};

mod corpus;
mod interrupted;
mod more;
mod mounts;
mod outputs;
mod rootless;
mod shared;
mod shown;

const NAME: &str = "e2e.test/build:new";

/// Writes files beneath the scene's directory `context`.
fn context(scene: &Scene, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = scene.path("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn build(scene: &Scene, words: &[&str]) -> Outcome {
    scene.imgtool().args(["build", "--tag", NAME]).args(words).arg(scene.path("context")).run()
}

fn busybox(scene: &Scene) {
    load(scene, &Image::busybox(), BUSYBOX);
}

/// What the build put above the base.
fn made(scene: &Scene) -> Tree {
    saved(scene, NAME).tree(1)
}

fn unpacked(scene: &Scene) -> usize {
    fs::read_dir(scene.store().join("layers/sha256")).map_or(0, Iterator::count)
}

#[test]
fn the_dockerfile_of_the_tutorial_builds_and_runs() {
    scene(|scene| {
        busybox(scene);
        context(
            scene,
            &[
                (
                    "Dockerfile",
                    "FROM e2e.test/busybox\nMAINTAINER A Tester <a@example.com>\n\
                     RUN echo hello > /greeting\nADD run.sh /run.sh\nADD conf /etc/conf\n\
                     CMD [\"sh\", \"/run.sh\"]\n",
                ),
                ("run.sh", "cat /greeting /etc/conf/a\n"),
                ("conf/a", "configured\n"),
            ],
        );
        let built = build(scene, &["--progress", "legacy", "--iidfile", "/dev/stderr"]).success();
        for line in [
            "Step 1/6 : FROM e2e.test/busybox\n",
            "Step 3/6 : RUN echo hello > /greeting\n ---> Running in ",
            "Step 6/6 : CMD [\"sh\", \"/run.sh\"]\n",
            "Successfully built ",
            "Successfully tagged e2e.test/build:new\n",
        ] {
            assert!(built.stdout.contains(line), "{line:?} in\n{}", built.stdout);
        }
        bundle(scene, &["--network", "none"], NAME, "b", &[]);
        assert_eq!(run(scene, "b").success().stdout, "hello\nconfigured\n");
        remove(scene, "b");
        let config = saved(scene, NAME).config;
        assert_eq!(config["author"], "A Tester <a@example.com>");
        assert_eq!(config["config"]["Cmd"], json!(["sh", "/run.sh"]));
        let steps: Vec<&str> = config["history"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|step| step["created_by"].as_str())
            .collect();
        assert_eq!(steps[2], "RUN /bin/sh -c echo hello > /greeting # buildkit");
        assert_eq!(steps[3], "ADD run.sh /run.sh # buildkit");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 4);
    });
}

#[test]
fn a_build_without_run_unpacks_nothing_and_needs_no_runtime() {
    scene(|scene| {
        busybox(scene);
        let before = unpacked(scene);
        context(
            scene,
            &[
                (
                    "Dockerfile",
                    "FROM e2e.test/busybox\nCOPY --chown=user:extra a bin/new /etc/\n\
                     WORKDIR /srv/deep\nCOPY --chmod=u+x,g= a .\nENV A=b\n",
                ),
                ("a", "A"),
                ("bin/new", "N"),
            ],
        );
        build(scene, &["--runtime", "/nonexistent"]).success();
        assert_eq!(unpacked(scene), before);
        let tree = made(scene);
        assert_eq!(tree["etc"], "dir 755 0:0", "the directory of the base keeps its owner");
        assert_eq!(tree["etc/a"], "file 644 1000:2000 \"A\"");
        assert_eq!(tree["etc/new"], "file 644 1000:2000 \"N\"");
        assert_eq!(tree["srv/deep/a"], "file 704 0:0 \"A\"");
        assert_eq!(tree["srv"], "dir 755 0:0");
        assert_eq!(tree.len(), 6, "{tree:?}");
    });
}

#[test]
fn what_was_built_before_is_taken_from_the_cache_until_something_changes() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM e2e.test/busybox\nARG V=1\nRUN cat /proc/sys/kernel/random/uuid > /one\n\
                    COPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /two\nLABEL x=y\n";
        context(scene, &[("Dockerfile", file), ("a", "1"), ("unused", "1")]);
        let cached = |outcome: &Outcome| outcome.stderr.matches(" CACHED").count();
        let first = build(scene, &[]).success();
        assert_eq!(cached(&first), 0);
        let tree = made(scene);

        // Times and files that no step names count for nothing.
        Cmd::line("touch -d 2001-01-01").arg(scene.path("context/a")).run().success();
        context(scene, &[("unused", "2")]);
        let again = build(scene, &[]).success();
        assert_eq!((again.word(), cached(&again)), (first.word(), 3));

        context(scene, &[("a", "2")]);
        let changed = build(scene, &[]).success();
        assert_eq!(cached(&changed), 1);
        let now = made(scene);
        assert_eq!(now["one"], tree["one"]);
        assert_ne!(now["two"], tree["two"]);

        // An argument is part of what a command sees, and of what is known of it.
        assert_eq!(cached(&build(scene, &["--build-arg", "V=2"]).success()), 0);
        assert_eq!(cached(&build(scene, &["--no-cache"]).success()), 0);
        // Collecting garbage takes nothing that the cache needs.
        scene.imgtool().args(["rmi", NAME]).run().success();
        scene.imgtool().args(["prune", "--force"]).run().success();
        assert_eq!(cached(&build(scene, &["--build-arg", "V=2"]).success()), 3);
        scene.imgtool().args(["prune", "--force", "--build-cache"]).run().success();
        assert_eq!(cached(&build(scene, &["--build-arg", "V=2"]).success()), 0);
    });
}

#[test]
fn a_command_leaves_nothing_but_what_it_did() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM e2e.test/busybox\nRUN true\nRUN cat /etc/hosts /etc/resolv.conf && \
                    ls /proc/self /dev/null /sys/kernel > /dev/null && echo x > /tmp/made\n\
                    RUN rm /tmp/made /etc/group\nUSER user\nRUN id -u > /tmp/uid; id -G >> /tmp/uid";
        context(scene, &[("Dockerfile", file)]);
        for runtime in [None, Some("runc")] {
            if let Some(runtime) = runtime {
                requires::program(runtime, runtime);
            }
            let words: Vec<&str> =
                runtime.map_or(vec![], |runtime| vec!["--no-cache", "--runtime", runtime]);
            build(scene, &words).success();
            let Saved { config, layers } = saved(scene, NAME);
            let names = |layer: usize| -> Vec<&str> {
                let paths = layers[layer].iter().map(|(path, _)| path.as_str());
                paths.filter(|path| !path.is_empty()).collect()
            };
            assert_eq!(names(1), ["tmp", "tmp/made"], "{runtime:?}");
            assert_eq!(names(2), ["etc", "etc/.wh.group", "tmp", "tmp/.wh.made"]);
            assert_eq!(layers[3].last().unwrap().1, "file 644 1000:1000 \"1000\\n1000\\n\"");
            assert_eq!(layers.len(), 4, "what changes nothing makes no layer");
            assert_eq!(config["history"][1]["empty_layer"], true);
        }
    });
}

#[test]
fn stages_copy_from_each_other_and_those_that_are_not_needed_are_skipped() {
    scene(|scene| {
        busybox(scene);
        let file = "ARG BASE=e2e.test/busybox\nFROM $BASE AS One\nRUN mkdir -p /out/d && echo 1 > \
                    /out/d/f && ln -s d /out/l\nFROM $BASE AS broken\nRUN false\nFROM scratch AS two\n\
                    COPY --from=one /out /from-one\nCOPY --from=0 /out/l/f /f\nFROM two\n\
                    COPY --from=e2e.test/busybox /etc/passwd /\nFROM broken AS last\n";
        context(scene, &[("Dockerfile", file)]);
        build(scene, &["--target", "3"]).success();
        let tree = saved(scene, NAME).tree(0);
        assert_eq!(tree["from-one/l"], "link 0:0 d");
        assert_eq!(tree["from-one/d/f"], "file 644 0:0 \"1\\n\"");
        assert_eq!(tree["f"], tree["from-one/d/f"]);
        assert!(tree.contains_key("passwd"));
        build(scene, &[]).code(1).stderr_has("exit code: 1");
        build(scene, &["--target", "nosuch"]).code(1).stderr_has("\"nosuch\" could not be found");
    });
}

#[test]
fn failures_show_the_lines_they_are_about() {
    scene(|scene| {
        busybox(scene);
        for (file, excerpt, words) in [
            (
                "FROM e2e.test/busybox\n# comment\nRUN echo out; \\\n  exit 3\nCMD x\n",
                "   1 |     FROM e2e.test/busybox\n   2 |     # comment\n   3 | >>> RUN echo out; \\\n   4 | >>>   exit 3\n   5 |     CMD x\n",
                "process \"/bin/sh -c echo out;   exit 3\" did not complete successfully: exit code: 3",
            ),
            (
                "FORM x\n",
                "   1 | >>> FORM x\n",
                "dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)",
            ),
            ("FROM e2e.test/busybox\nCOPY x /\n", "   2 | >>> COPY x /\n", "\"/x\": not found"),
            (
                "FROM e2e.test/busybox\nCOPY ../x /\n",
                "   2 | >>> COPY ../x /\n",
                "\"/x\": not found",
            ),
            (
                "FROM e2e.test/busybox\nENV A=\"${B:?must be set}\"\n",
                "   2 | >>> ENV",
                "B: must be set",
            ),
            (
                "FROM e2e.test/busybox\nCOPY a b /d\n",
                "   2 | >>> COPY",
                "must be a directory and end with a /",
            ),
            (
                "FROM e2e.test/busybox\nCOPY d /etc/passwd\n",
                "   2 | >>> COPY",
                "cannot copy to non-directory: /etc/passwd",
            ),
            (
                "FROM e2e.test/busybox\nCOPY --chown=nobody a /\n",
                "   2 | >>> COPY",
                "unable to find user nobody",
            ),
            (
                "FROM e2e.test/busybox\nUSER nobody\nRUN id\n",
                "   3 | >>> RUN",
                "unable to find user nobody",
            ),
            ("FROM e2e.test/busybox\nCOPY --from=$X a /\n", "   2 | >>> COPY", "FROM $X AS name"),
        ] {
            context(scene, &[("Dockerfile", file), ("a", ""), ("b", ""), ("d/f", "")]);
            let failed = build(scene, &[]).code(1);
            assert!(failed.stderr.contains(excerpt), "{excerpt}\n{}", failed.stderr);
            let last = failed.stderr.lines().last().unwrap();
            assert!(last.starts_with("imgtool: failed to build: failed to solve: "), "{last}");
            assert!(last.contains(words), "{words:?} in {last}");
            scene.imgtool().args(["inspect", NAME]).run().code(1);
        }
        fs::remove_file(scene.path("context/Dockerfile")).unwrap();
        build(scene, &[]).refused(&["no Dockerfile in", "looked for Dockerfile"]);
        scene.imgtool().args(["build", "/nonexistent"]).run().refused(&["/nonexistent"]);
    });
}

#[test]
fn what_is_ignored_is_not_there() {
    scene(|scene| {
        busybox(scene);
        context(
            scene,
            &[
                ("Dockerfile", "FROM scratch\nCOPY . /all\nCOPY d*/*.md /md/\n"),
                (".dockerignore", "# comment\n*.log\nd\n!d/**/keep.md\nDockerfile\n"),
                ("a", "a"),
                ("b.log", ""),
                ("d/x.md", ""),
                ("d/keep.md", "k"),
                ("e/c.log", "c"),
            ],
        );
        build(scene, &[]).success();
        let tree = saved(scene, NAME).tree(0);
        let paths: Vec<&str> = tree.keys().map(String::as_str).collect();
        let expected =
            ["all", "all/.dockerignore", "all/a", "all/d", "all/d/keep.md", "all/e", "all/e/c.log"];
        assert_eq!(paths[..7], expected);
        assert_eq!(paths[7..], ["md", "md/keep.md"]);
        fs::write(scene.path("context/Dockerfile"), "FROM scratch\nCOPY d/x.md /\n").unwrap();
        build(scene, &[]).code(1).stderr_has("\"/d/x.md\": not found");
    });
}

#[test]
fn a_dockerfile_or_a_whole_context_comes_from_standard_input() {
    scene(|scene| {
        busybox(scene);
        context(scene, &[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "x")]);
        let stdin = |words: &[&str], bytes: &[u8]| {
            scene.imgtool().args(["build", "-t", NAME]).args(words).stdin(bytes).run()
        };
        stdin(&["-"], b"FROM e2e.test/busybox\nENV A=b\n").success();
        assert_eq!(saved(scene, NAME).layers.len(), 1);
        let directory = scene.path("context");
        let directory = directory.to_str().unwrap();
        stdin(&["-f", "-", directory], b"FROM scratch\nCOPY a /b\n").success();
        assert_eq!(saved(scene, NAME).tree(0)["b"], "file 644 0:0 \"x\"");
        let archive = scene.path("context.tar.gz");
        Cmd::line("tar -czf").arg(&archive).args(["-C", directory, "."]).run().success();
        stdin(&["-"], &fs::read(&archive).unwrap()).success();
        assert_eq!(saved(scene, NAME).tree(0)["a"], "file 644 0:0 \"x\"");
    });
}

/// With the build its command goes, and with the next command what they left.
#[test]
fn a_killed_build_leaves_nothing_after_the_next_command() {
    scene(|scene| {
        busybox(scene);
        let mark = format!("sleep 7{}", std::process::id());
        let file = format!("FROM e2e.test/busybox\nRUN echo x > /made && {mark}\n");
        context(scene, &[("Dockerfile", &file)]);
        let runs = || commands().contains(&mark);
        let output = tempfile::tempfile().unwrap();
        let command = scene.imgtool().args(["build", "--quiet"]).arg(scene.path("context"));
        let mut child = command.start(output);
        assert!(eventually(runs), "the command runs");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| !runs()), "the command ends with the build");
        scene.imgtool().args(["prune", "--force"]).run().success();
        let left = fs::read_dir(scene.store().join("staging")).unwrap().count();
        assert_eq!(left, 0, "files in staging");
    });
}

/// The command lines of all processes.
fn commands() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " "))
        .collect()
}

#[test]
fn triggers_of_the_base_run_once() {
    scene(|scene| {
        busybox(scene);
        let tag = |file: &str, name: &str| {
            context(scene, &[("Dockerfile", file), ("a", "A")]);
            let directory = scene.path("context");
            scene.imgtool().args(["build", "-t", name]).arg(directory).run().success();
        };
        let file = "FROM e2e.test/busybox\nONBUILD COPY a /triggered\nONBUILD ENV T=1\nONBUILD \
                    COPY <<END /text\n$T\nEND\n";
        tag(file, "e2e.test/trigger");
        let config = saved(scene, "e2e.test/trigger").config;
        assert_eq!(config["config"]["OnBuild"].as_array().unwrap().len(), 3);
        tag("FROM e2e.test/trigger\n", NAME);
        let Saved { config, .. } = saved(scene, NAME);
        assert!(config["config"]["OnBuild"].is_null());
        assert_eq!(config["config"]["Env"], json!(["PATH=/bin", "T=1"]));
        assert_eq!(made(scene)["triggered"], "file 644 0:0 \"A\"");
        assert_eq!(made(scene)["text"], "file 644 0:0 \"1\\n\"");
    });
}

/// What the addresses on the bridge of these tests begin with.
const ON_BRIDGE: &str = "10.198.0.";

#[test]
fn commands_run_on_a_network_of_netsetups_and_leave_nothing_there() {
    scene(|scene| {
        busybox(scene);
        let create = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"];
        scene.netsetup().args(create).run().success();
        let file = "FROM e2e.test/busybox\nRUN ip -o -4 addr show dev eth0 > /own && ping -c 1 \
                    -W 5 10.198.0.1 && cat /etc/hosts\nRUN --network=none ip -o link > /none\n";
        context(scene, &[("Dockerfile", file)]);
        for runtime in ["runtime", "runc"] {
            let mut words = vec!["--network", "e2e0", "--no-cache"];
            if runtime == "runc" {
                requires::program(runtime, runtime);
                words.extend(["--runtime", runtime]);
            }
            let built = build(scene, &words).success();
            built.stderr_has("buildkitsandbox").stderr_has("1 packets received");
            let tree = made(scene);
            assert!(tree["own"].contains(&format!("inet {ON_BRIDGE}")), "{}", tree["own"]);
            assert!(!tree["none"].contains("eth0"), "{}", tree["none"]);
            assert!(!tree.contains_key("etc"), "no trace of hosts and resolv.conf: {tree:?}");
            scene.netsetup().args(["inspect"]).run().success().stdout_has("[]");
        }
        // The host's network is not given to those that were kept from it.
        let file = "FROM e2e.test/busybox\nRUN --network=host true\n";
        context(scene, &[("Dockerfile", file)]);
        build(scene, &["--network", "e2e0"]).code(1).stderr_has("give --allow network.host");
        build(scene, &["--network", "e2e0", "--allow", "network.host"]).success();
        context(scene, &[("Dockerfile", "FROM e2e.test/busybox\nRUN true\n")]);
        build(scene, &["--network", "nosuch"]).code(1).stderr_has("nosuch");
        let gateway = ["--network", "e2e0", "--add-host", "me:host-gateway"];
        build(scene, &gateway).refused(&["me:host-gateway", "netsetup bridge inspect"]);
        scene.netsetup().args(["bridge", "delete", "e2e0"]).run().success();
    });
}

/// The command's numbers are those of a PID namespace of its own: nobody may take it for dead.
#[test]
fn a_network_of_a_running_command_is_not_collected_and_that_of_a_killed_one_is() {
    scene(|scene| {
        busybox(scene);
        let create = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"];
        scene.netsetup().args(create).run().success();
        let mark = format!("sleep 6{}", std::process::id());
        let file = format!("FROM e2e.test/busybox\nRUN {mark}\n");
        context(scene, &[("Dockerfile", &file)]);
        let words = ["build", "--quiet", "--network", "e2e0"];
        let command = scene.imgtool().args(words).arg(scene.path("context"));
        let mut child = command.start(tempfile::tempfile().unwrap());
        assert!(eventually(|| commands().contains(&mark)), "the command runs");
        let inspect = || scene.netsetup().arg("inspect").run().success().stdout;
        scene.netsetup().arg("gc").run().success();
        assert!(inspect().contains(ON_BRIDGE), "{}", inspect());
        child.kill().unwrap();
        child.wait().unwrap();
        let collected = || {
            scene.netsetup().arg("gc").run().success();
            inspect().trim() == "[]"
        };
        assert!(eventually(collected), "{}", inspect());
        scene.imgtool().args(["prune", "--force"]).run().success();
        scene.netsetup().args(["bridge", "delete", "e2e0"]).run().success();
    });
}
