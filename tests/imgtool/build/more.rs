//! Rules, files from the web, and images that come out the same.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Image, NAME, build, busybox, context, load, made, saved, scene};
use crate::harness::command::binary;
use crate::harness::image::BUSYBOX;
use crate::harness::tracer::{self, Traced};
use crate::harness::{Cmd, Ordinary, Subids, requires};

#[test]
fn check_tells_what_is_probably_not_meant_and_builds_nothing() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM e2e.test/busybox as b\nENV a b\nRUN false\nCMD x\nCOPY $nope /\n";
        context(scene, &[("Dockerfile", file)]);
        let checked = build(scene, &["--check"]).code(1);
        for rule in ["FromAsCasing", "LegacyKeyValueFormat", "JSONArgsRecommended", "UndefinedVar"]
        {
            assert!(checked.stdout.contains(&format!("WARNING: {rule}\n")), "{}", checked.stdout);
        }
        assert!(checked.stdout.contains("   2 | >>> ENV a b\n"), "{}", checked.stdout);
        assert!(checked.stderr.contains("4 warnings have been found!"), "{}", checked.stderr);
        context(scene, &[("Dockerfile", "# check=error=true\nFROM e2e.test/busybox\nCMD x\n")]);
        build(scene, &[]).code(1).stderr_has("lint violation found: JSONArgsRecommended");
        build(scene, &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]).success();
        context(scene, &[("Dockerfile", "FROM e2e.test/busybox\nCMD x\n")]);
        build(scene, &[]).success().stderr_has("warning: JSONArgsRecommended: ");
        context(scene, &[("Dockerfile", "FROM e2e.test/busybox\nCMD [\"x\"]\n")]);
        build(scene, &["--check"]).success().stdout_has("Check complete, no warnings found.");
    });
}

