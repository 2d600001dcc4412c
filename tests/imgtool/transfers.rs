//! Downloads by many at once, of much from little, under other digests, and as a person sees them.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::{Cmd, Image, scene};
use crate::harness::hostile::{Content, Hostile, reply};
use crate::harness::image::digest;
use crate::harness::tarball::{Entry, Tarball};

fn content(files: usize) -> Content {
    let layer = |n: usize| Tarball::of([Entry::file(&format!("{n}"), vec![b'x'; 300_000 + n])]);
    Content::new((0..files).map(|n| layer(n).bytes()).collect())
}

#[test]
fn many_pull_one_image_at_the_same_time_and_all_have_it() {
    const PULLS: usize = 6;
    scene(|scene| {
        let (content, started) = (content(5), std::sync::Barrier::new(PULLS));
        let registry = Hostile::start(move |request, stream| {
            // Nobody gets the manifest before all ask for it.
            if request.path.contains("/manifests/") {
                started.wait();
            }
            content.answer(request, stream);
        });
        let name = registry.name();
        std::thread::scope(|threads| {
            for _ in 0..PULLS {
                let pull = scene.imgtool().args(["pull", &name]);
                threads.spawn(|| pull.run().success().stdout_has("Digest: sha256:"));
            }
        });
        scene.imgtool().arg("verify").run().success().stdout_has("1 images and 7 blobs are whole");
        assert_eq!(fs::read_dir(scene.store().join("staging")).unwrap().count(), 0);
        let layers = fs::read_dir(scene.store().join("layers/sha256")).unwrap().count();
        assert_eq!(layers, 5);
    });
}

#[test]
fn a_layer_that_expands_without_measure_is_refused_unless_the_limit_is_raised() {
    scene(|scene| {
        let bomb = scene.path("bomb");
        let make = "(printf 'x'; head -c 360M /dev/zero) > x && tar -c x | gzip -9 > $0; rm x";
        Cmd::new("sh").args(["-c", make]).arg(&bomb).dir(scene.path("").as_path()).run().success();
        let plain = Cmd::new("sh").args(["-c", "gzip -dc $0 | sha256sum"]).arg(&bomb).run();
        let diff_id = format!("sha256:{}", plain.success().stdout.split(' ').next().unwrap());
        let packed = fs::read(&bomb).unwrap();
        assert!(packed.len() < 1 << 20);
        let mut content = Content::new(vec![packed]);
        let config = String::from_utf8(content.config.clone()).unwrap();
        let layer = crate::harness::image::digest(&content.layers[0]);
        content.config = config.replace(&layer, &diff_id).into_bytes();
        let config = content.config.clone();
        let content = content.change(|manifest| {
            manifest["config"]["digest"] = crate::harness::image::digest(&config).into();
            manifest["layers"][0]["mediaType"] =
                "application/vnd.oci.image.layer.v1.tar+gzip".into();
        });
        let registry = Hostile::start(move |request, stream| content.answer(request, stream));
        let pull = |flags: &[&str]| scene.imgtool().arg("pull").args(flags).arg(registry.name());
        pull(&[]).run().refused(&["bomb", "--max-expansion"]);
        let used = Cmd::line("du -sm").arg(scene.store()).run().success().stdout;
        assert!(used.starts_with("0\t") || used.starts_with("1\t"), "{used}");
        pull(&["--max-expansion", "2000"]).run().success();
    });
}

#[test]
fn sha512_is_as_good_as_sha256_and_what_is_neither_is_refused_before_it_is_a_path() {
    scene(|scene| {
        let sum = |bytes: &[u8]| {
            let file = scene.path("summed");
            fs::write(&file, bytes).unwrap();
            let sum = Cmd::line("sha512sum").arg(&file).run().success().stdout;
            format!("sha512:{}", sum.split(' ').next().unwrap())
        };
        let mut of = content(1);
        let layer = of.layers[0].clone();
        let named = sum(&layer);
        of = of.change(|manifest| manifest["layers"][0]["digest"] = named.clone().into());
        let registry =
            Hostile::start(move |request, stream| match request.path.contains("/blobs/sha512:") {
                true => reply(stream, "200 OK", "", &layer),
                false => of.answer(request, stream),
            });
        scene.imgtool().args(["pull", &registry.name()]).run().success();
        assert_eq!(fs::read_dir(scene.store().join("blobs/sha512")).unwrap().count(), 1);
        scene.imgtool().arg("verify").run().success();
        let (saved, name) = (scene.path("saved.tar"), registry.name());
        scene.imgtool().args(["save", &name, "-o"]).arg(&saved).run().success();
        scene.imgtool().args(["rmi", &name]).run().success();
        scene.imgtool().args(["load", "-i"]).arg(&saved).run().success();
        for bad in ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:x", "sha256:../../x", "x"] {
            let lying = content(1).change(|manifest| manifest["layers"][0]["digest"] = bad.into());
            let registry = Hostile::start(move |request, stream| lying.answer(request, stream));
            let told = scene.imgtool().args(["pull", &registry.name()]).run();
            told.refused(&["digest"]);
            assert!(registry.asked().iter().all(|request| !request.path.contains("/blobs/")));
        }
    });
}

