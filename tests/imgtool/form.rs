//! Images in another form: OCI's documents or Docker's, other compression, some platforms only. The
//! image's ID stays throughout.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::copy::{INDEX, MANIFEST, copy, index_layout};
use super::{Cmd, Compression, Image, Scene, load, scene};
use crate::harness::docker::Engine;
use crate::harness::image::digest;
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const NAME: &str = "e2e.test/form:1";

fn image() -> Image {
    Image::probe(&["report"]).layer(Tarball::of([Entry::file("second", vec![b'x'; 100_000])]))
}

fn raw(place: &str) -> Value {
    Cmd::line("skopeo inspect --raw --tls-verify=false").arg(place).run().success().json()
}

/// The kinds of a manifest's layers, without what all have in common.
fn kinds(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    let kinds = layers.map(|layer| layer["mediaType"].as_str().unwrap());
    kinds.map(|kind| kind.trim_start_matches("application/vnd.").to_owned()).collect()
}

fn blobs(store: &Path) -> usize {
    fs::read_dir(store.join("blobs/sha256")).unwrap().count()
}

#[test]
fn documents_and_compression_change_and_the_id_stays() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let image = image();
        let layout = image.layout(&scene.path("layout"), "v1", Compression::Gzip);
        let start = format!("oci:{}:v1", layout.display());
        let place = |name: &str| format!("docker://{}/lib/{name}:1", registry.host);
        let before = raw(&start);
        for (name, flags, kind, layer) in [
            ("docker", &["--format", "docker"][..], DOCKER, "docker.image.rootfs.diff.tar.gzip"),
            ("zstd", &["--compress", "zstd"], MANIFEST, "oci.image.layer.v1.tar+zstd"),
            ("plain", &["--compress", "none"], MANIFEST, "oci.image.layer.v1.tar"),
            (
                "both",
                &["--format", "v2s2", "--compress", "none"],
                DOCKER,
                "docker.image.rootfs.diff.tar",
            ),
        ] {
            println!("{name}");
            let to = place(name);
            let told = copy(scene, &[flags, &[&start, &to]].concat());
            let manifest = raw(&to);
            assert_eq!(manifest["mediaType"], kind);
            assert_eq!(kinds(&manifest), [layer; 2]);
            assert_eq!(manifest["config"]["digest"], image.id().as_str());
            if name == "docker" {
                let ids = |manifest: &Value| -> Vec<Value> {
                    let layers = manifest["layers"].as_array().unwrap();
                    layers.iter().map(|layer| layer["digest"].clone()).collect()
                };
                assert_eq!(ids(&manifest), ids(&before));
            }
            // The same comes out each time, and skopeo, whose archives have no zstd, finds each
            // layer to be what it was.
            assert_eq!(copy(scene, &[flags, &[&start, &to]].concat()), told);
            if name != "zstd" {
                let archive = scene.path("archive");
                let check = "skopeo copy --quiet --insecure-policy --src-tls-verify=false";
                let to_archive = format!("docker-archive:{}", archive.display());
                Cmd::line(check).args([&to, &to_archive]).run().success();
                fs::remove_file(archive).unwrap();
            }
            let name = to.strip_prefix("docker://").unwrap();
            scene.imgtool().args(["pull", name]).run().success();
            let seen = scene.imgtool().args(["inspect", "-f", "{{.Id}}", name]).run().success();
            assert_eq!(seen.word(), image.id());
            scene.imgtool().args(["rmi", name]).run().success();
        }
        // Back again: gzip as we make it is the same wherever it comes from.
        let (one, two) = (place("one"), place("two"));
        let back = ["--format", "oci", "--compress", "gzip"];
        assert_eq!(
            copy(scene, &[&back[..], &[&place("both"), &one]].concat()),
            copy(scene, &[&back[..], &[&place("plain"), &two]].concat()),
        );
        assert_eq!(raw(&one)["config"]["digest"], image.id().as_str());
        // What has that form already keeps its digest.
        let keep = ["--format", "oci", "--compress", "gzip", "--preserve-digests"];
        let told = copy(scene, &[&keep[..], &[&start, &place("kept")]].concat());
        assert_eq!(told, digest(before_bytes(&layout, &before).as_slice()));
        let refused = scene.imgtool().args(["copy", "--preserve-digests", "--compress", "zstd"]);
        refused.args([&start, &one]).run().refused(&["--preserve-digests"]);
        let refused = scene.imgtool().args(["copy", "--format", "docker", "--compress", "zstd"]);
        refused.args([&start, &one]).run().refused(&["no layers in zstd"]);
        assert_eq!(blobs(&scene.store()), 0);
    });
}

