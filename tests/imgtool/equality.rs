//! The tree that a container of ours sees equals the one that Docker's container sees, whatever the
//! layers hold.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::docker::Engine;
use crate::harness::image::{Image, digest};
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, Scene, scene};

/// What an engine lays over the image: not the image's own. `~` leaves out only the time.
pub(crate) const ENGINE: [&str; 11] = [
    "/proc",
    "/sys",
    "/dev",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/.dockerenv",
    "~/",
    "~/etc",
    "~/dev",
];

/// `security.capability` for `cap_net_bind_service=ep`, as `setcap` writes it.
const FILE_CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Four layers with everything that layers can do to each other.
fn four_layers() -> Image {
    let long = format!("long/{}/{}", "directory".repeat(12), "name".repeat(30));
    let mut image = Image::probe(&["tree"])
        .with("User", "user:extra")
        .with("Entrypoint", serde_json::json!(["/probe", "echo"]))
        .with("Cmd", serde_json::json!(["from", "the", "image"]));
    let base = [
        Entry::dir("").mode(0o755).mtime(1_500_000_000),
        Entry::dir("etc").mtime(1_500_000_001),
        Entry::dir("dev"),
        Entry::dir("proc"),
        Entry::dir("sys"),
        Entry::dir("gone"),
        Entry::file("gone/one", "1"),
        Entry::file("gone/two", "2"),
        Entry::dir("opaque").owner(5, 6).mtime(1_234_567_890),
        Entry::file("opaque/lower", "lower"),
        Entry::dir("opaque/below"),
        Entry::file("opaque/below/lower", "lower"),
        Entry::dir("links"),
        Entry::file("links/first", "the same").mode(0o640).owner(7, 8),
        Entry::hardlink("links/second", "links/first").mode(0o640).owner(7, 8),
        Entry::dir("real").mode(0o750),
        Entry::file("real/inside", "inside"),
        Entry::symlink("alias", "real"),
        Entry::file("becomes-directory", "a file"),
        Entry::dir("becomes-file"),
        Entry::file("becomes-file/inside", "x"),
        Entry::dir("kept").mode(0o711).mtime(1_111_111_111),
        Entry::file("kept/file", "kept"),
        Entry::file("changed", "before").mode(0o600),
        Entry::file("setuid", "#!").mode(0o4755).owner(0, 1000),
        Entry::file("setgid", "#!").mode(0o2755).owner(12, 34),
        Entry::dir("sticky").mode(0o3777).owner(1, 2),
        Entry::file("capable", "#!").mode(0o755).xattr("security.capability", FILE_CAPABILITY),
    ];
    image = image.layer(Tarball::of(base));
    let second = [
        Entry::dir("gone").mtime(1_555_555_555),
        Entry::whiteout("gone/one"),
        Entry::opaque("opaque"),
        Entry::dir("opaque").mode(0o700).owner(9, 9).mtime(1_300_000_000),
        Entry::file("opaque/upper", "upper"),
        Entry::dir("becomes-directory").mode(0o701),
        Entry::file("becomes-directory/inside", "y"),
        Entry::file("becomes-file", "now a file"),
        Entry::dir("long"),
        Entry::dir(&long[..113]),
        Entry::file(&long, "long").pax("mtime", "1600000000.123456789"),
        Entry::file("fraction", "f").pax("mtime", "1400000000.5"),
        Entry::file("old-fraction", "f").pax("mtime", "12.000000001"),
        Entry::file("binary-xattr", "x").xattr("user.binary", b"a\nb\0c=d\xff"),
        Entry::dir("xattr-directory").xattr("user.on-directory", "value"),
    ];
    image = image.layer(Tarball::of(second));
    let third = [
        Entry::dir("sparse"),
        Entry::file("sparse/pax", "").pax_sparse(&[(0, &[b'h'; 512]), (131_072, b"tail")], 200_000),
        Entry::file("sparse/hole", "").pax_sparse(&[], 10_000),
        Entry::dir("special"),
        Entry::new(tar::EntryType::Fifo, "special/fifo").mode(0o622),
        Entry::new(tar::EntryType::Char, "special/null").device(1, 3).mode(0o666).owner(3, 4),
        Entry::new(tar::EntryType::Block, "special/block").device(7, 200).mode(0o660),
        Entry::symlink("dangling", "/no/where").owner(77, 88).mtime(1_212_121_212),
        Entry::symlink("absolute", "/real/inside"),
        Entry::symlink("climbing", "../../../../etc/passwd"),
        Entry::file("high-owner", "h").owner(2_000_000, 2_000_001),
        Entry::file("huge-owner", "h").pax("uid", "3000000000").pax("gid", "3000000001"),
        Entry::file("name with spaces and \u{fc}ml\u{e4}uts", "n"),
        Entry::dir("made"),
        Entry::dir("made/then"),
        Entry::dir("made/then/whited"),
        Entry::file("made/then/whited/file", "w"),
        Entry::file("both", "lower"),
    ];
    image = image.layer(Tarball::of(third));
    let fourth = [
        Entry::dir("made").mode(0o700),
        Entry::dir("made/then").mtime(1_444_444_444),
        Entry::whiteout("made/then/whited"),
        Entry::dir("links").mode(0o775),
        Entry::whiteout("links/second"),
        Entry::file("changed", "after").mode(0o604).mtime(1_700_000_000),
        Entry::dir("kept").mode(0o755).mtime(1_650_000_000),
        Entry::whiteout("both"),
        Entry::dir("both").mode(0o755),
        Entry::file("both/inside", "upper"),
        Entry::whiteout("never-there"),
        Entry::dir("deep"),
        Entry::dir("deep/er").mtime(1_000_000_000),
        Entry::file("deep/er/file", "d").mtime(1_000_000_001),
    ];
    image.layer(Tarball::of(fourth))
}

