//! Nasty layers, each a few entries long: what Docker Engine makes of them, or the safer thing.

use std::fs;
use std::io::Write;

use serde_json::json;
use tar::EntryType;

use super::equality::assert_equal_to_docker;
use super::{Cmd, Image, Scene, load, scene};
use crate::harness::command::binary;
use crate::harness::docker::Engine;
use crate::harness::image::digest;
use crate::harness::tarball::{Entry, Tarball};

const NAME: &str = "e2e.test/corpus:latest";

fn base() -> Vec<Entry> {
    ["etc", "dev", "proc", "sys"].map(Entry::dir).into()
}

/// Layers that any of Docker's drivers unpacks, one case to a directory.
fn judged_by_docker() -> Image {
    let mut lower = base();
    let mut upper = Vec::new();
    // Markers before and after what the same layer has, in every order.
    for (case, order) in
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate()
    {
        let dir = format!("order-{case}");
        lower.extend([
            Entry::dir(&dir),
            Entry::file(&format!("{dir}/gone"), "lower"),
            Entry::file(&format!("{dir}/again"), "lower"),
            Entry::dir(&format!("{dir}/tree")),
            Entry::file(&format!("{dir}/tree/gone"), "lower"),
        ]);
        let parts: [&[Entry]; 3] = [
            &[Entry::whiteout(&format!("{dir}/gone"))],
            &[Entry::whiteout(&format!("{dir}/tree"))],
            &[Entry::file(&format!("{dir}/beside"), "upper")],
        ];
        upper.push(Entry::dir(&dir).mtime(1_500_000_000));
        upper.extend(order.iter().flat_map(|part| parts[*part].iter().cloned()));
    }
    // Opaque before and after its siblings, and one for what is not there below.
    for (dir, first) in [("opaque-first", true), ("opaque-last", false)] {
        lower.extend([
            Entry::dir(dir),
            Entry::file(&format!("{dir}/gone"), "lower"),
            Entry::dir(&format!("{dir}/both")),
            Entry::file(&format!("{dir}/both/gone"), "lower"),
        ]);
        let mut entries = vec![
            Entry::file(&format!("{dir}/later"), "upper"),
            Entry::dir(&format!("{dir}/both")),
            Entry::file(&format!("{dir}/both/kept"), "upper"),
        ];
        entries.insert(if first { 0 } else { 3 }, Entry::opaque(dir));
        upper.push(Entry::dir(dir).mode(0o711).mtime(1_500_000_000));
        upper.extend(entries);
    }
    upper.extend([Entry::dir("opaque-new"), Entry::opaque("opaque-new")]);
    upper.push(Entry::file("opaque-new/file", "upper"));
    // One type in the place of another.
    lower.extend([
        Entry::dir("real"),
        Entry::file("real/inside", "lower"),
        Entry::symlink("was-link", "real"),
        Entry::symlink("was-dangling", "no/where"),
        Entry::file("was-file", "lower"),
        Entry::dir("was-dir"),
        Entry::file("was-dir/inside", "lower"),
        Entry::new(EntryType::Fifo, "was-fifo"),
        Entry::new(EntryType::Char, "was-device").device(1, 3),
    ]);
    upper.extend([
        Entry::dir("was-link"),
        Entry::file("was-link/inside", "upper"),
        Entry::dir("was-dangling"),
        Entry::symlink("was-file", "real"),
        Entry::new(EntryType::Block, "was-dir").device(7, 9),
        Entry::file("was-fifo", "not written into the pipe"),
        Entry::dir("was-device"),
    ]);
    // A link whose first name goes, and names of one file in one layer.
    lower.extend([
        Entry::file("first", "the same").mode(0o640).owner(7, 8),
        Entry::hardlink("second", "first").mode(0o640).owner(7, 8),
        Entry::hardlink("third", "./first").mode(0o640).owner(7, 8),
    ]);
    upper.push(Entry::whiteout("first"));
    let image = Image::probe(&[]).layer(Tarball::of(lower)).layer(Tarball::of(upper));
    // A layer may be there twice, and have nothing in it.
    image.layer(forms()).layer(Tarball::of([])).layer(forms())
}

