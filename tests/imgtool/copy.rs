//! Images from any place to any place, with skopeo on the other side of each.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Cmd, Compression, Image, Scene, load, scene};
use crate::harness::image::digest;
use crate::harness::registry::Registry;

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn put(layout: &Path, bytes: &[u8]) -> Value {
    let id = digest(bytes);
    fs::write(layout.join("blobs/sha256").join(&id[7..]), bytes).unwrap();
    json!({ "digest": id, "size": bytes.len() })
}

/// A layout with an index of two platforms, one image attested; gives the index's digest.
pub(super) fn index_layout(dir: &Path) -> String {
    let mut entries = Vec::new();
    for (architecture, compression) in
        [("amd64", Compression::Gzip), ("arm64", Compression::Zstd), ("s390x", Compression::None)]
    {
        let image = Image::probe(&[architecture]);
        image.layout(dir, architecture, compression);
        let index: Value =
            serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        let entry = &index["manifests"][0];
        let read = |entry: &Value| -> Value {
            let id = entry["digest"].as_str().unwrap();
            let bytes = fs::read(dir.join("blobs/sha256").join(&id[7..])).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        // The same for another machine.
        let mut manifest = read(entry);
        let mut config = read(&manifest["config"]);
        config["architecture"] = architecture.into();
        let put_config = put(dir, config.to_string().as_bytes());
        manifest["config"]["digest"] = put_config["digest"].clone();
        manifest["config"]["size"] = put_config["size"].clone();
        let mut entry = put(dir, manifest.to_string().as_bytes());
        entry["mediaType"] = MANIFEST.into();
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entries.push(entry);
    }
    let mut layer = put(dir, b"{\"predicate\":\"made by nobody\"}");
    layer["mediaType"] = "application/vnd.in-toto+json".into();
    let mut config = put(
        dir,
        br#"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
    );
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
        "layers": [layer] });
    let mut attestation = put(dir, manifest.to_string().as_bytes());
    attestation["mediaType"] = MANIFEST.into();
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": entries[0]["digest"],
    });
    entries.push(attestation);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    let mut entry = put(dir, index.to_string().as_bytes());
    let id = entry["digest"].as_str().unwrap().to_owned();
    entry["mediaType"] = INDEX.into();
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "all" });
    let top = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(dir.join("index.json"), top.to_string()).unwrap();
    id
}

pub(super) fn copy(scene: &Scene, words: &[&str]) -> String {
    let copied = scene.imgtool().args(["copy", "--quiet", "--digestfile"]);
    let digest = scene.path("digest");
    copied.arg(&digest).args(words).run().success();
    fs::read_to_string(digest).unwrap()
}

/// The manifest's digest as skopeo sees it.
pub(super) fn seen(place: &str) -> String {
    let raw = Cmd::line("skopeo inspect --raw --tls-verify=false").arg(place).run().success();
    digest(raw.stdout.as_bytes())
}

#[test]
fn every_way_of_one_image_keeps_its_digest() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let image = Image::probe(&["report"]);
        let layout = image.layout(&scene.path("layout"), "v1", Compression::Gzip);
        let path = |name: &str| scene.path(name).display().to_string();
        let start = format!("oci:{}:v1", layout.display());
        let wanted = seen(&start);
        let host = &registry.host;
        let ways = [
            format!("docker://{host}/lib/a:1"),
            format!("docker://{host}/lib/b:1"),
            format!("dir:{}", path("dir")),
            format!("oci:{}:x", path("oci")),
            format!("oci-archive:{}:lib/c:1", path("oci.tar")),
            "e2e.test/copied:1".to_owned(),
            format!("docker-archive:{}:e2e.test/d:1", path("docker.tar")),
            format!("docker://{host}/lib/e:1"),
        ];
        let mut from = start;
        for to in ways {
            println!("{from} -> {to}");
            assert_eq!(copy(scene, &[&from, &to]), wanted);
            if to.starts_with("docker://") || to.starts_with("oci") || to.starts_with("dir:") {
                assert_eq!(seen(&to), wanted, "{to}");
            }
            from = to;
        }
        // What a copy left in the store is what was copied to it.
        scene.imgtool().args(["rmi", "e2e.test/copied:1"]).run().success();
        assert_eq!(fs::read_dir(scene.store().join("blobs/sha256")).unwrap().count(), 0);
        // skopeo reads the archive as docker's, where only the configuration is kept.
        let docker = format!("docker-archive:{}", path("docker.tar"));
        let config = Cmd::line("skopeo inspect --config --raw").arg(&docker).run().success();
        assert_eq!(digest(config.stdout.as_bytes()), image.id());
    });
}