/// Layers that reach into each other: links to files of a lower layer, names through its symbolic
/// links.
fn across_layers() -> Image {
    Image::probe(&["tree"])
        .layer(Tarball::of([
            Entry::dir("etc"),
            Entry::dir("dev"),
            Entry::dir("proc"),
            Entry::dir("sys"),
            Entry::dir("links"),
            Entry::file("links/first", "the same").mode(0o4750).owner(7, 8),
            Entry::symlink("links/to-first", "first"),
            Entry::dir("real").mode(0o750),
            Entry::file("real/inside", "inside").mode(0o600),
            Entry::symlink("alias", "real"),
        ]))
        .layer(Tarball::of([
            Entry::dir("links"),
            Entry::hardlink("links/second", "links/first").mode(0o4750).owner(7, 8),
            Entry::hardlink("links/linked", "links/to-first"),
            Entry::dir("real").mode(0o751),
            Entry::file("alias/through", "through a symbolic link"),
        ]))
        .layer(Tarball::of([
            Entry::dir("links").mode(0o711),
            Entry::hardlink("links/third", "links/second").mode(0o4750).owner(7, 8),
            Entry::whiteout("links/first"),
            Entry::dir("real"),
            Entry::hardlink("real/again", "alias/inside").mode(0o600),
        ]))
}

fn by_path(listing: &str) -> BTreeMap<&str, &str> {
    listing.lines().filter_map(|line| line.split_once(' ')).collect()
}

#[track_caller]
fn assert_same_tree(ours: &str, theirs: &str, what: &str) {
    let (ours, theirs) = (by_path(ours), by_path(theirs));
    assert!(theirs.len() > 15, "Docker's container shows only {} files", theirs.len());
    let paths = ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>();
    let wrong: Vec<String> = paths
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| {
            format!("{path}\n  ours   {:?}\n  docker {:?}", ours.get(path), theirs.get(path))
        })
        .collect();
    assert!(wrong.is_empty(), "{what}: {} files differ\n{}", wrong.len(), wrong.join("\n"));
}