/// One file, whatever form of archive it comes in.
fn forms() -> Tarball {
    let long = format!("forms/{}", "n".repeat(200));
    let pieces: [(u64, &[u8]); 3] = [(0, &[b'h'; 512]), (65_536, b"middle"), (131_072, b"")];
    Tarball::of([
        Entry::global(&[("comment", "0123456789abcdef")]),
        Entry::dir("forms"),
        Entry::gnu_long(EntryType::GNULongName, &format!("{long}-gnu")),
        Entry::file("forms/short", "named by GNU tar"),
        Entry::gnu_long(EntryType::GNULongLink, &"t/".repeat(90)),
        Entry::gnu_long(EntryType::GNULongName, &format!("{long}-link")),
        Entry::symlink("forms/short-link", "short"),
        Entry::file(&format!("{long}-pax"), "named by PAX"),
        Entry::file("forms/base-256", "owner").owner(3_000_000_000, 2_097_152),
        Entry::file("forms/time-256", "time").mtime(8_589_934_593),
        Entry::file("forms/sparse-0.0", "").pax_sparse_records(&pieces, 131_072),
        Entry::file("forms/sparse-0.1", "").pax_sparse_map(&pieces, 131_072),
        Entry::file("forms/sparse-1.0", "").pax_sparse(&pieces, 131_072),
        Entry::file("forms/binary", "").xattr("user.binary", b"\n30 path=evil\n\0=\xff"),
        Entry::file("/forms/absolute", "without the slash"),
        Entry::file("./forms/./dotted", "without the dots"),
        Entry::file("forms/gone/../climbed", "beside"),
    ])
}

#[test]
fn nasty_layers_are_what_docker_makes_of_them() {
    assert_equal_to_docker(Engine::overlay(), &judged_by_docker());
}

/// A tree of ours at each of these paths: `None` where there is nothing.
#[track_caller]
fn assert_files(scene: &Scene, name: &str, expected: &[(&str, Option<&str>)]) {
    for flags in [&["--network", "none"][..], &["--network", "none", "--copy"]] {
        let dir = super::bundle(scene, flags, name, "b", &[]);
        for (path, contents) in expected {
            let found = dir.join("rootfs").join(path);
            match contents {
                None => assert!(found.symlink_metadata().is_err(), "{path} is there: {flags:?}"),
                Some("/") => assert!(found.is_dir(), "{path} is no directory: {flags:?}"),
                Some(text) => {
                    let read = fs::read_to_string(&found);
                    assert_eq!(read.ok().as_deref(), Some(*text), "{path}: {flags:?}");
                }
            }
        }
        super::remove(scene, "b");
    }
}

/// What Docker's overlay driver fails for or does otherwise by its driver.
#[test]
fn markers_hide_what_is_below_and_make_nothing() {
    scene(|scene| {
        let lower = [
            Entry::dir("real"),
            Entry::file("real/gone", "lower"),
            Entry::file("real/kept", "lower"),
            Entry::symlink("alias", "real"),
            Entry::file("file", "lower"),
            Entry::dir("dir"),
            Entry::file("dir/inside", "lower"),
            Entry::file("first", "the same"),
            Entry::hardlink("second", "first"),
        ];
        let upper = [
            // Through a link of a lower layer, to what is behind it.
            Entry::whiteout("alias/gone"),
            // Where there is no directory, neither below nor here.
            Entry::whiteout("file/beneath"),
            Entry::whiteout("no/where/at/all"),
            Entry::opaque("not/there"),
            // Docker knows neither contiguous files nor two entries of one name.
            Entry::new(EntryType::Continuous, "contiguous"),
            Entry::file("twice", "first"),
            Entry::file("twice", "second"),
            Entry::file("dir", "now a file"),
            Entry::whiteout("dir/inside"),
            Entry::opaque("dir"),
            Entry::whiteout("never-was"),
            // Bookkeeping of aufs.
            Entry::file(".wh..wh.aufs", ""),
            Entry::dir(".wh..wh.plnk"),
            Entry::file(".wh..wh.plnk/12.34", "x"),
            // Another name for what goes: the layer as a whole has both.
            Entry::hardlink("third", "second"),
            Entry::whiteout("first"),
            Entry::whiteout("second"),
            // overlayfs's own form of a marker.
            Entry::new(EntryType::Char, "real/kept").device(0, 0),
        ];
        let image = Image::probe(&[]).layer(Tarball::of(lower)).layer(Tarball::of(upper));
        load(scene, &image, NAME);
        let expected = [
            ("real/gone", None),
            ("real/kept", None),
            ("alias/gone", None),
            ("file", Some("lower")),
            ("no", None),
            ("not", None),
            ("dir", Some("now a file")),
            ("contiguous", Some("")),
            ("twice", Some("second")),
            ("never-was", None),
            (".wh..wh.aufs", None),
            (".wh..wh.plnk", None),
            (".wh.never-was", None),
            ("first", None),
            ("second", None),
            ("third", Some("the same")),
        ];
        assert_files(scene, NAME, &expected);
    });
}

