//! RUN --mount: of every type, and without a trace.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Image, NAME, build, busybox, context, load, made, saved, scene};
use crate::harness::Cmd;
use crate::harness::command::binary;
use crate::harness::image::BUSYBOX;

#[test]
fn mounts_of_every_type_serve_a_command_and_leave_no_trace() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM e2e.test/busybox AS other\nRUN mkdir /o && echo other > /o/f && ln -s /o /l\n\
            FROM e2e.test/busybox\nWORKDIR /work\n\
            RUN --mount=target=/ctx --mount=source=d/f,target=rel/f \
              cat /ctx/d/f rel/f > /one && ! touch /ctx/new && ls -A /ctx >> /one\n\
            RUN --mount=target=/ctx,rw echo changed > /ctx/d/f && cat /ctx/d/f > /two\n\
            RUN --mount=from=other,source=/l,target=/mnt/deep/o,rw --mount=from=e2e.test/busybox,target=/b \
              cat /mnt/deep/o/f > /three && echo y > /mnt/deep/o/g && test -e /b/bin/sh\n\
            RUN --mount=type=tmpfs,target=/scratch,size=1m echo x > /scratch/f && grep /scratch /proc/mounts > /dev/null\n\
            RUN --mount=type=secret,id=key --mount=type=secret,id=word,env=WORD,required \
              cat /run/secrets/key > /four && ls -l /run/secrets/key >> /four && test ${#WORD} = 8\n\
            RUN --mount=type=secret,id=nosuch ! test -e /run/secrets/nosuch\n";
        context(scene, &[("Dockerfile", file), ("d/f", "context\n"), (".dockerignore", "*.log\n")]);
        context(scene, &[("x.log", "ignored"), ("../key", "s3cr3t\n")]);
        let key = format!("id=key,src={}", scene.path("key").display());
        let words = ["--secret", &key, "--secret", "id=word,env=WORD"];
        let built = scene.imgtool().env("WORD", "from-env").args(["build", "-t", NAME]).args(words);
        built.arg(scene.path("context")).run().success();
        let tree = made(scene);
        let text = |path: &str| tree[path].split_once('"').unwrap().1.to_owned();
        assert_eq!(text("one"), "context\\ncontext\\n.dockerignore\\nDockerfile\\nd\\n\"");
        assert_eq!(text("two"), "changed\\n\"");
        assert_eq!(text("three"), "other\\n\"");
        assert!(text("four").starts_with("s3cr3t\\n-r--------"), "{}", text("four"));
        let paths: Vec<&str> = tree.keys().map(String::as_str).collect();
        assert_eq!(paths, ["four", "one", "three", "two", "work"]);
        assert_eq!(fs::read_to_string(scene.path("context/d/f")).unwrap(), "context\n");
        let config = saved(scene, NAME).config.to_string();
        assert!(!config.contains("from-env") && !config.contains("s3cr3t"), "{config}");
        // Nor in anything that is kept: blobs are compressed, records are not.
        let kept = crate::harness::Cmd::line("grep -rl from-env").arg(scene.store()).run();
        assert_eq!(kept.stdout, "");
    });
}

#[test]
fn a_cache_outlives_its_build_and_stays_in_its_place() {
    scene(|scene| {
        busybox(scene);
        let run = |mount: &str| {
            let file = format!(
                "FROM e2e.test/busybox\nRUN --mount=type=cache,{mount} \
                 echo x >> /c/n && cat /c/n > /seen && ls -ld /c > /mode\n"
            );
            context(scene, &[("Dockerfile", &file)]);
            build(scene, &["--no-cache"]).success();
            let tree = made(scene);
            (tree["seen"].matches('x').count(), tree["mode"].clone())
        };
        assert_eq!(run("target=/c").0, 1);
        assert_eq!(run("target=/c,sharing=locked").0, 2);
        assert_eq!(run("id=/c,target=/c,sharing=private").0, 3);
        let (count, mode) = run("id=../../../../../../escape,target=/c,mode=0751,uid=1000");
        assert_eq!(count, 1);
        assert!(mode.contains("drwxr-x--x") && mode.contains("user"), "{mode}");
        let directory = scene.path("");
        let here = fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.file_name());
        assert!(here.into_iter().all(|name| name != "escape"));
        assert_eq!(fs::read_dir(scene.store().join("build/mounts")).unwrap().count(), 4);
        scene.imgtool().args(["prune", "--force", "--build-cache"]).run().success();
        assert!(!scene.store().join("build").exists());
    });
}

