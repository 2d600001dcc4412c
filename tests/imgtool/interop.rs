//! What other tools write is loaded and pulled; what we write, other tools load: with every digest
//! kept.

use std::fs;
use std::path::Path;

use super::{Cmd, Compression, Image, Scene, bundle, load, remove, run, scene};
use crate::harness::docker::Engine;
use crate::harness::registry::Registry;

const NAME: &str = "e2e.test/interop:latest";

/// The image as it now lies in our store is the one the test made, and it runs.
#[track_caller]
fn assert_it_is_there_and_runs(scene: &Scene, name: &str, image: &Image) {
    let seen = scene.imgtool().args(["inspect", name]).run().success().json();
    assert_eq!(seen[0]["Id"], image.id().as_str());
    assert_it_runs(scene, name);
}

#[track_caller]
fn assert_it_runs(scene: &Scene, name: &str) {
    bundle(scene, &["--network", "none"], name, "b", &["/probe", "echo", "it", "runs"]);
    assert_eq!(run(scene, "b").success().stdout, "it runs\n");
    remove(scene, "b");
    scene.imgtool().args(["rmi", name]).run().success();
}

#[test]
fn layouts_of_every_compression_are_loaded() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        println!("{compression:?}");
        scene(|scene| {
            let image = Image::probe(&[]);
            let layout = image.layout(&scene.path("layout"), NAME, compression);
            scene.imgtool().args(["load", "--input"]).arg(&layout).run().success();
            assert_it_is_there_and_runs(scene, NAME, &image);
        });
    }
}

#[test]
fn archives_are_loaded_plain_and_compressed_from_files_and_stdin() {
    for program in ["cat", "gzip --fast", "zstd --fast", "xz -0", "bzip2 --fast"] {
        println!("{program}");
        scene(|scene| {
            let image = Image::probe(&[]);
            let archive = image.docker_archive(&scene.path("image.tar"), NAME);
            let packed = scene.path("packed");
            let pack = format!("{program} < {} > {}", archive.display(), packed.display());
            Cmd::new("sh").args(["-c", &pack]).run().success();
            let loaded = scene.imgtool().args(["load", "-i"]).arg(&packed).run().success();
            loaded.stdout_has(&format!("Loaded image: {NAME}"));
            assert_it_is_there_and_runs(scene, NAME, &image);
            let piped = scene.imgtool().arg("load").stdin(fs::read(&packed).unwrap()).run();
            piped.success();
            assert_it_is_there_and_runs(scene, NAME, &image);
        });
    }
}

#[test]
fn an_image_that_docker_built_and_saved_is_loaded_and_runs() {
    scene(|scene| {
        let docker = Engine::overlay();
        let context = scene.path("context");
        fs::create_dir(&context).unwrap();
        fs::copy(crate::harness::command::binary("probe"), context.join("probe")).unwrap();
        let dockerfile = "FROM scratch\nCOPY probe /probe\nRUN [\"/probe\", \"append\", \"/made\", \
                          \"in the build\"]\nENV KEY=value\nCMD [\"/probe\", \"cat\", \"/made\"]\n";
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let build = docker.docker(["build", "--network", "none", "--tag", NAME]).arg(&context);
        build.env("DOCKER_BUILDKIT", "0").run().success();
        let id = docker.docker(["inspect", "--format", "{{.Id}}", NAME]).run().success();
        let archive = scene.path("saved.tar");
        docker.docker(["save", NAME, "--output"]).arg(&archive).run().success();
        docker.docker(["rmi", NAME]).run().success();
        scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
        let seen = scene.imgtool().args(["inspect", NAME]).run().success().json();
        assert_eq!(seen[0]["Id"], id.word());
        bundle(scene, &["--network", "none"], NAME, "b", &[]);
        assert_eq!(run(scene, "b").success().stdout, "in the build\n");
        remove(scene, "b");
    });
}

#[test]
fn archives_that_podman_and_skopeo_wrote_are_loaded() {
    scene(|scene| {
        let image = Image::probe(&[]);
        let layout = image.layout(&scene.path("layout"), "latest", Compression::Gzip);
        let source = format!("oci:{}:latest", layout.display());
        for (kind, suffix) in
            [("docker-archive", format!(":{NAME}")), ("oci-archive", format!(":{NAME}"))]
        {
            println!("skopeo's {kind}");
            let file = scene.path(kind);
            let target = format!("{kind}:{}{suffix}", file.display());
            let copy = Cmd::line("skopeo copy --quiet --insecure-policy");
            copy.args([&source, &target]).run().success();
            scene.imgtool().args(["load", "-i"]).arg(&file).run().success();
            assert_it_is_there_and_runs(scene, NAME, &image);
        }
        let archive = image.docker_archive(&scene.path("image.tar"), NAME);
        podman(scene).args(["load", "--quiet", "--input"]).arg(&archive).run().success();
        for format in ["docker-archive", "oci-archive"] {
            println!("podman's {format}");
            let file = scene.path("podman.tar");
            let save = podman(scene).args(["save", "--quiet", "--format", format, "--output"]);
            save.arg(&file).arg(NAME).run().success();
            scene.imgtool().args(["load", "-i"]).arg(&file).run().success();
            // podman writes the configuration anew when it makes an OCI image of a docker one.
            let id = config_digest(scene, &format!("{format}:{}", file.display()));
            let seen = scene.imgtool().args(["inspect", NAME]).run().success().json();
            assert_eq!(seen[0]["Id"], id);
            fs::remove_file(&file).unwrap();
            assert_it_runs(scene, NAME);
        }
    });
}

