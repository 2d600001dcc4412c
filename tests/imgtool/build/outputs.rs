//! Where files come from beside the context, and where an image goes beside the store.

use std::fs;

use serde_json::Value;

use super::{NAME, busybox, context, saved, scene};

#[test]
fn an_image_goes_into_directories_and_archives() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM e2e.test/busybox AS made\nRUN mkdir /out && echo x > /out/f && chmod 750 /out\n\
                    FROM scratch\nCOPY --from=made /out /out\nCMD [\"x\"]\n";
        context(scene, &[("Dockerfile", file)]);
        let out = scene.path("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("kept"), "mine").unwrap();
        let images = || scene.imgtool().args(["images", "-aq"]).run().success().stdout;
        let before = images();
        let build = |words: &[&str]| {
            let build = scene.imgtool().arg("build").args(words).arg(scene.path("context"));
            build.run().success()
        };
        build(&["-o", out.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(out.join("out/f")).unwrap(), "x\n");
        assert_eq!(fs::read_to_string(out.join("kept")).unwrap(), "mine");
        let at = |name: &str| scene.path(name).display().to_string();
        let (tar, oci) = (at("o.tar"), at("o.oci"));
        let tar_word = format!("type=tar,dest={tar}");
        let oci_word = format!("type=oci,dest={oci}");
        build(&["-o", &tar_word, "-o", &oci_word]);
        assert_eq!(images(), before, "none of them is kept");
        let listed = crate::harness::Cmd::line("tar -tf").arg(&tar).run().success().stdout;
        assert!(listed.contains("out/f\n"), "{listed}");
        let docker = at("o.docker");
        let (metadata, word) = (at("metadata"), format!("type=docker,dest={docker}"));
        let flags = ["-t", NAME, "-o", &word, "--metadata-file", &metadata];
        let built = build(&[&flags[..], &["--annotation", "a.b=c", "--label", "l=m"]].concat());
        let told: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
        assert_eq!(told["containerimage.config.digest"], built.word());
        assert_eq!(told["image.name"], "e2e.test/build:new");
        let manifest = scene.imgtool().args(["inspect", "--raw", NAME]).run().success().json();
        assert_eq!(manifest["annotations"]["a.b"], "c");
        assert_eq!(saved(scene, NAME).config["config"]["Labels"]["l"], "m");
        for archive in [&oci, &docker] {
            scene.imgtool().args(["load", "-i", archive]).run().success();
            assert_eq!(saved(scene, NAME).tree(0)["out"], "dir 755 0:0");
        }
        scene.imgtool().args(["build", "-o", "type=zip", "."]).run().refused(&["type is one of"]);
    });
}

#[test]
fn squashing_keeps_the_tree_in_one_layer() {
    scene(|scene| {
        busybox(scene);
        let file =
            "FROM e2e.test/busybox\nRUN rm /etc/group && echo 1 > /a\nRUN rm /a && echo 2 > /b\n";
        context(scene, &[("Dockerfile", file)]);
        super::build(scene, &[]).success();
        let plain = saved(scene, NAME);
        super::build(scene, &["--squash"]).success();
        let squashed = saved(scene, NAME);
        assert_eq!((plain.layers.len(), squashed.layers.len()), (3, 1));
        assert_eq!(plain.tree(0), squashed.tree(0));
        assert_eq!(plain.config["config"], squashed.config["config"]);
    });
}

#[test]
fn names_stand_for_other_contexts() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM base AS one\nCOPY --from=files f /f\nRUN --mount=from=files,target=/m cat /m/f > /g\n\
                    FROM other\nCOPY --from=one /g /g\n";
        context(scene, &[("Dockerfile", file), ("../more/f", "more\n"), ("../more/x.log", "")]);
        let files = format!("files={}", scene.path("more").display());
        let words = [
            "--build-context",
            &files,
            "--build-context",
            "base=docker-image://e2e.test/busybox",
            "--build-context",
            "other=target:one",
        ];
        super::build(scene, &words).success();
        let tree = saved(scene, NAME).tree(1);
        assert_eq!(tree["f"], "file 644 0:0 \"more\\n\"");
        assert_eq!(tree["g"], tree["f"]);
        let wrong = ["--build-context", "x=ftp://y"];
        super::build(scene, &wrong).refused(&["ftp://y", "no build context"]);
    });
}

#[test]
fn what_scripts_say_to_docker_is_understood() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM e2e.test/busybox AS one\nRUN grep -c . /etc/hosts > /n; grep other /etc/hosts > /h; \
                    ls /sys/class/net > /nets\nFROM one\nRUN cat /proc/sys/kernel/random/uuid > /id\n";
        context(scene, &[("Dockerfile", file)]);
        let words = ["--network", "none", "--add-host", "other:10.1.2.3", "--rm", "--force-rm"];
        super::build(scene, &words).success();
        let tree = saved(scene, NAME).tree(1);
        assert_eq!(tree["n"], "file 644 0:0 \"3\\n\"");
        assert_eq!(tree["h"], "file 644 0:0 \"10.1.2.3\\tother\\n\"");
        assert_eq!(tree["nets"], "file 644 0:0 \"lo\\n\"");
        let again = [&words[..], &["--no-cache-filter", "1", "--progress", "rawjson"]].concat();
        let built = super::build(scene, &again).success();
        let now = saved(scene, NAME).tree(1);
        assert_ne!(now["id"], tree["id"]);
        let records: Vec<Value> =
            built.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let cached = |record: &&Value| record["vertexes"][0]["cached"] == true;
        assert_eq!(records.iter().filter(cached).count(), 1, "{}", built.stderr);
        super::build(scene, &["--add-host", "x y"]).refused(&["want NAME:ADDRESS"]);
        super::build(scene, &["--network", "a b"]).refused(&["the name of a bridge"]);
        super::build(scene, &["--pull"]).code(1).stderr_has("pull e2e.test/busybox");
    });
}
