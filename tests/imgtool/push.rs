//! Images to registries and out of them again: digests kept, nothing sent twice.

use std::fs;

use super::{Compression, Image, Scene, load, scene};
use crate::harness::docker::Engine;
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};

fn two_layers() -> Image {
    Image::probe(&["report"]).layer(Tarball::of([Entry::file("second", "layer")]))
}

fn image_id(scene: &Scene, name: &str) -> String {
    let seen = scene.imgtool().args(["inspect", name]).run().success().json();
    seen[0]["Id"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_pushed_docker_pulls_and_its_digest_survives_every_way() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let host = &registry.host;
        for (kind, compression) in
            [("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]
        {
            let image = two_layers();
            let name = format!("{host}/lib/{kind}:v1");
            let layout = image.layout(&scene.path(kind), &name, compression);
            let index = fs::read_to_string(layout.join("index.json")).unwrap();
            let index: serde_json::Value = serde_json::from_str(&index).unwrap();
            let digest = index["manifests"][0]["digest"].as_str().unwrap();
            scene.imgtool().args(["load", "-i"]).arg(&layout).run().success();
            let pushed = scene.imgtool().args(["push", &name]).run().success();
            let pushed =
                pushed.stdout_has(&format!("The push refers to repository [{host}/lib/{kind}]\n"));
            let pushed = pushed.stdout_has(": Preparing\n").stdout_has(": Pushed\n");
            pushed.stdout_has(&format!("v1: digest: {digest} size: "));
            assert_eq!(registry.digest(&format!("lib/{kind}:v1")), digest);
            // pull → save → load → push → pull
            scene.imgtool().args(["rmi", &name]).run().success();
            scene.imgtool().args(["pull", "--quiet", &name]).run().success();
            let saved = scene.path("saved.tar");
            scene.imgtool().args(["save", &name, "-o"]).arg(&saved).run().success();
            scene.imgtool().args(["rmi", &name]).run().success();
            scene.imgtool().args(["load", "-i"]).arg(&saved).run().success();
            let other = format!("{host}/again/{kind}:v2");
            scene.imgtool().args(["tag", &name, &other]).run().success();
            scene.imgtool().args(["push", &other]).run().success();
            assert_eq!(registry.digest(&format!("again/{kind}:v2")), digest);
            let again = scene.imgtool().args(["pull", &other]).run().success();
            again.stdout_has(&format!("Digest: {digest}")).stdout_has("Image is up to date");
            assert_eq!(image_id(scene, &other), image.id());
        }
        let docker = Engine::overlay();
        let name = format!("{host}/lib/gzip:v1");
        docker.docker(["pull", &name]).run().success();
        let id = docker.docker(["inspect", "--format", "{{.Id}}", &name]).run().success();
        assert_eq!(id.word(), two_layers().id());
        docker.docker(["rmi", &name]).run().success();
    });
}

#[test]
fn layers_that_are_there_are_not_sent_again() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let host = &registry.host;
        let (one, two) = (format!("{host}/lib/one:1"), format!("{host}/lib/two:1"));
        load(scene, &two_layers(), &one);
        scene.imgtool().args(["push", &one]).run().success();
        let again = scene.imgtool().args(["push", &one]).run().success();
        again.stdout_has(": Layer already exists\n");
        scene.imgtool().args(["tag", &one, &two]).run().success();
        let mounted = scene.imgtool().args(["push", &two]).run().success();
        assert!(!mounted.stdout.contains("Pushed"), "{}", mounted.stdout);
        mounted.stdout_has(": Mounted from lib/one\n");
        assert_eq!(registry.digest("lib/two:1"), registry.digest("lib/one:1"));
        let quiet = scene.imgtool().args(["push", "-q", &two]).run().success();
        assert_eq!(quiet.stdout, format!("{two}\n"));
    });
}

#[test]
fn chunks_and_all_tags() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let host = &registry.host;
        let name = format!("{host}/lib/chunks");
        let tagged = format!("{name}:a");
        load(scene, &two_layers(), &tagged);
        scene.imgtool().args(["tag", &tagged, &format!("{name}:b")]).run().success();
        let digest = scene.path("digest");
        let push = scene.imgtool().args(["push", "-a", "--chunk-size", "100000", "--digestfile"]);
        let pushed = push.arg(&digest).arg(&name).run().success();
        pushed.stdout_has("a: digest: ").stdout_has("b: digest: ");
        assert_eq!(registry.digest("lib/chunks:b"), fs::read_to_string(&digest).unwrap());
        let tags = scene.imgtool().args(["list-tags", &name]).run().success();
        assert_eq!(tags.stdout, "a\nb\n");
        let json = scene.imgtool().args(["list-tags", "--json", &format!("docker://{name}")]);
        assert_eq!(json.run().success().json()["Tags"][1], "b");
        for tag in ["a", "b"] {
            scene.imgtool().args(["rmi", &format!("{name}:{tag}")]).run().success();
        }
        let all = scene.imgtool().args(["pull", "-a", &name]).run().success();
        all.stdout_has("a: Pulling from lib/chunks").stdout_has("b: Pulling from lib/chunks");
        scene.imgtool().args(["inspect", &format!("{name}:b")]).run().success();
        let both = scene.imgtool().args(["pull", "-a", &format!("{name}:b")]).run();
        both.refused(&["--all-tags"]);
    });
}

