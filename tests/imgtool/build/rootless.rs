//! Builds of an ordinary user: with the owners that files have where the user has further ids, as one
//! owner's where not.

use std::fs;

use crate::harness::image::{BUSYBOX, Image};
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::tree::{Saved, read_archive};
use crate::harness::{Ordinary, Outcome, Subids, eventually, requires, scene};

const NAME: &str = "e2e.test/rootless-build:new";

/// A user that has loaded busybox with a directory that is not root's.
fn user_with_image(subids: Subids, body: impl Fn(&Ordinary)) {
    requires::program("newuidmap", "uidmap");
    scene(|scene| {
        let user = Ordinary::new(scene, subids);
        let archive = user.home("image.tar");
        let more = Tarball::of([Entry::dir("data").mode(0o750).owner(5, 6)]);
        Image::busybox().layer(more).docker_archive(&archive, BUSYBOX);
        user.own(&archive);
        user.cmd("imgtool").args(["load", "--quiet", "--input"]).arg(&archive).run().success();
        body(&user);
        let left = fs::read_dir(user.home(".local/share/imgtool/staging")).unwrap().count();
        assert_eq!(left, 0, "files in staging");
    });
}

fn context(user: &Ordinary, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = user.home("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    user.own(&user.home("context"));
}

fn build(user: &Ordinary, words: &[&str]) -> Outcome {
    let build = user.cmd("imgtool").args(["build", "--tag", NAME]).args(words);
    build.arg(user.home("context")).run()
}

fn made(user: &Ordinary) -> Saved {
    let archive = user.home("built.tar");
    let save = user.cmd("imgtool").args(["save", "--uncompressed", NAME, "--output"]);
    save.arg(&archive).run().success();
    let read = read_archive(&fs::read(&archive).unwrap());
    fs::remove_file(&archive).unwrap();
    read
}

const FILE: &str = "FROM e2e.test/busybox AS one\n\
    RUN echo x > /made && touch /data/f && mkdir /o && touch /o/old\n\
    RUN rm -r /o && mkdir /o && echo y > /o/new\n\
    FROM e2e.test/busybox\nCOPY a /data/\nCOPY --from=one /data /copied\n\
    RUN --mount=type=secret,id=s --mount=type=cache,target=/c --mount=from=one,target=/m,rw \
    --mount=target=/w,rw cat /run/secrets/s > /seen && touch /c/f /m/f /w/f && ls /m/o > /etc/names\n";

#[test]
fn rootless_commands_leave_the_owners_that_the_container_saw() {
    user_with_image(Subids::Granted, |user| {
        let last =
            "RUN chown user:extra /seen\nUSER user\nRUN id -u > /tmp/own && id -G >> /tmp/own\n";
        context(user, &[("Dockerfile", &format!("{FILE}{last}")), ("a", "A"), ("s", "secret\n")]);
        let secret = format!("id=s,src={}", user.home("context/s").display());
        let words = ["--secret", &secret];
        let built = build(user, &words).success();
        assert!(!built.stderr.contains("one owner"), "{}", built.stderr);
        let tree = made(user).tree(2);
        for (path, expected) in [
            ("data", "dir 750 5:6"),
            ("data/a", "file 644 0:0 \"A\""),
            ("copied", "dir 755 0:0"),
            ("copied/f", "file 644 0:0 \"\""),
            ("seen", "file 644 1000:2000 \"secret\\n\""),
            ("etc/names", "file 644 0:0 \"new\\n\""),
            ("tmp/own", "file 644 1000:1000 \"1000\\n1000 2000\\n\""),
        ] {
            assert_eq!(tree.get(path).map(String::as_str), Some(expected), "{path} in {tree:#?}");
        }
        assert!(!user.home("context/f").exists());
        let again = build(user, &words).success();
        assert_eq!(again.word(), built.word());
        assert_eq!(again.stderr.matches(" CACHED").count(), 7);
        // A directory of the user's own.
        let out = user.home("out");
        build(user, &["--secret", &secret, "-o", out.to_str().unwrap()]).success();
        user.cmd("rm").arg("-r").arg(&out).run().success();
        user.cmd("imgtool").args(["rmi", NAME]).run().success();
        user.cmd("imgtool").args(["prune", "--force", "--build-cache"]).run().success();
        // Where no overlay can be mounted, nothing was unpacked layer by layer.
        let layers = user.home(".local/share/imgtool/layers");
        let left = fs::read_dir(layers).into_iter().flatten().flatten();
        let left = left.map(|kind| fs::read_dir(kind.path()).unwrap().count()).sum::<usize>();
        let copies = built.stderr.contains("copying instead");
        assert_eq!(left, if copies { 0 } else { 2 }, "those of the base");
    });
}

#[test]
fn rootless_build_without_further_ids_has_one_owner_and_says_so() {
    user_with_image(Subids::None, |user| {
        context(user, &[("Dockerfile", FILE), ("a", "A"), ("s", "secret\n")]);
        let secret = format!("id=s,src={}", user.home("context/s").display());
        let built = build(user, &["--secret", &secret]).success();
        built
            .stderr_has("all files and processes get one owner, you: /etc/subuid has no range for");
        let tree = made(user).tree(2);
        assert_eq!(tree["data"], "dir 750 5:6", "what was copied into it changes no owner");
        assert_eq!(tree["seen"], "file 644 0:0 \"secret\\n\"");
        // What a command touched stays its owner's, also when all layers become one.
        let file = "FROM e2e.test/busybox AS one\nCOPY --chown=7:8 a s /data/\nRUN echo B >> /data/a\n\
            FROM e2e.test/busybox\nRUN touch /data/f\nCOPY --from=one /data/a /data/s /copied/\n";
        context(user, &[("Dockerfile", file)]);
        for flags in [&[][..], &["--squash"]] {
            build(user, flags).success();
            let tree = made(user).tree(0);
            assert_eq!(tree["data"], "dir 750 5:6");
            assert_eq!(tree["data/f"], "file 644 0:0 \"\"");
            assert_eq!(tree["copied/a"], "file 644 7:8 \"AB\\n\"");
        }
        let file = "FROM e2e.test/busybox\nUSER user\nRUN true\n";
        context(user, &[("Dockerfile", file)]);
        build(user, &[])
            .code(1)
            .stderr_has("user \"user\" is 1000, which is not among the container's ids");
    });
}

#[test]
fn rootless_commands_of_a_base_are_run_too() {
    user_with_image(Subids::Granted, |user| {
        let file = "FROM e2e.test/busybox\nONBUILD RUN id -u > /uid\n";
        context(user, &[("Dockerfile", file)]);
        build(user, &["--tag", "e2e.test/trigger"]).success();
        context(user, &[("Dockerfile", "FROM e2e.test/trigger\n")]);
        build(user, &[]).success();
        assert_eq!(made(user).tree(2)["uid"], "file 644 0:0 \"0\\n\"");
    });
}

#[test]
fn rootless_build_that_was_killed_leaves_nothing_after_the_next_command() {
    user_with_image(Subids::Granted, |user| {
        let mark = format!("sleep 8{}", std::process::id());
        let file = format!(
            "FROM e2e.test/busybox\nRUN mkdir -m 700 /tmp/d && chown 5:5 /tmp/d && touch /tmp/d/f && {mark}\n"
        );
        context(user, &[("Dockerfile", &file)]);
        let runs = || super::commands().contains(&mark);
        let output = tempfile::tempfile().unwrap();
        let command = user.cmd("imgtool").args(["build", "--quiet"]).arg(user.home("context"));
        let mut child = command.start(output);
        assert!(eventually(runs), "the command runs");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| !runs()), "the command ends with the build");
        user.cmd("imgtool").args(["images"]).run().success();
        user.cmd("imgtool").args(["prune", "--force"]).run().success();
    });
}
