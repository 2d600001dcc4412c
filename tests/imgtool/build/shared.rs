//! What is shared: stages at the same time, caches with other machines, images with registries and for
//! several platforms.

use std::fs;

use serde_json::Value;

use super::{BUSYBOX, Image, NAME, build, busybox, context, made, saved, scene};
use crate::harness::image::Compression;
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Outcome, Scene};

/// Each of them waits for what the other one does.
#[test]
fn stages_that_do_not_need_each_other_are_built_side_by_side() {
    scene(|scene| {
        busybox(scene);
        let meet = |own: &str, other: &str| {
            format!(
                "RUN --mount=type=cache,target=/c touch /c/{own}; \
                 until test -e /c/{other}; do sleep 0.05; done; echo {own} > /{own}\n"
            )
        };
        let file = format!(
            "FROM e2e.test/busybox AS one\n{}FROM e2e.test/busybox AS two\n{}FROM scratch\n\
             COPY --from=one /a /\nCOPY --from=two /b /\n",
            meet("a", "b"),
            meet("b", "a")
        );
        context(scene, &[("Dockerfile", &file)]);
        build(scene, &[]).success();
        let tree = saved(scene, NAME).tree(0);
        assert_eq!(
            (&tree["a"][..], &tree["b"][..]),
            ("file 644 0:0 \"a\\n\"", "file 644 0:0 \"b\\n\"")
        );
        // What fails is told of once, with its own lines.
        let file = "FROM e2e.test/busybox AS one\nRUN exit 7\nFROM e2e.test/busybox AS two\nRUN true\n\
                    FROM scratch\nCOPY --from=two /bin/sh /\nCOPY --from=one /a /\n";
        context(scene, &[("Dockerfile", file)]);
        let failed = build(scene, &[]).code(1).stderr_has("   2 | >>> RUN exit 7\n");
        let last = failed.stderr.lines().last().unwrap().to_owned();
        assert!(last.ends_with("exit code: 7"), "{last}");
    });
}

fn cached(outcome: &Outcome) -> usize {
    outcome.stderr.matches(" CACHED").count()
}

/// Builds in a store that has the base and nothing else.
fn elsewhere(scene: &Scene, name: &str, words: &[&str]) -> Outcome {
    let store = scene.path(name);
    let imgtool = || scene.imgtool().arg("--root").arg(&store);
    let archive = Image::busybox().docker_archive(&scene.path("base.tar"), BUSYBOX);
    imgtool().args(["load", "--quiet", "--input"]).arg(&archive).run().success();
    imgtool().args(["build", "--tag", NAME]).args(words).arg(scene.path("context")).run()
}

#[test]
fn what_steps_made_goes_to_other_machines_by_layouts_and_registries() {
    scene(|scene| {
        busybox(scene);
        let registry = Registry::start(scene);
        let file = "FROM e2e.test/busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
                    FROM e2e.test/busybox\nRUN cat /proc/sys/kernel/random/uuid > /own\n\
                    COPY --from=one /id /id\nRUN true\n";
        context(scene, &[("Dockerfile", file)]);
        let dir = scene.path("cache").display().to_string();
        let name = format!("{}/team/cache:main", registry.host);
        let to = format!("type=local,dest={dir},mode=max");
        let words = ["--cache-to", &to, "--cache-to", &format!("type=registry,ref={name}")];
        let built = build(scene, &words).success();
        assert_eq!(cached(&built), 0);

        let from = format!("type=local,src={dir}");
        let there = elsewhere(scene, "store-a", &["--cache-from", &from]).success();
        assert_eq!((cached(&there), there.word()), (4, built.word()));
        // The other one has the steps of the target alone.
        let from = format!("type=registry,ref={name}");
        let there = elsewhere(scene, "store-b", &["--cache-from", &from]).success();
        assert_eq!(cached(&there), 1, "{}", there.stderr);

        // No layer is taken that is not what the list says of it, and no list that was changed.
        let blobs = scene.path("cache/blobs/sha256");
        for blob in fs::read_dir(&blobs).unwrap().flatten() {
            let mut bytes = fs::read(blob.path()).unwrap();
            if bytes.starts_with(&[0x1f, 0x8b]) {
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(blob.path(), bytes).unwrap();
            }
        }
        let from = format!("type=local,src={dir}");
        let there = elsewhere(scene, "store-c", &["--cache-from", &from]).success();
        assert!(there.stderr.contains("warning: a step of --cache-from: "), "{}", there.stderr);
        assert_ne!(there.word(), built.word());
        let nothing = format!("type=local,src={}", scene.path("none").display());
        let there = elsewhere(scene, "store-d", &["--cache-from", &nothing]).success();
        assert!(there.stderr.contains("warning: --cache-from: "), "{}", there.stderr);
        build(scene, &["--cache-to", "type=gha"]).refused(&["type is one of registry and local"]);
        build(scene, &["--cache-to", "type=local,src=x"]).refused(&["src= is none of"]);
    });
}