#[test]
fn pipes_are_places_too() {
    scene(|scene| {
        let image = Image::probe(&[]);
        load(scene, &image, "e2e.test/piped:1");
        let imgtool = crate::harness::command::binary("imgtool");
        let imgtool = imgtool.display();
        let dir = scene.path("dir").display().to_string();
        let script = format!(
            "{imgtool} copy e2e.test/piped:1 - | {imgtool} copy - dir:{dir} && {imgtool} copy \
             e2e.test/piped:1 oci-archive:- | gzip | {imgtool} copy -q oci-archive:- e2e.test/two:2"
        );
        let piped = Cmd::new("sh").args(["-c", &script]).env("IMGTOOL_ROOT", scene.store());
        piped.run().success();
        let seen = scene.imgtool().args(["inspect", "e2e.test/two:2"]).run().success().json();
        assert_eq!(seen[0]["Id"], image.id().as_str());
    });
}

#[test]
fn whole_indexes_go_along_with_what_was_attested_and_keep_their_digest() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let host = &registry.host;
        let wanted = index_layout(&scene.path("layout"));
        let layout = format!("oci:{}:all", scene.path("layout").display());
        let one = format!("docker://{host}/lib/all:1");
        assert_eq!(copy(scene, &["--all", &layout, &one]), wanted);
        assert_eq!(seen(&one), wanted);
        let two = format!("docker://{host}/lib/again:1");
        let mounted = scene.imgtool().args(["copy", "--all", &one, &two]).run().success();
        mounted.stdout_has("Mounted from lib/all");
        assert_eq!(seen(&two), wanted);
        // skopeo finds all of it.
        let out = scene.path("skopeo");
        let all = Cmd::line("skopeo copy --all --quiet --insecure-policy --src-tls-verify=false");
        all.arg(&two).arg(format!("dir:{}", out.display())).run().success();
        assert_eq!(digest(&fs::read(out.join("manifest.json")).unwrap()), wanted);

        // The same through the store: pull of all, save, load, push.
        let name = format!("{host}/lib/all:1");
        scene.imgtool().args(["pull", "--platform", "all", &name]).run().success();
        let saved = scene.path("saved.tar");
        scene.imgtool().args(["save", "-o"]).arg(&saved).arg(&name).run().success();
        scene.imgtool().args(["rmi", &name]).run().success();
        scene.imgtool().args(["load", "-i"]).arg(&saved).run().success();
        let third = format!("{host}/lib/third:1");
        scene.imgtool().args(["tag", &name, &third]).run().success();
        scene.imgtool().args(["push", &third]).run().success();
        assert_eq!(registry.digest("lib/third:1"), wanted);
        // And out of it once more: into a store that has nothing of it.
        let other = scene.path("other");
        let again = scene.imgtool().arg("--root").arg(&other);
        let again = again.args(["pull", "--platform", "all", &third]).run().success();
        again.stdout_has(&format!("Digest: {wanted}"));
        let kept = format!("oci:{}:{third}", other.display());
        assert_eq!(seen(&kept), wanted);
        // Layers of gzip, zstd and none, and what was attested, as they were.
        let verified = scene.imgtool().arg("--root").arg(&other).arg("verify").run().success();
        assert!(verified.stderr.is_empty(), "{}", verified.stderr);
        let back = format!("dir:{}", scene.path("back").display());
        let all = Cmd::line("skopeo copy --all --quiet --insecure-policy").arg(&kept);
        all.arg(&back).run().success();
        for file in fs::read_dir(&out).unwrap() {
            let name = file.unwrap().file_name();
            let bytes = |dir: &Path| fs::read(dir.join(&name)).unwrap();
            assert_eq!(bytes(&scene.path("back")), bytes(&out), "{}", name.display());
        }
    });
}

