//! Archives as every writer of them makes them, and as no honest one does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Cmd, Compression, Image, Scene, load, scene};
use crate::harness::image::{compress, digest};
use crate::harness::tarball::{Entry, Tarball};

const NAME: &str = "e2e.test/app:1";

fn image() -> Image {
    let layers = [("first", "layer"), ("second", "one")];
    let layers = layers.map(|(name, text)| Tarball::of([Entry::file(name, text)]).bytes());
    Image { layers: layers.into(), config: json!({ "Cmd": ["/first"] }) }
}

fn hex(bytes: &[u8]) -> String {
    digest(bytes)["sha256:".len()..].to_owned()
}

fn archive(entries: Vec<Entry>) -> Vec<u8> {
    Tarball::of(entries).bytes()
}

fn manifest(config: &str, names: &Value, layers: &[String]) -> Entry {
    let items = json!([{ "Config": config, "RepoTags": names, "Layers": layers }]);
    Entry::file("manifest.json", items.to_string())
}

/// One whose layers are files with names made of the digest of what is in them.
fn by_digest(
    image: &Image,
    config: &str,
    names: &Value,
    how: Compression,
    name: impl Fn(&[u8], &[u8]) -> String,
) -> Vec<u8> {
    let mut entries = vec![Entry::file(config, image.config_bytes())];
    let mut layers = Vec::new();
    for layer in &image.layers {
        let packed = compress(layer, how).0;
        let name = name(layer, &packed);
        entries.push(Entry::file(&name, packed));
        layers.push(name);
    }
    entries.push(manifest(config, names, &layers));
    archive(entries)
}

/// The same layer once, and the second time as a link to it, as docker up to 24 writes it.
fn old_docker(image: &Image) -> Vec<u8> {
    let config = format!("{}.json", hex(&image.config_bytes()));
    let (mut entries, mut layers) = (Vec::new(), Vec::new());
    for (number, layer) in image.layers.iter().enumerate() {
        let (id, name) = (hex(format!("v1 {number}").as_bytes()), hex(layer));
        entries.push(Entry::dir(&format!("{id}/")));
        entries.push(Entry::file(&format!("{id}/VERSION"), "1.0"));
        entries.push(Entry::file(&format!("{id}/json"), "{}"));
        entries.push(Entry::file(&format!("{name}.tar"), layer.clone()));
        entries.push(Entry::symlink(&format!("{id}/layer.tar"), &format!("../{name}.tar")));
        layers.push(format!("{id}/layer.tar"));
    }
    entries.push(Entry::file(&config, image.config_bytes()));
    entries.push(manifest(&config, &json!([NAME]), &layers));
    entries.push(Entry::file("repositories", "{\"e2e.test/app\":{\"1\":\"x\"}}"));
    archive(entries)
}