fn tree_in_docker(engine: &Engine, image: &str) -> String {
    let mut words = vec!["tree"];
    words.extend(ENGINE);
    engine
        .docker([
            "run",
            "--rm",
            "--network",
            "none",
            "--user",
            "0",
            "--entrypoint",
            "/probe",
            image,
        ])
        .args(words)
        .run()
        .success()
        .stdout
}

fn tree_in_ours(scene: &Scene, image: &str, flags: &[&str]) -> String {
    let dir = scene.path("bundle");
    let bundle = scene.imgtool().arg("bundle").args(flags);
    let bundle = bundle.args(["--network", "none", "-u", "0", "--entrypoint", "/probe", image]);
    bundle.arg(&dir).args(["--", "tree"]).args(ENGINE).run().success();
    let outcome = scene.runtime().args(["run", "--bundle"]).arg(&dir).arg(scene.id("tree")).run();
    scene.imgtool().arg("rm").arg(&dir).run().success();
    outcome.success().stdout
}

#[track_caller]
pub(crate) fn assert_equal_to_docker(engine: &Engine, image: &Image) {
    scene(|scene| {
        let name = "e2e.test/equality:latest";
        let archive = image.docker_archive(&scene.path("image.tar"), name);
        engine.docker(["load", "--quiet", "--input"]).arg(&archive).run().success();
        scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
        let theirs = tree_in_docker(engine, name);
        assert_same_tree(&tree_in_ours(scene, name, &["--copy"]), &theirs, "--copy");
        assert_same_tree(&tree_in_ours(scene, name, &[]), &theirs, "overlay");
        engine.docker(["rmi", name]).run().success();
        scene.imgtool().args(["rmi", name]).run().success();
    });
}

#[test]
fn a_container_sees_what_dockers_container_sees() {
    assert_equal_to_docker(Engine::overlay(), &four_layers());
}

/// Docker's overlay driver unpacks each layer by itself and fails at such links; its plain driver
/// unpacks one on top of the other, as the image specification says, and is the judge here. That
/// driver in turn loses user xattrs between layers, so it can't be the judge of the rest.
#[test]
fn layers_that_reach_into_lower_ones_give_what_dockers_plain_driver_gives() {
    assert_equal_to_docker(Engine::vfs(), &across_layers());
}

/// Docker 20.10 refuses entries of type S, which old GNU tar writes; GNU tar itself is the judge.
#[test]
fn sparse_files_of_old_gnu_tar_are_whole() {
    scene(|scene| {
        let layer = || {
            Tarball::of([
                Entry::dir("sparse"),
                Entry::file("sparse/old", "")
                    .gnu_sparse(&[(4096, &[b'd'; 1024]), (65536, b"end"), (70000, b"")], 70000),
                Entry::file("sparse/after", "not lost"),
            ])
        };
        let name = "e2e.test/sparse:latest";
        let image = Image::probe(&[]).layer(layer());
        let archive = image.docker_archive(&scene.path("image.tar"), name);
        scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
        let (bundle, theirs) = (scene.path("bundle"), scene.path("theirs"));
        let made = scene.imgtool().args(["bundle", "--copy", name]).arg(&bundle).run();
        made.success();
        fs::create_dir(&theirs).unwrap();
        let tar = Cmd::line("tar --extract --file - --directory").arg(&theirs);
        tar.stdin(layer().bytes()).run().success();
        for file in ["sparse/old", "sparse/after"] {
            let (ours, theirs) = (bundle.join("rootfs").join(file), theirs.join(file));
            assert_eq!(
                digest(&fs::read(&ours).unwrap()),
                digest(&fs::read(&theirs).unwrap()),
                "{file}"
            );
            assert_eq!(
                fs::metadata(&ours).unwrap().mtime(),
                fs::metadata(&theirs).unwrap().mtime()
            );
        }
        let blocks = fs::metadata(bundle.join("rootfs/sparse/old")).unwrap().blocks();
        assert!(blocks * 512 < 70000, "holes are written out: {blocks} blocks");
        scene.imgtool().arg("rm").arg(&bundle).run().success();
    });
}