/// podman with all its state in the scene.
fn podman(scene: &Scene) -> Cmd {
    let path = |name: &str| scene.path(name).display().to_string();
    Cmd::new("podman")
        .args(["--root", &path("podman"), "--runroot", &path("podman-run"), "--tmpdir"])
        .args([&path("podman-tmp"), "--storage-driver", "vfs", "--events-backend", "none"])
}

#[test]
fn what_we_save_docker_podman_and_skopeo_load_under_the_same_id() {
    scene(|scene| {
        let image = Image::probe(&["report"]).with("Env", vec!["KEY=value"]);
        load(scene, &image, NAME);
        let saved = scene.path("saved.tar");
        scene.imgtool().args(["save", NAME, "--output"]).arg(&saved).run().success();

        let docker = Engine::overlay();
        docker.docker(["load", "--quiet", "--input"]).arg(&saved).run().success();
        let id = docker.docker(["inspect", "--format", "{{.Id}}", NAME]).run().success();
        assert_eq!(id.word(), image.id());
        docker.docker(["rmi", NAME]).run().success();

        podman(scene).args(["load", "--quiet", "--input"]).arg(&saved).run().success();
        let id = podman(scene).args(["inspect", "--format", "{{.Id}}", NAME]).run().success();
        assert_eq!(format!("sha256:{}", id.word()), image.id());

        for kind in ["docker-archive", "oci-archive"] {
            let file = scene.path(kind);
            let save = scene.imgtool().args(["save", "--format", kind, NAME, "--output"]);
            save.arg(&file).run().success();
            assert_eq!(config_digest(scene, &format!("{kind}:{}", file.display())), image.id());
        }
        let own_store = format!("oci:{}:{NAME}", scene.store().display());
        assert_eq!(config_digest(scene, &own_store), image.id());
    });
}

/// The digest of the configuration in what skopeo makes of `source`.
fn config_digest(scene: &Scene, source: &str) -> String {
    let dir = scene.path("as-dir");
    let copy = Cmd::line("skopeo copy --quiet --insecure-policy").arg(source);
    copy.arg(format!("dir:{}", dir.display())).run().success();
    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn save_goes_to_stdout_and_what_it_writes_is_private() {
    scene(|scene| {
        let image = Image::probe(&[]);
        load(scene, &image, NAME);
        let (file, piped) = (scene.path("saved.tar"), scene.path("piped.tar"));
        scene.imgtool().args(["save", "-o"]).arg(&file).arg(NAME).run().success();
        let imgtool = crate::harness::command::binary("imgtool");
        let script = format!("{} save {NAME} > {}", imgtool.display(), piped.display());
        Cmd::new("sh").args(["-c", &script]).env("IMGTOOL_ROOT", scene.store()).run().success();
        assert_eq!(fs::read(&file).unwrap(), fs::read(&piped).unwrap());
        assert_eq!(mode(&file), 0o600);
        scene.imgtool().args(["rmi", NAME]).run().success();
        scene.imgtool().arg("load").stdin(fs::read(&piped).unwrap()).run().success();
        assert_it_is_there_and_runs(scene, NAME, &image);
    });
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_open_registry_is_pulled_from_and_every_digest_is_kept() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let image = Image::probe(&[]).layer(crate::harness::tarball::Tarball::of([
            crate::harness::tarball::Entry::file("second", "layer"),
        ]));
        let layout = image.layout(&scene.path("layout"), "latest", Compression::Gzip);
        registry.push(&layout, "latest", "lib/image:latest");
        let name = format!("{}/lib/image", registry.host);
        let digest = {
            let inspect = Cmd::line("skopeo inspect --tls-verify=false --format {{.Digest}}");
            inspect.arg(format!("docker://{name}:latest")).run().success().word().to_owned()
        };
        let pulled = scene.imgtool().args(["pull", &name]).run().success();
        let all = pulled.stdout.clone() + &pulled.stderr;
        for text in [
            "Using default tag: latest",
            &format!("Digest: {digest}"),
            "Status: Downloaded newer image",
        ] {
            assert!(all.contains(text), "{text:?} in {all}");
        }
        let again = scene.imgtool().args(["pull", &name]).run().success();
        assert!((again.stdout + &again.stderr).contains("Status: Image is up to date"));
        let listed = scene.imgtool().args(["images", "--digests"]).run().success();
        listed.stdout_has(&digest);
        let by_digest = format!("{name}@{digest}");
        scene.imgtool().args(["pull", &by_digest]).run().success();
        assert_it_is_there_and_runs(scene, &format!("{name}:latest"), &image);
        let missing =
            scene.imgtool().args(["pull", &format!("{}/lib/none:1", registry.host)]).run();
        missing.refused(&["lib/none"]);
    });
}