/// A layout in an archive; `names` are annotations of its only image.
fn layout(scene: &Scene, image: &Image, names: &Value, version: bool) -> Vec<u8> {
    let dir = scene.path("writer");
    image.layout(&dir, "x", Compression::Gzip);
    let index = dir.join("index.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    text["manifests"][0]["annotations"] = names.clone();
    text["manifests"][0].as_object_mut().unwrap().remove("mediaType");
    fs::write(&index, text.to_string()).unwrap();
    if !version {
        fs::remove_file(dir.join("oci-layout")).unwrap();
    }
    let file = scene.path("writer.tar");
    Cmd::line("tar -cf").arg(&file).arg("-C").arg(&dir).arg(".").run().success();
    fs::remove_dir_all(&dir).unwrap();
    fs::read(file).unwrap()
}

#[test]
fn what_every_writer_writes_is_read_by_its_name_from_files_and_pipes() {
    scene(|scene| {
        let image = image();
        let (one, none) = (json!([NAME]), json!(null));
        let id = digest(&image.config_bytes());
        let compressed = |_: &[u8], packed: &[u8]| format!("{}.tar.gz", hex(packed));
        let plain = |layer: &[u8], _: &[u8]| format!("{}.tar", hex(layer));
        let nix = |layer: &[u8], _: &[u8]| format!("{}/layer.tar", hex(layer));
        let config = format!("{}.json", hex(&image.config_bytes()));
        let full = json!({ "io.containerd.image.name": NAME,
            "org.opencontainers.image.ref.name": "1" });
        let reference = json!({ "org.opencontainers.image.ref.name": NAME });
        let writers: Vec<(&str, Vec<u8>, bool)> = vec![
            ("docker up to 24", old_docker(&image), true),
            ("kaniko", by_digest(&image, &id, &one, Compression::Gzip, compressed), true),
            ("crane", by_digest(&image, &id, &none, Compression::Gzip, compressed), false),
            ("jib", by_digest(&image, "config.json", &one, Compression::Gzip, compressed), true),
            ("skopeo", by_digest(&image, &config, &one, Compression::None, plain), true),
            ("nix", by_digest(&image, &config, &one, Compression::None, nix), true),
            ("bazel", by_digest(&image, &config, &json!(NAME), Compression::None, plain), true),
            ("zstd inside", by_digest(&image, &config, &one, Compression::Zstd, plain), true),
            ("buildx", layout(scene, &image, &full, true), true),
            ("buildx without a version", layout(scene, &image, &full, false), true),
            ("podman and jib", layout(scene, &image, &reference, true), true),
            ("kaniko's layout", layout(scene, &image, &none, true), false),
        ];
        for (writer, bytes, named) in writers {
            for how in [Compression::None, Compression::Gzip, Compression::Zstd] {
                println!("{writer}, {how:?}");
                let file = scene.path("archive");
                fs::write(&file, compress(&bytes, how).0).unwrap();
                let shell = "exec \"$0\" load < /dev/stdin";
                let from_file = matches!(how, Compression::Gzip);
                let loaded = if from_file {
                    scene.imgtool().args(["load", "-i"]).arg(&file).run()
                } else {
                    let program = crate::harness::command::binary("imgtool");
                    let pipe = format!("cat '{}' | ({shell})", file.display());
                    let run = Cmd::new("sh").args(["-c", &pipe]).arg(program);
                    run.env("IMGTOOL_ROOT", scene.store()).run()
                };
                let told = loaded.success().stdout;
                let wanted = if named {
                    format!("Loaded image: {NAME}\n")
                } else {
                    format!("Loaded image ID: {id}\n")
                };
                assert_eq!(told, wanted);
                let seen = scene.imgtool().args(["inspect", "-f", "{{.Id}}", &id]).run().success();
                assert_eq!(seen.word(), id);
                scene.imgtool().args(["rmi", "-f", &id]).run().success();
            }
        }
    });
}

/// All files below a directory.
fn files(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.insert(entry.path().display().to_string());
        }
    }
}