#[test]
fn images_for_several_platforms_are_built_as_one_and_pushed() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let file = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nENV A=$TARGETARCH\n";
        context(scene, &[("Dockerfile", file), ("amd64", "x"), ("arm64", "y")]);
        let name = format!("{}/team/both:v1", registry.host);
        let second = format!("{}/team/other:v2", registry.host);
        let out = scene.path("out").display().to_string();
        let output = format!("type=registry,name={second}");
        let platforms = "linux/amd64,linux/arm64";
        let words = ["--platform", platforms, "-t", &name, "--push", "-o", &output, "-o", &out];
        let built = scene.imgtool().arg("build").args(words).arg(scene.path("context"));
        let built = built.run().success();
        for name in ["team/both:v1", "team/other:v2"] {
            assert_eq!(registry.digest(name), built.word());
        }
        assert_eq!(fs::read_to_string(scene.path("out/linux_arm64/arch")).unwrap(), "y");
        assert_eq!(fs::read_to_string(scene.path("out/linux_amd64/arch")).unwrap(), "x");
        let index = scene.imgtool().args(["inspect", "--raw", &name]).run().success().json();
        let of = |number: usize| index["manifests"][number]["platform"]["architecture"].clone();
        assert_eq!((of(0), of(1)), (Value::from("amd64"), Value::from("arm64")));
        context(scene, &[("Dockerfile", "FROM scratch\nRUN [\"/x\"]\n")]);
        let refused = build(scene, &["--platform", "linux/s390x"]).code(1);
        refused.stderr_has("this host can't execute programs for linux/s390x");
        let unnamed = scene.imgtool().args(["build", "--push"]).arg(scene.path("context")).run();
        unnamed.refused(&["an image that is pushed needs a name"]);
    });
}

#[test]
fn an_image_of_a_layout_stands_for_a_name() {
    scene(|scene| {
        let image = Image::busybox().layer(Tarball::of([Entry::file("extra", "e")]));
        let layout = scene.path("layout");
        image.layout(&layout, "e2e.test/laid/out:v3", Compression::Gzip);
        context(
            scene,
            &[("Dockerfile", "FROM base\nRUN cat /extra > /seen\nCOPY --from=base /extra /e\n")],
        );
        let word = format!("base=oci-layout://{}", layout.display());
        build(scene, &["--build-context", &word]).success();
        let tree = made(scene);
        assert_eq!((&tree["seen"], &tree["e"]), (&tree["extra"], &tree["extra"]));
        let word = format!("base=oci-layout://{}:nosuch", layout.display());
        build(scene, &["--build-context", &word]).code(1).stderr_has("there is no image nosuch");
    });
}

#[test]
fn a_command_may_do_more_only_if_it_asks_and_is_allowed_to() {
    scene(|scene| {
        busybox(scene);
        let file = |flags: &str| {
            format!(
                "FROM e2e.test/busybox\nRUN {flags} grep CapEff /proc/self/status > /caps; \
                 grep Seccomp: /proc/self/status >> /caps; echo d > /proc/sys/kernel/domainname && echo w >> /caps; true\n"
            )
        };
        context(scene, &[("Dockerfile", &file(""))]);
        build(scene, &["--allow", "security.insecure"]).success();
        let usual = made(scene)["caps"].clone();
        assert!(usual.contains("00000000a80425fb\\nSeccomp:\\t2\\n\""), "{usual}");
        context(scene, &[("Dockerfile", &file("--security=insecure"))]);
        build(scene, &[]).code(1).stderr_has("give --allow security.insecure");
        build(scene, &["--allow", "security.insecure"]).success();
        let insecure = made(scene)["caps"].clone();
        assert!(insecure.contains("Seccomp:\\t0\\nw\\n"), "{insecure}");
        assert!(!insecure.contains("a80425fb"), "{insecure}");
        build(scene, &["--allow", "all"]).refused(&["security.insecure or network.host"]);
    });
}