/// What every tool writes, we load; what we then save, every tool loads: the same image throughout.
#[test]
fn the_configuration_is_the_same_through_every_tool_s_hands() {
    scene(|scene| {
        let image = Image::probe(&["report"]).with("Env", vec!["KEY=value"]);
        let made = image.docker_archive(&scene.path("made.tar"), NAME);
        let path = |name: &str| scene.path(name).display().to_string();
        let docker = Engine::overlay();
        docker.docker(["load", "--quiet", "--input"]).arg(&made).run().success();
        docker.docker(["save", NAME, "--output"]).arg(path("docker save")).run().success();
        docker.docker(["rmi", NAME]).run().success();
        podman(scene).args(["load", "--quiet", "--input"]).arg(&made).run().success();
        for format in ["docker-archive", "oci-archive"] {
            let save = podman(scene).args(["save", "--quiet", "--format", format, "--output"]);
            save.arg(path(&format!("podman {format}"))).arg(NAME).run().success();
        }
        let source = format!("docker-archive:{}", made.display());
        for kind in ["docker-archive", "oci-archive", "oci", "dir"] {
            let to = format!("{kind}:{}", path(&format!("skopeo {kind}")));
            let to = if kind == "dir" { to } else { format!("{to}:{NAME}") };
            let copy = Cmd::line("skopeo copy --quiet --insecure-policy");
            copy.args([&source, &to]).run().success();
        }
        let registry = Registry::start(scene);
        let pushed = format!("{}/lib/pushed:1", registry.host);
        let buildah = |words: &[&str]| {
            let own = ["--root", &path("buildah"), "--runroot", &path("buildah-run")];
            let own = Cmd::new("buildah").args(own).args(["--storage-driver", "vfs"]);
            own.args(words).run().success()
        };
        let pulled = buildah(&["pull", "--quiet", &source]);
        let to = format!("docker://{pushed}");
        buildah(&["push", "--quiet", "--tls-verify=false", pulled.word(), &to]);
        scene
            .imgtool()
            .args(["copy", "-q", &to, &format!("oci-archive:{}", path("buildah push"))])
            .run()
            .success();

        let mut writers: Vec<String> = ["docker-archive", "oci-archive", "oci", "dir"]
            .map(|kind| format!("skopeo {kind}"))
            .into();
        writers.extend(
            ["docker save", "podman docker-archive", "podman oci-archive", "buildah push"]
                .map(str::to_owned),
        );
        for writer in writers {
            println!("{writer}");
            let load = scene.imgtool().args(["load", "--tag", NAME, "-i"]).arg(path(&writer));
            load.run().success();
            let seen = scene.imgtool().args(["inspect", "-f", "{{.Id}}", NAME]).run().success();
            let id = seen.word().to_owned();
            // Those that make an OCI image of a docker one write the configuration anew.
            if !writer.contains("oci") && !writer.contains("buildah") {
                assert_eq!(id, image.id(), "{writer}");
            }
            let saved = path("ours.tar");
            scene.imgtool().args(["save", NAME, "-o", &saved]).run().success();
            for kind in ["docker-archive", "oci-archive"] {
                assert_eq!(config_digest(scene, &format!("{kind}:{saved}")), id, "{writer}");
            }
            docker.docker(["load", "--quiet", "--input", &saved]).run().success();
            let theirs = docker.docker(["inspect", "--format", "{{.Id}}", NAME]).run().success();
            assert_eq!(theirs.word(), id, "{writer}");
            docker.docker(["rmi", NAME]).run().success();
            podman(scene).args(["load", "--quiet", "--input", &saved]).run().success();
            let theirs = podman(scene).args(["inspect", "--format", "{{.Id}}", NAME]).run();
            assert_eq!(format!("sha256:{}", theirs.success().word()), id, "{writer}");
            scene.imgtool().args(["rmi", NAME]).run().success();
        }
    });
}