/// Where no overlay can be mounted, commands run in copies and come to the same.
#[test]
fn a_build_in_a_store_on_an_overlay_comes_to_the_same_by_copies() {
    scene(|scene| {
        let archive = load(scene, &Image::busybox(), BUSYBOX);
        let file = "FROM e2e.test/busybox AS one\nRUN echo x > /made && rm -r /etc/group && touch /etc/f\n\
                    RUN ln /made /linked && mkdir -p /d/e\nFROM one\nCOPY a /d/\n\
                    RUN --mount=from=one,target=/m,rw --mount=target=/w,rw touch /m/x /w/x && rm /d/a\n";
        context(scene, &[("Dockerfile", file), ("a", "A"), (".dockerignore", "b")]);
        let words = ["--quiet", "--no-cache"];
        build(scene, &words).success();
        let stacked = made(scene);
        let over = scene.path("over");
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(over.join(name)).unwrap();
        }
        let script = "set -e
            mount -t overlay -o lowerdir=$0/lower,upperdir=$0/upper,workdir=$0/work o $0/merged
            imgtool() { \"$1\" --root $0/merged/store \"${@:2}\"; }
            imgtool \"$1\" load -q -i \"$2\"
            imgtool \"$1\" build -t \"$4\" \"$3\"
            imgtool \"$1\" save -o \"$5\" \"$4\"
            ls $0/merged/store/staging";
        let saved = scene.path("saved.tar");
        let done = Cmd::line("unshare --mount --propagation private -- bash -c").arg(script);
        let done = done.arg(&over).arg(binary("imgtool")).arg(&archive).arg(scene.path("context"));
        let done = done.arg(NAME).arg(&saved).run().success();
        let done = done.stderr_has("no overlay can be mounted here, copying instead");
        assert_eq!(done.stdout.lines().count(), 1, "files in staging: {}", done.stdout);
        scene.imgtool().args(["load", "-i"]).arg(&saved).run().success();
        assert_eq!(made(scene), stacked);
        assert!(!scene.path("context/x").exists());
    });
}

/// What a stage or a context holds leads to no file of the host (CVE-2024-1753), nor do targets.
#[test]
fn links_lead_mounts_nowhere_but_into_their_own_tree() {
    scene(|scene| {
        busybox(scene);
        let secret = scene.path("host-secret");
        fs::write(&secret, "of the host\n").unwrap();
        let host = secret.display().to_string();
        context(scene, &[("d/f", "context\n")]);
        symlink(&secret, scene.path("context/out")).unwrap();
        symlink("../../../../../../..", scene.path("context/up")).unwrap();
        let stage =
            format!("FROM e2e.test/busybox AS evil\nRUN ln -s / /root && ln -s {host} /file\n");
        for (lines, words) in [
            ("FROM e2e.test/busybox\nRUN --mount=source=out,target=/m cat /m\n", "not found"),
            ("FROM e2e.test/busybox\nCOPY out /m\n", "not found"),
            (
                "FROM e2e.test/busybox\nRUN --mount=from=evil,source=/file,target=/m cat /m\n",
                "not found",
            ),
            ("FROM e2e.test/busybox\nCOPY --from=evil /file /m\n", "not found"),
            // The roots are those of the stage and of the context.
            (
                "FROM e2e.test/busybox\nRUN --mount=from=evil,source=/root,target=/m test ! -e /m$HOST && test -e /m/bin/sh && false\n",
                "exit code: 1",
            ),
            (
                "FROM e2e.test/busybox\nRUN --mount=source=up,target=/m test -e /m/d/f && false\n",
                "exit code: 1",
            ),
            ("FROM e2e.test/busybox\nRUN --mount=target=/ true\n", "the root can't be mounted on"),
            (
                "FROM e2e.test/busybox\nRUN --mount=target=/m,bind-propagation=shared true\n",
                "unexpected key",
            ),
            (
                "FROM e2e.test/busybox\nRUN --mount=type=secret,id=x,required true\n",
                "secret x: not found",
            ),
        ] {
            let file = format!("{stage}{}", lines.replace("$HOST", &host));
            context(scene, &[("Dockerfile", &file)]);
            let failed = build(scene, &[]).code(1);
            assert!(failed.stderr.contains(words), "{words:?} in\n{}", failed.stderr);
            assert!(!failed.stderr.contains("of the host"), "{}", failed.stderr);
        }
        // A target that a link of the image leads elsewhere stays in the container.
        let file = format!(
            "FROM e2e.test/busybox\nRUN ln -s {} /l\nRUN --mount=type=tmpfs,target=/l/t touch /l/t/f\n",
            scene.path("context").display()
        );
        context(scene, &[("Dockerfile", &file)]);
        build(scene, &[]).success();
        assert!(!scene.path("context/t").exists());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host\n");
    });
}