/// The bytes of the only manifest of a layout.
fn before_bytes(layout: &Path, manifest: &Value) -> Vec<u8> {
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let id = index["manifests"][0]["digest"].as_str().unwrap();
    let bytes = fs::read(layout.join("blobs/sha256").join(&id[7..])).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), *manifest);
    bytes
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_not_compressed_anew() {
    scene(|scene| {
        let image = image();
        let layout = image.layout(&scene.path("layout"), "v1", Compression::Gzip);
        // The manifest of one image with the configuration of another.
        let index: Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let blob = |id: &str| layout.join("blobs/sha256").join(&id[7..]);
        let entry = index["manifests"][0]["digest"].as_str().unwrap();
        let mut manifest: Value = serde_json::from_slice(&fs::read(blob(entry)).unwrap()).unwrap();
        let other = Image::probe(&[]).layer(Tarball::of([Entry::file("second", "other")]));
        let config = other.config_bytes();
        fs::write(blob(&digest(&config)), &config).unwrap();
        manifest["config"]["digest"] = digest(&config).into();
        manifest["config"]["size"] = config.len().into();
        let manifest = manifest.to_string();
        fs::write(blob(&digest(manifest.as_bytes())), &manifest).unwrap();
        let mut index = index;
        index["manifests"][0]["digest"] = digest(manifest.as_bytes()).into();
        index["manifests"][0]["size"] = manifest.len().into();
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let start = format!("oci:{}:v1", layout.display());
        let to = format!("oci:{}:x", scene.path("out").display());
        let copy = scene.imgtool().args(["copy", "--compress", "zstd", &start, &to]).run();
        copy.refused(&["the image config says"]);
        assert_eq!(blobs(&scene.store()), 0);
    });
}

#[test]
fn whole_indexes_change_their_form() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let wanted = index_layout(&scene.path("layout"));
        let layout = format!("oci:{}:all", scene.path("layout").display());
        let to = format!("docker://{}/lib/all:1", registry.host);
        let words = ["copy", "--all", "--compress", "zstd", &layout, &to];
        scene.imgtool().args(words).run().success().stderr_has("1 attestations are left out");
        let index = raw(&to);
        assert_eq!(index["mediaType"], INDEX);
        let children = index["manifests"].as_array().unwrap();
        assert_eq!(children.len(), 3);
        for child in children {
            let by_digest = to.replace(":1", &format!("@{}", child["digest"].as_str().unwrap()));
            let manifest = raw(&by_digest);
            assert_eq!(kinds(&manifest), ["oci.image.layer.v1.tar+zstd"], "{child}");
        }
        // What was attested of an image that stays as it is goes along.
        let words = ["copy", "--all", "--compress", "gzip", &layout, &to];
        let told = scene.imgtool().args(words).run().success();
        assert_eq!(told.stderr, "");
        assert_eq!(raw(&to)["manifests"].as_array().unwrap().len(), 4);
        let words = ["copy", "--all", "--format", "docker", "--compress", "gzip", &layout, &to];
        scene.imgtool().args(words).run().success();
        let list = raw(&to);
        assert_eq!(list["mediaType"], DOCKER_LIST);
        assert_eq!(list["manifests"][0]["mediaType"], DOCKER);
        assert_eq!(list["manifests"][1]["platform"]["architecture"], "arm64");
        let form = ["--all", "--format", "oci"];
        assert_eq!(copy(scene, &[&form[..], &[&layout, &to]].concat()), wanted);
    });
}

#[test]
fn a_push_changes_the_form_of_what_is_pushed_and_not_of_what_is_here() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let image = image();
        let name = format!("{}/lib/pushed:1", registry.host);
        load(scene, &image, &name);
        let before = blobs(&scene.store());
        for (flags, kind) in [
            (&["--compress", "gzip", "--format", "docker"][..], DOCKER),
            (&["--compression-format", "zstd"], MANIFEST),
        ] {
            let told = scene.imgtool().arg("push").args(flags).arg(&name).run().success();
            let manifest = raw(&format!("docker://{name}"));
            assert_eq!(manifest["mediaType"], kind);
            assert_eq!(manifest["config"]["digest"], image.id().as_str());
            told.stdout_has(&registry.digest("lib/pushed:1"));
            assert_eq!(blobs(&scene.store()), before);
        }
    });
}