#[test]
fn bars_with_speed_and_time_left_on_a_terminal_and_plain_lines_elsewhere() {
    scene(|scene| {
        let content =
            Content::new(vec![Tarball::of([Entry::file("x", vec![7; 9_000_000])]).bytes()]);
        let registry = Hostile::start(move |request, stream| match content.layer(request) {
            None => content.answer(request, stream),
            Some(layer) => {
                use std::io::Write;
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", layer.len());
                let (_never, wait) = std::sync::mpsc::channel::<()>();
                for piece in layer.chunks(500_000) {
                    let _ = stream.write_all(piece);
                    let _ = wait.recv_timeout(Duration::from_millis(25));
                }
            }
        });
        let pull = || scene.imgtool().args(["pull", &registry.name()]);
        let lines = pull().run().success();
        assert!(!lines.stdout.contains('\r') && lines.stderr.is_empty(), "{lines:?}");
        lines.stdout_has(": Pulling fs layer\n").stdout_has(": Pull complete\n");
        scene.imgtool().args(["rmi", &registry.name()]).run().success();
        let shown = pull().on_terminal().run().success().stdout;
        for word in
            ["Downloading [", "=>", "/8.58 MiB", "MiB/s", "Pull complete", "Digest: sha256:"]
        {
            assert!(shown.contains(word), "{word:?} in {shown:?}");
        }
        let left = shown.split("MiB/s ").nth(1).unwrap();
        assert!(left.split(' ').next().unwrap().trim_end().contains('s'), "{left:?}");
        scene.imgtool().args(["rmi", &registry.name()]).run().success();
        let quiet = pull().arg("--quiet").on_terminal().run().success().stdout;
        assert_eq!(quiet.trim_end(), registry.name());
    });
}

#[test]
fn layers_that_are_loaded_are_shown_on_a_terminal_only() {
    scene(|scene| {
        let image = Image::probe(&[]);
        let archive = image.docker_archive(&scene.path("image.tar"), "e2e.test/loaded:1");
        let load = || scene.imgtool().args(["load", "-i"]).arg(&archive);
        let shown = load().on_terminal().run().success().stdout;
        let layer = digest(&image.layers[0]);
        let bar = format!("{}: Loading layer [", &layer["sha256:".len()..][..12]);
        assert!(shown.contains(&bar) && shown.contains("MiB/s"), "{bar:?} in {shown:?}");
        assert!(!shown.contains(".json: Loading"), "{shown:?}");
        assert!(shown.ends_with("Loaded image: e2e.test/loaded:1\r\n"), "{shown:?}");
        let lines = load().run().success();
        assert_eq!((&*lines.stdout, &*lines.stderr), ("Loaded image: e2e.test/loaded:1\n", ""));
        let quiet = load().arg("--quiet").on_terminal().run().success();
        assert_eq!(quiet.stdout, "");
    });
}

#[test]
fn a_helper_is_a_name_and_no_path() {
    scene(|scene| {
        let registry = Hostile::start(|_, stream| reply(stream, "200 OK", "", b"{\"tags\":[]}"));
        let canary = scene.path("ran");
        for helper in ["../../evil", "x;touch ran", "a b", "\u{1b}[31m"] {
            let file = scene.path("auth.json");
            fs::write(&file, json!({ "credHelpers": { &registry.host: helper } }).to_string())
                .unwrap();
            let list = scene.imgtool().args(["list-tags", "--authfile"]).arg(&file);
            let told = list.arg(format!("{}/lib/app", registry.host)).run();
            let told = told.refused(&["credential helper"]);
            assert!(!told.stderr.contains('\u{1b}'), "{:?}", told.stderr);
        }
        assert!(!canary.exists());
    });
}
