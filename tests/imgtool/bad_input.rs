//! Archives that lie, climb or end too early: one line, and nothing left in the store.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Compression, Image, Scene, load, scene};
use crate::harness::image::digest;
use crate::harness::tarball::{Entry, Tarball};

const NAME: &str = "e2e.test/bad:latest";

fn files(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files(&path, found);
        } else {
            found.insert(path.display().to_string());
        }
    }
}

/// All files of the store, without those that any command makes.
fn stored(scene: &Scene) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    files(&scene.store(), &mut found);
    found
}

/// A store that has been used and is empty again.
fn open_store(scene: &Scene) -> BTreeSet<String> {
    load(scene, &Image::probe(&[]), NAME);
    scene.imgtool().args(["rmi", NAME]).run().success();
    stored(scene)
}

#[test]
fn a_truncated_archive_leaves_nothing() {
    scene(|scene| {
        let before = open_store(scene);
        let archive = Image::probe(&[]).docker_archive(&scene.path("image.tar"), NAME);
        let bytes = fs::read(&archive).unwrap();
        for length in [100, 700, bytes.len() / 2, bytes.len() - 3000] {
            fs::write(&archive, &bytes[..length]).unwrap();
            let outcome = scene.imgtool().args(["load", "-i"]).arg(&archive).run();
            outcome.refused(&["image.tar"]);
            assert_eq!(stored(scene), before, "cut at {length}");
        }
    });
}

#[test]
fn a_wrong_digest_or_size_leaves_nothing() {
    scene(|scene| {
        let before = open_store(scene);
        let layout = Image::probe(&[]).layout(&scene.path("layout"), NAME, Compression::Gzip);
        let mut blobs = BTreeSet::new();
        files(&layout.join("blobs"), &mut blobs);
        for blob in blobs {
            let good = fs::read(&blob).unwrap();
            let mut bad = good.clone();
            let last = bad.len() - 1;
            bad[last] ^= 1;
            for bytes in [&bad, &good[..last].to_vec(), &[good.clone(), vec![b'\n']].concat()] {
                fs::write(&blob, bytes).unwrap();
                let outcome = scene.imgtool().args(["load", "-i"]).arg(&layout).run();
                outcome.refused(&[]);
                assert_eq!(stored(scene), before, "{blob}");
            }
            fs::write(&blob, good).unwrap();
        }
        scene.imgtool().args(["load", "-i"]).arg(&layout).run().success();
    });
}

#[test]
fn a_configuration_whose_diff_ids_are_wrong_gives_no_bundle() {
    scene(|scene| {
        let mut image = Image::probe(&[]);
        let layout = image.layout(&scene.path("layout"), NAME, Compression::Gzip);
        // The manifest of one image with the configuration of another: each blob is what it says.
        let honest = fs::read_to_string(layout.join("index.json")).unwrap();
        image.layers[0].extend_from_slice(&[0; 512]);
        let lying = image.config_bytes();
        let index: serde_json::Value = serde_json::from_str(&honest).unwrap();
        let blob = |id: &str| layout.join("blobs/sha256").join(&id[7..]);
        let manifest = fs::read(blob(index["manifests"][0]["digest"].as_str().unwrap())).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["config"]["digest"] = digest(&lying).into();
        manifest["config"]["size"] = lying.len().into();
        let manifest = manifest.to_string();
        fs::write(blob(&digest(&lying)), &lying).unwrap();
        fs::write(blob(&digest(manifest.as_bytes())), &manifest).unwrap();
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(manifest.as_bytes()), "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": NAME },
        }] });
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let loaded = scene.imgtool().args(["load", "-i"]).arg(&layout).run();
        if loaded.code == 0 {
            // Layers are looked into when they are unpacked: then it must come out.
            for flags in [&["--copy"][..], &[]] {
                let dir = scene.path("b");
                let made = scene.imgtool().arg("bundle").args(flags).arg(NAME).arg(&dir).run();
                made.refused(&["diff"]);
                assert!(!dir.exists());
            }
        }
    });
}