#[test]
fn archives_that_point_out_of_themselves_or_lie_are_refused() {
    scene(|scene| {
        let image = image();
        let config = image.config_bytes();
        let canary = scene.path("canary.json");
        fs::write(&canary, &config).unwrap();
        let outside = canary.display().to_string();
        let up = format!("{}{outside}", "../".repeat(20));
        let layers = || -> Vec<Entry> {
            let layers = image.layers.iter().enumerate();
            layers.map(|(n, layer)| Entry::file(&format!("{n}"), layer.clone())).collect()
        };
        let names = ["0".to_owned(), "1".to_owned()];
        let with = |config_name: &str, tags: Value, layer_names: &[String], more: Vec<Entry>| {
            let own = vec![Entry::file("c", config.clone())];
            let last = vec![manifest(config_name, &tags, layer_names)];
            archive([own, layers(), more, last].concat())
        };
        let plain = |text: &str| archive(vec![Entry::file("manifest.json", text)]);
        let named = |names: Value| with("c", names, &names_of_two(), vec![]);
        fn names_of_two() -> [String; 2] {
            ["0".to_owned(), "1".to_owned()]
        }
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("config up", with(&up, json!(null), &names, vec![]), "outside the archive"),
            ("config absolute", with(&outside, json!(null), &names, vec![]), "absolute"),
            (
                "config by link",
                with("l", json!(null), &names, vec![Entry::symlink("l", &outside)]),
                "absolute",
            ),
            (
                "config by relative link",
                with("l", json!(null), &names, vec![Entry::symlink("l", &up)]),
                "outside the archive",
            ),
            (
                "config by hard link",
                with("l", json!(null), &names, vec![Entry::hardlink("l", &up)]),
                "outside the archive",
            ),
            (
                "links in a circle",
                with(
                    "l",
                    json!(null),
                    &names,
                    vec![Entry::symlink("l", "m"), Entry::symlink("m", "l")],
                ),
                "loop of links",
            ),
            ("layer up", with("c", json!(null), &["0".into(), up.clone()], vec![]), "outside"),
            ("layer absent", with("c", json!(null), &["0".into(), "9".into()], vec![]), "no such"),
            ("too few layers", with("c", json!(null), &["0".into()], vec![]), "1 layers"),
            ("swapped", with("c", json!(null), &["1".into(), "0".into()], vec![]), "digest"),
            ("null", plain("null"), "lists no image"),
            ("nulls", plain("[null]"), "manifest.json"),
            ("huge number", plain("[{\"Config\":1e999}]"), "manifest.json"),
            ("a name that climbs", named(json!(["e2e.test/../../etc:1"])), "invalid image name"),
            (
                "a name that speaks",
                named(json!(["e2e.test/\u{1b}[31mred:1"])),
                "invalid image name",
            ),
            ("a tag that speaks", named(json!(["e2e.test/a:\u{7}"])), "bad tag"),
            ("a device", archive(vec![Entry::new(tar::EntryType::Char, "x")]), "neither file"),
            ("no image", archive(vec![Entry::file("x", "y")]), "not an image archive"),
            (
                "docker before 1.10",
                archive(vec![Entry::file("repositories", "{}")]),
                "docker before 1.10",
            ),
        ];
        load(scene, &Image::probe(&[]), NAME);
        scene.imgtool().args(["rmi", NAME]).run().success();
        let stored = || {
            let mut found = BTreeSet::new();
            files(&scene.store(), &mut found);
            found
        };
        let before = stored();
        for (case, bytes, word) in cases {
            println!("{case}");
            let file = scene.path("bad.tar");
            fs::write(&file, bytes).unwrap();
            let told = scene.imgtool().args(["load", "-i"]).arg(&file).run();
            let told = told.refused(&["bad.tar", word]);
            assert!(!told.stderr.contains(['\u{1b}', '\u{7}']), "{:?}", told.stderr);
            assert_eq!(stored(), before, "{case}");
        }
    });
}

#[test]
fn layouts_whose_files_are_links_to_elsewhere_or_whose_names_climb_are_refused() {
    scene(|scene| {
        let image = image();
        let dir = scene.path("layout");
        let digest_of = |name: &str| image.layout(&dir, name, Compression::None);
        digest_of("a");
        let config = dir.join("blobs/sha256").join(hex(&image.config_bytes()));
        let outside = scene.path("outside");
        fs::rename(&config, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &config).unwrap();
        scene.imgtool().args(["load", "-i"]).arg(&dir).run().refused(&["layout", "missing"]);
        fs::remove_file(&config).unwrap();
        fs::rename(&outside, &config).unwrap();
        for name in ["../../up", "e2e.test/../x:1", "\u{1b}[31m", "a\nb"] {
            digest_of(name);
            let told = scene.imgtool().args(["load", "-i"]).arg(&dir).run();
            assert!(!(told.stdout.clone() + &told.stderr).contains('\u{1b}'), "{told:?}");
            // A name that is none is no name; the image is there all the same.
            let told = told.success();
            assert_eq!(told.stdout, format!("Loaded image ID: {}\n", image.id()));
            scene.imgtool().args(["rmi", "-f", &image.id()]).run().success();
        }
    });
}

#[test]
fn what_we_save_is_the_same_byte_for_byte_wherever_and_whenever() {
    scene(|scene| {
        load(scene, &image(), NAME);
        load(scene, &Image::probe(&["other"]), "e2e.test/other:1");
        let save = |root: &Path, format: &str, file: &str| {
            let file = scene.path(file);
            let save = scene.imgtool().arg("--root").arg(root).args(["save", "--format", format]);
            save.args([NAME, "e2e.test/other:1", "-o"]).arg(&file).run().success();
            fs::read(file).unwrap()
        };
        for format in ["docker-archive", "oci-archive"] {
            let first = save(&scene.store(), format, "first.tar");
            assert!(first == save(&scene.store(), format, "again.tar"));
            let other = scene.path("other-store");
            let load = scene.imgtool().arg("--root").arg(&other).args(["load", "-i"]);
            load.arg(scene.path("first.tar")).run().success();
            assert!(first == save(&other, format, "other.tar"), "{format}");
        }
    });
}