fn saved_index(scene: &Scene, archive: &Path) -> Value {
    let out = scene.path("unpacked");
    fs::create_dir_all(&out).unwrap();
    Cmd::line("tar -xf").arg(archive).arg("-C").arg(&out).run().success();
    let index: Value = serde_json::from_slice(&fs::read(out.join("index.json")).unwrap()).unwrap();
    let id = index["manifests"][0]["digest"].as_str().unwrap();
    let bytes = fs::read(out.join("blobs/sha256").join(&id[7..])).unwrap();
    fs::remove_dir_all(out).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn archives_are_saved_without_compression_or_of_some_platforms() {
    scene(|scene| {
        let image = image();
        let layout = image.layout(&scene.path("one"), NAME, Compression::Zstd);
        scene.imgtool().args(["load", "-i"]).arg(&layout).run().success();
        let before = blobs(&scene.store());
        let file = scene.path("saved.tar");
        let save =
            |words: &[&str]| scene.imgtool().args(["save", "-o"]).arg(&file).args(words).run();
        save(&["--uncompressed", NAME]).success();
        assert_eq!(kinds(&saved_index(scene, &file)), ["oci.image.layer.v1.tar"; 2]);
        assert_eq!(blobs(&scene.store()), before);
        // A docker that knows no zstd loads it.
        let docker = Engine::overlay();
        docker.docker(["load", "--quiet", "--input"]).arg(&file).run().success();
        let id = docker.docker(["inspect", "--format", "{{.Id}}", NAME]).run().success();
        assert_eq!(id.word(), image.id());
        docker.docker(["rmi", NAME]).run().success();
        save(&["--platform", "linux/mips", NAME]).refused(&["linux/mips"]);
        scene.imgtool().args(["rmi", NAME]).run().success();

        let all = scene.path("all");
        index_layout(&all);
        let from = format!("oci:{}:all", all.display());
        scene.imgtool().args(["copy", "--all", &from, NAME]).run().success();
        let before = blobs(&scene.store());
        save(&["--platform", "linux/s390x,linux/arm64", NAME]).success();
        let index = saved_index(scene, &file);
        let names: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["arm64", "s390x"]);
        assert_eq!(blobs(&scene.store()), before);
        let other = scene.imgtool().arg("--root").arg(scene.path("other"));
        other.args(["load", "-i"]).arg(&file).run().success().stdout_has(NAME);
        save(&["--platform", "linux/arm64", NAME]).success();
        assert!(saved_index(scene, &file)["layers"].is_array());
        save(&["--platform", "linux/arm64,linux/mips", NAME]).refused(&["linux/mips"]);
    });
}

#[test]
fn the_level_of_compression_is_the_user_s() {
    scene(|scene| {
        let layout = image().layout(&scene.path("layout"), "v1", Compression::None);
        let from = format!("oci:{}:v1", layout.display());
        let copied = |how: &str, level: &str| {
            let to = format!("oci:{}:x", scene.path(&format!("{how}-{level}")).display());
            let flags = ["--compress", how, "--compression-level", level];
            copy(scene, &[&flags[..], &[&from, &to]].concat());
            let size = |layer: &Value| layer["size"].as_u64().unwrap();
            raw(&to)["layers"].as_array().unwrap().iter().map(size).sum::<u64>()
        };
        assert!(copied("gzip", "9") < copied("gzip", "1"));
        assert!(copied("gzip", "1") < copied("gzip", "0"));
        assert!(copied("zstd", "19") < copied("zstd", "1"));
        let refused = |flags: &[&str], word: &str| {
            let to = scene.path("refused");
            let place = format!("oci:{}:x", to.display());
            scene.imgtool().arg("copy").args(flags).args([&from, &place]).run().refused(&[word]);
            assert!(!to.exists());
        };
        refused(&["--compress", "gzip", "--compression-level", "10"], "0 to 9");
        refused(&["--compress", "zstd", "--compression-level", "0"], "1 to 22");
        refused(&["--compress", "none", "--compression-level", "1"], "gzip and zstd");
        refused(&["--compression-level", "1"], "--compress");
    });
}