#[test]
fn some_platforms_make_an_index_of_just_them() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let wanted = index_layout(&scene.path("layout"));
        let layout = format!("oci:{}:all", scene.path("layout").display());
        let to = format!("docker://{}/lib/some:1", registry.host);
        let some = |platforms: &str| copy(scene, &["--platform", platforms, &layout, &to]);
        let two = some("linux/amd64,linux/s390x");
        assert_ne!(two, wanted);
        assert_eq!(two, some("linux/s390x,linux/amd64"));
        let raw = Cmd::line("skopeo inspect --raw --tls-verify=false").arg(&to).run().success();
        let index = raw.json();
        let platforms: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(platforms, ["amd64", "s390x", "unknown"]);
        let refused = scene.imgtool().args(["copy", "--preserve-digests", "--platform"]);
        refused.args(["linux/amd64,linux/s390x", &layout, &to]).run().refused(&["digest"]);
        let missing = scene.imgtool().args(["copy", "--platform", "linux/mips", &layout, &to]);
        missing.run().refused(&["linux/mips", "linux/s390x"]);

        // A single one is an image and no index; pushing a part of an index pushes that.
        let single = some("linux/arm64");
        let raw = Cmd::line("skopeo inspect --raw --tls-verify=false").arg(&to).run().success();
        assert_eq!(digest(raw.stdout.as_bytes()), single);
        assert!(raw.json()["layers"].is_array());
        copy(scene, &["--all", &layout, &to]);
        let name = format!("{}/lib/some:1", registry.host);
        scene.imgtool().args(["pull", "--platform", "linux/s390x", &name]).run().success();
        let other = format!("{}/lib/part:1", registry.host);
        scene.imgtool().args(["tag", &name, &other]).run().success();
        let part = scene.imgtool().args(["push", &other]).run().success();
        part.stderr_has("linux/s390x is pushed");
        // Where the registry has the rest already, the whole index is pushed.
        let back = format!("{}/lib/some:2", registry.host);
        scene.imgtool().args(["tag", &name, &back]).run().success();
        scene.imgtool().args(["push", &back]).run().success();
        assert_eq!(registry.digest("lib/some:2"), wanted);
    });
}

#[test]
fn referrers_go_along_when_asked() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let host = &registry.host;
        let layout = Image::probe(&[]).layout(&scene.path("layout"), "v1", Compression::Gzip);
        let from = format!("docker://{host}/lib/signed:1");
        copy(scene, &[&format!("oci:{}:v1", layout.display()), &from]);
        let subject = registry.digest("lib/signed:1");
        // A bill of materials that says what it is about, found by the tag that stands in for the
        // list this registry does not keep; and a signature by sigstore's tag.
        let upload = |bytes: &[u8]| {
            let file = scene.path("blob");
            fs::write(&file, bytes).unwrap();
            let script = format!(
                "u=$(curl -sfi -X POST http://{host}/v2/lib/signed/blobs/uploads/ | tr -d '\\r' | \
                 sed -n 's/^Location: //p') && curl -sf -X PUT --data-binary @{} \
                 -H 'Content-Type: application/octet-stream' \"$u&digest={}\"",
                file.display(),
                digest(bytes)
            );
            Cmd::new("sh").args(["-c", &script]).run().success();
            json!({ "mediaType": "application/json", "digest": digest(bytes), "size": bytes.len() })
        };
        let manifest = |reference: &str, kind: &str, body: &Value| {
            let file = scene.path("manifest");
            fs::write(&file, body.to_string()).unwrap();
            let put =
                Cmd::line("curl -sf -X PUT --data-binary").arg(format!("@{}", file.display()));
            put.args(["-H", &format!("Content-Type: {kind}")])
                .arg(format!("http://{host}/v2/lib/signed/manifests/{reference}"))
                .run()
                .success();
            json!({ "mediaType": kind, "digest": digest(body.to_string().as_bytes()),
                "size": body.to_string().len(), "artifactType": "application/x.sbom" })
        };
        let config = upload(b"{}");
        let bom = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": [upload(b"[]")], "artifactType": "application/x.sbom",
            "subject": { "mediaType": MANIFEST, "digest": subject, "size": 1 } });
        let referrer = manifest(&digest(bom.to_string().as_bytes()), MANIFEST, &bom);
        let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer] });
        let tag = subject.replace(':', "-");
        manifest(&tag, INDEX, &list);
        let signature = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": [upload(b"signed")] });
        manifest(&format!("{tag}.sig"), MANIFEST, &signature);

        let to = format!("docker://{host}/lib/copied:1");
        let copied = scene.imgtool().args(["copy", "--referrers", &from, &to]).run().success();
        copied.stdout_has("Referrer: sha256:");
        assert_eq!(registry.digest("lib/copied:1"), subject);
        let raw = |name: String| {
            let inspect = Cmd::line("skopeo inspect --raw --tls-verify=false");
            inspect.arg(format!("docker://{host}/lib/{name}")).run().success()
        };
        let list = |name: &str| raw(format!("{name}:{tag}")).json()["manifests"].clone();
        assert_eq!(list("copied"), list("signed"));
        let signature = |name: &str| raw(format!("{name}:{tag}.sig")).stdout;
        assert_eq!(signature("copied"), signature("signed"));
    });
}