/// Layers that try to leave the root file system; the file they aim at lies beside the bundle.
#[test]
fn a_layer_entry_that_climbs_out_is_kept_in() {
    let deep = "../".repeat(12);
    scene(|scene| {
        let canary = scene.path("canary");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("secret"), "untouched").unwrap();
        let aim = canary.display().to_string();
        let attacks: [(&str, Vec<Entry>); 9] = [
            ("dots", vec![Entry::file(&format!("{deep}{aim}/pwned"), "x")]),
            ("absolute", vec![Entry::file(&format!("{aim}/pwned"), "x")]),
            ("symlink", vec![Entry::symlink("out", &aim), Entry::file("out/pwned", "x")]),
            (
                "relative symlink",
                vec![Entry::symlink("out", &format!("{deep}{aim}")), Entry::file("out/pwned", "x")],
            ),
            (
                "hard link",
                vec![
                    Entry::hardlink("in", &format!("{deep}{aim}/secret")),
                    Entry::file("in", "overwritten"),
                ],
            ),
            (
                "hard link by symlink",
                vec![
                    Entry::symlink("out", &aim),
                    Entry::hardlink("in", "out/secret"),
                    Entry::file("in", "overwritten"),
                ],
            ),
            (
                "directory over symlink",
                vec![Entry::symlink("out", &aim), Entry::dir("out").mode(0o777).owner(77, 77)],
            ),
            ("whiteout", vec![Entry::symlink("out", &aim), Entry::whiteout("out/secret")]),
            ("root is a symlink", vec![Entry::symlink("./", &aim), Entry::file("pwned", "x")]),
        ];
        let mark = |dir: &Path| {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::metadata(dir).unwrap();
            let mut names = BTreeSet::new();
            files(dir, &mut names);
            (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec(), names)
        };
        let before = mark(&canary);
        for (what, entries) in attacks {
            for flags in [&["--copy"][..], &[]] {
                println!("{what} {flags:?}");
                let image = Image::probe(&["echo", "runs"]).layer(Tarball::of(entries.clone()));
                let archive = image.docker_archive(&scene.path("image.tar"), NAME);
                let loaded = scene.imgtool().args(["load", "-i"]).arg(&archive).run();
                let dir = scene.path("b");
                let made = scene.imgtool().arg("bundle").args(flags).arg(NAME).arg(&dir).run();
                assert_eq!(mark(&canary), before, "{what}");
                assert_eq!(
                    fs::read_to_string(canary.join("secret")).unwrap(),
                    "untouched",
                    "{what}"
                );
                if made.code == 0 {
                    scene.imgtool().arg("rm").arg(&dir).run().success();
                } else {
                    assert_eq!(made.stderr.lines().count(), 1, "{}", made.stderr);
                    assert!(!dir.exists(), "{what}: a bundle is left");
                }
                if loaded.code == 0 {
                    scene.imgtool().args(["rmi", NAME]).run().success();
                }
            }
        }
    });
}

/// Directories nested as deep as one path can name them, and by a link twice as deep.
#[test]
fn directories_nested_without_end_are_unpacked_or_refused() {
    scene(|scene| {
        let deep = vec!["d"; 1900].join("/");
        let file = |dir: &str| Entry::file(&format!("{dir}/{deep}/file"), "x");
        let mut image = Image::probe(&["report"]);
        image.layers.push(Tarball::of([file("bottom")]).bytes());
        load(scene, &image, NAME);
        for (how, dir) in [("--read-only", "overlay"), ("--copy", "copy")] {
            super::bundle(scene, &[how], NAME, dir, &[]);
            scene.imgtool().arg("bundles").run().success();
            super::remove(scene, dir);
        }
        scene.imgtool().args(["rmi", NAME]).run().success();
        let link = [Entry::dir("a"), Entry::symlink("link", &format!("a/{deep}"))];
        let link = link.into_iter().chain([file("a"), file("link")]);
        image.layers[1] = Tarball::of(link).bytes();
        load(scene, &image, NAME);
        for how in ["--read-only", "--copy"] {
            let made = scene.imgtool().args(["bundle", how, NAME]).arg(scene.path("b")).run();
            made.refused(&["directories are nested too deeply"]);
            assert!(!scene.path("b").exists());
        }
    });
}

#[test]
fn what_a_container_nested_without_end_is_listed_and_removed() {
    scene(|scene| {
        load(scene, &Image::probe(&["report"]), NAME);
        for how in ["--read-only", "--copy"] {
            let dir = super::bundle(scene, &[how], NAME, "bundle", &[]);
            let mut at = std::fs::File::open(dir.join("rootfs")).unwrap();
            for _ in 0..3000 {
                let mode = rustix::fs::Mode::RWXU;
                rustix::fs::mkdirat(&at, "d", mode).unwrap();
                let flags = rustix::fs::OFlags::DIRECTORY;
                at = rustix::fs::openat(&at, "d", flags, mode).unwrap().into();
            }
            drop(at);
            scene.imgtool().arg("bundles").run().success();
            let commit = scene.imgtool().arg("commit").arg(&dir).run();
            let told = commit.refused(&["directories are nested too deeply"]);
            assert!(told.stderr.len() < 10_000, "{} bytes of error", told.stderr.len());
            super::remove(scene, "bundle");
        }
    });
}

#[test]
fn an_unknown_image_says_what_to_run() {
    scene(|scene| {
        for verb in ["bundle", "inspect", "save", "rmi"] {
            let outcome = scene.imgtool().args([verb, "no-such-image"]).run();
            outcome.refused(&["no-such-image", "imgtool pull"]);
        }
        scene.imgtool().args(["tag", "no-such-image", "other"]).run().refused(&["imgtool pull"]);
    });
}

#[test]
fn a_document_that_is_manifest_and_index_at_once_is_refused() {
    scene(|scene| {
        let before = open_store(scene);
        let layout = Image::probe(&[]).layout(&scene.path("layout"), NAME, Compression::None);
        let index = fs::read(layout.join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let id = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let manifest = fs::read(layout.join("blobs/sha256").join(&id[7..])).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["manifests"] = json!([]);
        let manifest = manifest.to_string();
        let id = digest(manifest.as_bytes());
        fs::write(layout.join("blobs/sha256").join(&id[7..]), &manifest).unwrap();
        let mut index = index;
        index["manifests"][0]["digest"] = id.into();
        index["manifests"][0]["size"] = manifest.len().into();
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        scene.imgtool().args(["load", "-i"]).arg(&layout).run().refused(&["manifests"]);
        assert_eq!(stored(scene), before);
    });
}