#[test]
fn names_that_nobody_may_push_to_are_refused_before_anything_is_sent() {
    scene(|scene| {
        load(scene, &Image::probe(&[]), "hello:latest");
        let refused = scene.imgtool().args(["push", "hello"]).run();
        refused.refused(&["requested access to the resource is denied", "imgtool tag hello"]);
        let missing = scene.imgtool().args(["push", "127.0.0.1:1/none:1"]).run();
        missing.refused(&["none"]);
        scene.imgtool().args(["tag", "hello", "127.0.0.1:1/hello"]).run().success();
        let nobody = scene.imgtool().args(["push", "-q", "127.0.0.1:1/hello"]).run();
        nobody.refused(&["push 127.0.0.1:1/hello", "refused"]);
    });
}

#[test]
fn deleting_a_tag_leaves_the_other_tags() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let name = format!("{}/lib/app", registry.host);
        let (a, b, c) = (format!("{name}:a"), format!("{name}:b"), format!("{name}:c"));
        load(scene, &two_layers(), &a);
        for tag in [&b, &c] {
            scene.imgtool().args(["tag", &a, tag]).run().success();
        }
        scene.imgtool().args(["push", "-a", &name]).run().success();
        // docker-registry deletes no tag alone: all are named, and nothing is gone.
        let refused = scene.imgtool().args(["delete", &a]).run();
        refused.refused(&["b, c", "--force"]);
        let tags = scene.imgtool().args(["list-tags", &name]).run().success();
        assert_eq!(tags.stdout, "a\nb\nc\n");
        let gone = scene.imgtool().args(["delete", "--force", &a]).run().success();
        gone.stdout_has("Deleted: sha256:").stdout_has(&format!("Untagged: {c}"));
        scene.imgtool().args(["pull", &b]).run().refused(&["not found"]);
        scene.imgtool().args(["delete", &a]).run().refused(&["does not exist"]);
    });
}

#[test]
fn mirrors_and_insecure_registries_are_what_the_file_says() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let layout = two_layers().layout(&scene.path("layout"), "x", Compression::Gzip);
        registry.push(&layout, "x", "hub/lib/app:1");
        let conf = scene.path("registries.conf");
        let text = format!(
            "[[registry]]\nprefix = \"example.invalid\"\n[[registry.mirror]]\n\
             location = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"{}/hub\"\n\
             [[registry]]\nprefix = \"example.invalid/blocked\"\nblocked = true\n",
            registry.host
        );
        fs::write(&conf, text).unwrap();
        let pull =
            |name: &str| scene.imgtool().args(["pull", name, "--registries-conf"]).arg(&conf).run();
        let pulled = pull("example.invalid/lib/app:1").success();
        pulled.stderr_has("mirror 127.0.0.1:1").stdout_has("example.invalid/lib/app:1");
        pull("example.invalid/blocked/app").refused(&["blocks"]);
        let policy = scene.path("policy.json");
        fs::write(&policy, r#"{"default":[{"type":"reject"}]}"#).unwrap();
        let name = format!("{}/hub/lib/app:1", registry.host);
        let refused = scene.imgtool().args(["pull", &name, "--signature-policy"]).arg(&policy);
        refused.run().refused(&["policy.json", "rejects"]);
    });
}

#[test]
fn search_prints_docker_s_columns() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let layout = two_layers().layout(&scene.path("layout"), "x", Compression::Gzip);
        for name in ["lib/tomcat:1", "lib/other:1", "tomcat:1"] {
            registry.push(&layout, "x", name);
        }
        let host = &registry.host;
        let found = scene.imgtool().args(["search", &format!("{host}/tomcat")]).run().success();
        let lines: Vec<&str> = found.stdout.lines().map(str::trim_end).collect();
        assert!(lines[0].starts_with("NAME") && lines[0].ends_with("OFFICIAL"), "{lines:?}");
        assert!(lines[1].starts_with(&format!("{host}/tomcat")), "{lines:?}");
        assert!(lines[2].starts_with(&format!("{host}/lib/tomcat")), "{lines:?}");
        assert_eq!(lines.len(), 3);

        // Docker Hub's own interface, as a server of one answer.
        let hub = scene.path("hub/v1");
        fs::create_dir_all(&hub).unwrap();
        let answer = serde_json::json!({ "num_results": 2, "results": [
            { "name": "centos", "description": "DEPRECATED; The official build of CentOS. And more \
              than fits", "star_count": 7_800, "is_official": true, "is_automated": false },
            { "name": "me/\u{1b}[31mcentos", "description": null, "star_count": 3 },
        ] });
        let url = crate::harness::web::serve(move |_| answer.to_string());
        let search = |words: &[&str]| {
            scene.imgtool().args(["search", "--hub-url", &url]).args(words).run().success().stdout
        };
        let listed = search(&["library/centos"]);
        assert!(
            listed.contains("centos                DEPRECATED; The official build of CentOS. An…"),
            "{listed}"
        );
        assert!(listed.contains("7800      [OK]"), "{listed}");
        assert!(!listed.contains('\u{1b}'), "{listed:?}");
        let few =
            search(&["centos", "--filter", "stars=100", "--format", "{{.Name}} {{.StarCount}}"]);
        assert_eq!(few, "centos 7800\n");
        let whole = search(&["centos", "--no-trunc", "--filter", "is-official=true"]);
        assert!(whole.contains("than fits"), "{whole}");
        scene.imgtool().args(["search", "x", "--limit", "101"]).run().refused(&["1 to 100"]);
        scene.imgtool().args(["search", "x", "-f", "a=b"]).run().refused(&["invalid filter"]);
    });
}