#[test]
fn copies_that_can_not_be_leave_nothing() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let to = format!("docker://{}/lib/x:1", registry.host);
        let copy = |words: &[&str]| scene.imgtool().arg("copy").args(words).run();
        copy(&["oci:/nonexistent", &to]).refused(&["/nonexistent"]);
        copy(&["docker-daemon:x:1", &to]).refused(&["docker-daemon"]);
        copy(&["none", &to]).refused(&["no such image"]);
        copy(&[&to, "e2e.test/x"]).refused(&["lib/x:1", "not found"]);
        let layout = scene.path("layout");
        index_layout(&layout);
        let source = format!("oci:{}:none", layout.display());
        copy(&[&source, &to]).refused(&["no image none"]);
        // One layer is gone: nothing gets a name.
        let source = format!("oci:{}", layout.display());
        let largest = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|e| e.unwrap().path());
        let largest = largest.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        fs::remove_file(largest).unwrap();
        copy(&["--all", &source, &to]).refused(&["missing"]);
        copy(&["--all", &source, "e2e.test/x"]).refused(&["missing"]);
        let tags = scene.imgtool().args(["list-tags", &format!("{}/lib/x", registry.host)]).run();
        assert!(tags.code != 0 || tags.stdout.is_empty(), "{tags:?}");
        assert_eq!(fs::read_dir(scene.store().join("blobs/sha256")).unwrap().count(), 0);
    });
}

#[test]
fn whole_lists_are_copied() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let host = &registry.host;
        let layout = Image::probe(&[]).layout(&scene.path("layout"), "v1", Compression::Gzip);
        for name in
            ["a:1.0", "a:1.1", "lib/b:v1.2.3", "lib/b:v2.0.0", "lib/b:latest", "c:x1", "c:y"]
        {
            registry.push(&layout, "v1", name);
        }
        let list = scene.path("list.yaml");
        let text = format!(
            "\"{host}\":\n  tls-verify: false\n  images:\n    a: [\"1.0\"]\n  \
             images-by-tag-regex:\n    c: ^x\n  images-by-semver:\n    lib/b: \"< 2\"\n"
        );
        fs::write(&list, text).unwrap();
        let run = |words: &[&str]| {
            scene.imgtool().args(["copy", "-q", "--list"]).arg(&list).args(words).run()
        };
        let dry = run(&["--dry-run", "store:"]).success();
        assert_eq!(dry.stdout.lines().count(), 3, "{}", dry.stdout);
        let to = format!("docker://{host}/mirror");
        run(&[&to]).success();
        run(&["--scoped", &to]).success();
        let found = scene.imgtool().args(["search", &format!("{host}/mirror")]).run().success();
        let scoped = format!("mirror/{}/lib/b", host.replace(':', "-"));
        for name in ["mirror/a ", "mirror/b ", "mirror/c ", &scoped] {
            assert!(found.stdout.contains(name), "{name} in {}", found.stdout);
        }
        let tags = scene.imgtool().args(["list-tags", &format!("{host}/mirror/b")]).run();
        assert_eq!(tags.success().stdout, "v1.2.3\n");
        let dir = format!("dir:{}", scene.path("out").display());
        fs::create_dir(scene.path("out")).unwrap();
        run(&[&dir]).success();
        assert!(scene.path("out/a:1.0/manifest.json").exists());
        fs::write(&list, format!("\"{host}\":\n  images:\n    none: [x]\n    a: []\n")).unwrap();
        run(&["store:"]).refused(&["none:x"]);
        run(&["--keep-going", "store:"]).refused(&["none:x"]);
        let images = scene.imgtool().args(["images", "-q"]).run().stdout;
        assert_eq!(images.lines().count(), 2, "{images}");
        fs::write(&list, "- no\n- mapping\n").unwrap();
        run(&["store:"]).refused(&["list.yaml", "no mapping"]);
        scene.imgtool().args(["copy", "x"]).run().code(125);
    });
}