/// Serves the files of a directory; ends with the process.
fn serve(root: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let Some(Ok(first)) = lines.next() else { continue };
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/");
            let body = fs::read(root.join(path.trim_start_matches('/')));
            let status = if body.is_ok() { "200 OK" } else { "404 Not Found" };
            let body = body.unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Wed, 21 Oct 2015 \
                 07:28:00 GMT\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // The client may be gone.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

#[test]
fn add_fetches_files_and_repositories() {
    requires::program("git", "git");
    scene(|scene| {
        busybox(scene);
        let web = scene.path("web");
        fs::create_dir_all(&web).unwrap();
        fs::write(web.join("f.txt"), "fetched\n").unwrap();
        let git = "git init -q r && cd r && mkdir sub && echo in-git > sub/g && echo r > README && \
                   git add . && git -c user.name=t -c user.email=t@e commit -qm x && git tag v1 && \
                   cd .. && git clone -q --bare r r.git && git -C r.git update-server-info";
        Cmd::new("sh").args(["-c", git]).dir(&web).run().success();
        let packed = Cmd::line("tar -cf t.tar f.txt").dir(&web).run();
        packed.success();
        let url = serve(web.clone());
        let sum = crate::harness::image::digest(b"fetched\n");
        let file = format!(
            "FROM e2e.test/busybox\nADD {url}/f.txt /dir/\nADD --checksum={sum} --chmod=644 {url}/f.txt /named\n\
             ADD {url}/t.tar /kept/\nADD --unpack=true {url}/t.tar /unpacked/\n\
             ADD {url}/r.git#v1 /repo\nADD {url}/r.git?subdir=sub /sub\n"
        );
        context(scene, &[("Dockerfile", &file)]);
        let first = build(scene, &[]).success();
        let tree = made(scene);
        assert_eq!(tree["dir/f.txt"], "file 600 0:0 \"fetched\\n\"");
        assert_eq!(tree["named"], "file 644 0:0 \"fetched\\n\"");
        assert!(tree.contains_key("kept/t.tar") && !tree.contains_key("kept/f.txt"));
        assert!(tree.contains_key("unpacked/f.txt"));
        assert_eq!(tree["repo/sub/g"], "file 644 0:0 \"in-git\\n\"");
        assert!(!tree.keys().any(|path| path.contains(".git")), "{tree:?}");
        assert_eq!(tree["sub/g"], tree["repo/sub/g"]);
        assert_eq!(build(scene, &[]).success().word(), first.word());
        fs::write(web.join("f.txt"), "another\n").unwrap();
        build(scene, &[]).code(1).stderr_has("digest mismatch");
        for (line, words) in [
            (format!("ADD {url}/nosuch /x"), "404"),
            (format!("ADD {url}/r.git#--upload-pack=touch${{IFS}}/x /x"), "is no name of a branch"),
            (format!("ADD {url}/r.git#v1:../../etc /x"), "open the directory"),
            (format!("ADD {url}/r.git?checksum=0123456789 /x"), "expected checksum to match"),
            ("ADD ssh://-oProxyCommand=touch/r.git /x".to_owned(), "names no host"),
        ] {
            context(scene, &[("Dockerfile", &format!("FROM e2e.test/busybox\n{line}\n"))]);
            build(scene, &[]).code(1).stderr_has(words);
        }
    });
}

/// Root now, and an ordinary user with another mask an hour later by the clock.
#[test]
fn two_users_an_hour_apart_make_the_same_digest_of_the_same_source_date() {
    requires::program("newuidmap", "uidmap");
    scene(|scene| {
        let archive = load(scene, &Image::busybox(), BUSYBOX);
        let user = Ordinary::new(scene, Subids::Granted);
        let own = user.home("image.tar");
        fs::copy(archive, &own).unwrap();
        user.own(&own);
        user.cmd("imgtool").args(["load", "--quiet", "--input"]).arg(&own).run().success();
        let file = "FROM e2e.test/busybox AS one\nRUN mkdir /d && echo x > /d/f && mkfifo /d/p\n\
                    FROM e2e.test/busybox\nWORKDIR /w\nCOPY --from=one /d /d\nCOPY a /b/\n\
                    COPY <<T /text\nhello\nT\nRUN echo y > made && chown user made && rm /bin/dd\n";
        context(scene, &[("Dockerfile", file), ("a", "A")]);
        let line = |mask: &str| format!("umask {mask}; exec \"$@\"");
        let epoch = ["env", "SOURCE_DATE_EPOCH=1700000000"];
        let (ours, theirs) = (scene.path("metadata"), user.home("metadata"));
        let build = |command: Cmd, metadata: &Path| {
            let words = ["build", "--progress", "rawjson", "--metadata-file"];
            command.args(words).arg(metadata).arg(scene.path("context"))
        };
        let root = Cmd::new("sh").args(["-c", &line("077"), "sh"]).args(epoch);
        let root = root.arg(binary("imgtool")).arg("--root").arg(scene.store());
        let first = tracer::trace(build(root, &ours));
        let other = user.cmd("sh").args(["-c", &line("022"), "sh"]).args(epoch).arg("imgtool");
        let second = tracer::ahead(build(other, &theirs), 3600);
        let told = |traced: &Traced, metadata: &Path| {
            assert_eq!(traced.code, 0, "{}", traced.stderr);
            let (_, begun) = traced.stderr.split_once("\"started\":\"").expect("steps have times");
            let told: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
            let digest = told["containerimage.digest"].as_str().unwrap().to_owned();
            (begun[.."2026-11-30T17".len()].to_owned(), digest)
        };
        let (first, second) = (told(&first, &ours), told(&second, &theirs));
        let ((now, first), (later, second)) = (first, second);
        assert!(later > now, "{now} and {later}");
        assert_eq!(first, second);
    });
}

/// Whatever the user's mask and the hour.
#[test]
fn the_same_source_date_gives_the_same_digest() {
    scene(|scene| {
        busybox(scene);
        let file = "FROM e2e.test/busybox AS one\nRUN mkdir /d && echo x > /d/f && mkfifo /d/p\n\
                    FROM e2e.test/busybox\nWORKDIR /w\nCOPY --from=one /d /d\nCOPY a b/\nADD a /deep/er/\n\
                    COPY <<T /text\nhello\nT\nRUN echo y > made && touch -d @5000000000 later && rm /bin/dd\n\
                    LABEL l=1\n";
        context(scene, &[("Dockerfile", file), ("a", "A"), ("b", "B")]);
        let mut ids = Vec::new();
        for (mask, day) in [("022", "2031-01-01"), ("077", "2001-01-01")] {
            Cmd::line("touch -d").args([day]).arg(scene.path("context/b")).run().success();
            let line = format!("umask {mask}; exec \"$0\" build -q --no-cache -t {NAME} \"$1\"");
            let imgtool = crate::harness::command::binary("imgtool");
            let build = Cmd::new("sh").args(["-c", &line]).arg(imgtool);
            let build = build.arg(scene.path("context")).env("IMGTOOL_ROOT", scene.store());
            let built = build.env("SOURCE_DATE_EPOCH", "1700000000").run().success();
            ids.push((built.word().to_owned(), saved(scene, NAME).config.to_string()));
            scene.imgtool().args(["prune", "--force", "--build-cache"]).run().success();
        }
        assert_eq!(ids[0], ids[1]);
        assert!(ids[0].1.contains("\"created\":\"2023-11-14T22:13:20Z\""), "{}", ids[0].1);
    });
}
