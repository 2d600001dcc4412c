//! What is printed of images: docker's columns, templates and filters, skopeo's descriptions.

use std::fs;

use super::{Cmd, Compression, Image, Scene, load, scene};
use crate::harness::docker::Engine;
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};

fn out(scene: &Scene, words: &[&str]) -> String {
    scene.imgtool().args(words).run().success().stdout
}

fn labelled(value: &str) -> Image {
    Image::probe(&[value]).with("Labels", serde_json::json!({ "kind": value }))
}

#[test]
fn images_are_filtered_and_formatted_as_docker_does() {
    scene(|scene| {
        load(scene, &labelled("one"), "e2e.test/one:1");
        load(scene, &labelled("two"), "e2e.test/two:1");
        // The tag moves on, and the old image has no name any more.
        load(scene, &labelled("three"), "e2e.test/one:1");
        let images = |words: &[&str]| {
            let mut all = vec!["images", "--format", "{{.Repository}}:{{.Tag}} {{.Labels}}"];
            all.extend(words);
            let mut lines: Vec<String> = out(scene, &all).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let all =
            ["<none>:<none> kind=one", "e2e.test/one:1 kind=three", "e2e.test/two:1 kind=two"];
        assert_eq!(images(&[]), all);
        assert_eq!(images(&["-f", "dangling=true"]), all[..1]);
        assert_eq!(images(&["-f", "dangling=false"]), all[1..]);
        assert_eq!(images(&["-f", "label=kind=two"]), all[2..]);
        assert_eq!(images(&["-f", "label!=kind=two"]), all[..2]);
        assert_eq!(images(&["-f", "reference=*/two", "-f", "reference=*/one:1"]), all[1..]);
        assert_eq!(images(&["-f", "until=24h"]), all);
        assert_eq!(images(&["-f", "until=2000-01-01"]).len(), 0);
        assert_eq!(images(&["-f", "since=e2e.test/two:1"]).len(), 0);
        for bad in ["color=red", "dangling=maybe", "before=none", "dangling"] {
            scene.imgtool().args(["images", "-f", bad]).run().refused(&["invalid filter", bad]);
        }
        scene.imgtool().args(["images", "--format", "{{.No}}"]).run().refused(&["no .No"]);

        let table = out(scene, &["images", "--format", "table {{.Tag}}\\t{{.Size}}", "*/two"]);
        assert!(table.starts_with("TAG "), "{table}");
        assert_eq!(table.lines().count(), 2);
        let listed = out(scene, &["images"]);
        assert!(listed.contains("<none> "), "{listed}");
    });
}

#[test]
fn descriptions_and_histories_are_docker_s() {
    scene(|scene| {
        let docker = Engine::overlay();
        let context = scene.path("context");
        fs::create_dir(&context).unwrap();
        fs::copy(crate::harness::command::binary("probe"), context.join("probe")).unwrap();
        let dockerfile = "FROM scratch\nCOPY probe /probe\nENV KEY=value LONG=0123456789012345678\
                          90123456789\nLABEL a=b\nUSER 1000\nCMD [\"/probe\"]\n";
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let name = "e2e.test/described:1";
        let build = docker.docker(["build", "--network", "none", "--tag", name]).arg(&context);
        build.env("DOCKER_BUILDKIT", "0").run().success();
        let archive = scene.path("saved.tar");
        docker.docker(["save", name, "--output"]).arg(&archive).run().success();
        scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
        let both = |words: [&str; 4]| {
            let theirs = docker.docker(words).run().success().stdout;
            let ours = scene.imgtool().args(words).run().success().stdout;
            assert_eq!(ours, theirs, "{words:?}");
        };
        for template in [
            "{{.Id}}",
            "{{.Config.Env}} {{.Config.User}} {{json .Config.Cmd}}",
            "{{range .Config.Env}}{{println .}}{{end}}",
            "{{index .Config.Labels \"a\"}} {{len .RootFS.Layers}}",
            "{{.Os}}/{{.Architecture}} {{.RepoTags}}",
            "{{if .Config.Labels}}yes{{else}}no{{end}}",
        ] {
            both(["inspect", "--format", template, name]);
        }
        both(["history", "--format", "{{.CreatedBy}}|{{.Comment}}|{{.CreatedSince}}", name]);
        docker.docker(["rmi", name]).run().success();

        let listed = out(scene, &["history", name]);
        let first: Vec<&str> = listed.lines().next().unwrap().split("   ").map(str::trim).collect();
        assert_eq!(first.iter().filter(|word| !word.is_empty()).count(), 5, "{listed}");
        assert!(listed.contains("<missing>"), "{listed}");
        scene.imgtool().args(["history", "none"]).run().refused(&["no such image"]);
        let missing = scene.imgtool().args(["inspect", "none"]).run();
        assert_eq!((missing.code, missing.stdout.as_str()), (1, "[]\n"));
    });
}

#[test]
fn images_elsewhere_are_described_as_skopeo_does_and_nothing_is_kept() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let image = labelled("x").layer(Tarball::of([Entry::file("second", "layer")]));
        let layout = image.layout(&scene.path("layout"), "v1", Compression::Gzip);
        registry.push(&layout, "v1", "lib/app:1");
        for place in [
            format!("docker://{}/lib/app:1", registry.host),
            format!("oci:{}:v1", layout.display()),
        ] {
            let skopeo = |flag: &str| {
                let words = ["--tls-verify=false", flag, &place];
                let inspect =
                    Cmd::line("skopeo inspect").args(words.iter().filter(|w| !w.is_empty()));
                inspect.run().success()
            };
            let ours = scene.imgtool().args(["inspect", "--tags", &place]).run();
            let (mut ours, mut theirs) = (ours.success().json(), skopeo("").json());
            for side in [&mut ours, &mut theirs] {
                // Older ones don't say so much.
                side.as_object_mut().unwrap().remove("LayersData");
                if place.starts_with("oci:") {
                    side.as_object_mut()
                        .unwrap()
                        .retain(|key, _| key != "RepoTags" && key != "Name");
                }
            }
            assert_eq!(ours, theirs, "{place}");
            assert_eq!(out(scene, &["inspect", "--raw", &place]), skopeo("--raw").stdout);
            let config = scene.imgtool().args(["inspect", "--config", "--raw", &place]).run();
            assert_eq!(
                crate::harness::image::digest(config.success().stdout.as_bytes()),
                image.id()
            );
            let digest = out(scene, &["inspect", "--format", "{{.Digest}}", &place]);
            assert_eq!(digest.trim_end(), registry.digest("lib/app:1"));
        }
        assert_eq!(fs::read_dir(scene.store().join("blobs/sha256")).unwrap().count(), 0);
    });
}