/// An archive could else have a directory show what lies elsewhere on the host.
#[test]
fn attributes_that_steer_overlayfs_are_dropped() {
    scene(|scene| {
        let lower =
            [Entry::dir("a"), Entry::file("a/lower", "lower"), Entry::file("file", "lower")];
        let mut upper = Vec::new();
        for prefix in ["trusted.overlay", "user.overlay"] {
            upper.push(
                Entry::dir("a")
                    .xattr(&format!("{prefix}.opaque"), "y")
                    .xattr(&format!("{prefix}.redirect"), "/etc"),
            );
            upper.push(
                Entry::file("file", "upper")
                    .xattr(&format!("{prefix}.metacopy"), "")
                    .xattr(&format!("{prefix}.redirect"), "/a/lower")
                    .xattr("user.kept", "yes"),
            );
        }
        let image = Image::probe(&[]).layer(Tarball::of(lower)).layer(Tarball::of(upper));
        load(scene, &image, NAME);
        assert_files(scene, NAME, &[("a/lower", Some("lower")), ("file", Some("upper"))]);
        let dir = super::bundle(scene, &["--network", "none", "--copy"], NAME, "b", &[]);
        let tree = Cmd::new(binary("probe")).arg("tree-of").arg(dir.join("rootfs"));
        let tree = tree.run().success().stdout;
        assert!(tree.contains("user.kept=796573"), "{tree}");
        assert!(!tree.contains("overlay."), "{tree}");
        super::remove(scene, "b");
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A layout whose one layer, `plain` in full, is stored as `stored`.
fn layout(scene: &Scene, plain: &[u8], stored: &[u8]) -> std::path::PathBuf {
    let dir = scene.path("layout");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let id = digest(bytes);
        fs::write(dir.join("blobs/sha256").join(&id[7..]), bytes).unwrap();
        json!({ "mediaType": kind, "digest": id, "size": bytes.len() })
    };
    let kind = "application/vnd.oci.image";
    let layer = put(stored, &format!("{kind}.layer.v1.tar+gzip"));
    let image = Image { layers: vec![plain.to_owned()], config: json!({ "Cmd": ["/x"] }) };
    let config = put(&image.config_bytes(), &format!("{kind}.config.v1+json"));
    let manifest_kind = format!("{kind}.manifest.v1+json");
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_kind, "config": config,
        "layers": [layer] });
    let mut manifest = put(manifest.to_string().as_bytes(), &manifest_kind);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    dir
}

#[test]
fn gzip_of_several_members_and_what_follows_archives() {
    scene(|scene| {
        let mut plain = Tarball::of([Entry::file("file", vec![b'x'; 5000])]).bytes();
        // Behind the end mark: part of the layer's digest, and of nothing else.
        plain.extend_from_slice(b"whatever a tape had there before");
        let (one, two) = plain.split_at(plain.len() / 2);
        let members = [gzip(one), gzip(b""), gzip(two)].concat();
        let padded = [&gzip(&plain)[..], &[0; 5000]].concat();
        let contents = "x".repeat(5000);
        for stored in [&members, &padded] {
            let dir = layout(scene, &plain, stored);
            scene.imgtool().args(["load", "-i"]).arg(&dir).run().success();
            assert_files(scene, NAME, &[("file", Some(&contents))]);
            scene.imgtool().args(["rmi", NAME]).run().success();
        }
        // Nothing but zeros is padding.
        let garbage = [&gzip(&plain)[..], b"garbage"].concat();
        let dir = layout(scene, &plain, &garbage);
        if scene.imgtool().args(["load", "-i"]).arg(&dir).run().code == 0 {
            let made = scene.imgtool().args(["bundle", "--network", "none", NAME]);
            made.arg(scene.path("b")).run().refused(&["garbage after gzip data"]);
        }
    });
}
