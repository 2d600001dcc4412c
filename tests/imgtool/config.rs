//! What the flags of `imgtool bundle` and the image's configuration give a container.

use std::fs;

use serde_json::{Value, json};

use super::{Image, Scene, bundle, load, remove, run, scene};

const NAME: &str = "e2e.test/config:latest";

/// What the probe reports from a container of `image` made with `flags`.
fn report(scene: &Scene, image: &Image, flags: &[&str]) -> Value {
    load(scene, image, NAME);
    let flags: Vec<&str> = ["--network", "none"].into_iter().chain(flags.iter().copied()).collect();
    bundle(scene, &flags, NAME, "b", &[]);
    let report = run(scene, "b").success().json();
    remove(scene, "b");
    report
}

#[test]
fn the_images_configuration_is_taken_over() {
    scene(|scene| {
        let image = Image::probe(&[])
            .with("Entrypoint", vec!["/probe"])
            .with("Cmd", vec!["report"])
            .with("Env", vec!["KEY=value", "PATH=/somewhere"])
            .with("WorkingDir", "/var/work")
            .with("User", "user");
        let seen = report(scene, &image, &[]);
        assert_eq!(seen["args"], json!(["/probe", "report"]));
        assert_eq!(seen["env"]["KEY"], "value");
        assert_eq!(seen["env"]["PATH"], "/somewhere");
        assert_eq!(seen["cwd"], "/var/work");
        assert_eq!((&seen["uid"], &seen["gid"]), (&1000.into(), &1000.into()));
        assert!(seen["groups"].as_array().unwrap().contains(&2000.into()), "{}", seen["groups"]);
    });
}

#[test]
fn a_container_is_as_confined_as_dockers() {
    scene(|scene| {
        let seen = report(scene, &Image::probe(&["report"]), &[]);
        let docker = "a80425fb";
        assert_eq!(seen["capabilities"]["bounding"], docker);
        assert_eq!(seen["capabilities"]["effective"], docker);
        assert_eq!(seen["capabilities"]["inheritable"], "0");
        assert_eq!(seen["seccomp"], "2");
        assert_eq!(seen["pid"], 1);
        for name in ["pid", "net", "ipc", "uts", "mnt"] {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_ne!(seen["namespaces"][name], host.to_str().unwrap(), "{name}");
        }
        for path in ["/proc/keys", "/proc/timer_list", "/sys/firmware"] {
            assert!(!seen["mounts"][path].is_null(), "{path} is not masked");
        }
        for path in ["/proc/sys", "/proc/irq", "/proc/bus"] {
            let options = seen["mounts"][path]["options"].as_array().unwrap();
            assert!(options.contains(&"ro".into()), "{path}: {options:?}");
        }
    });
}

#[test]
fn flags_override_the_image() {
    scene(|scene| {
        let image = Image::probe(&["report"]).with("Env", vec!["KEY=image"]);
        let flags = ["-e", "KEY=flag", "-w", "/tmp", "-u", "1000:2000", "--hostname", "a-name"];
        let seen = report(scene, &image, &flags);
        assert_eq!(seen["env"]["KEY"], "flag");
        assert_eq!(seen["cwd"], "/tmp");
        assert_eq!((&seen["uid"], &seen["gid"]), (&1000.into(), &2000.into()));
        assert_eq!(seen["hostname"], "a-name");
    });
}

#[test]
fn limits_reach_the_cgroup() {
    scene(|scene| {
        let flags = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"];
        let seen = report(scene, &Image::probe(&["report"]), &flags);
        assert_eq!(seen["cgroup"]["memory.max"], "67108864");
        assert_eq!(seen["cgroup"]["cpu.quota"], "50000");
        assert_eq!(seen["cgroup"]["pids.max"], "50");
    });
}

#[test]
fn capabilities_are_added_and_dropped() {
    scene(|scene| {
        let flags = ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "CAP_KILL"];
        let seen = report(scene, &Image::probe(&["report"]), &flags);
        assert_eq!(seen["capabilities"]["bounding"], "1020");
    });
}

#[test]
fn a_volume_is_bound_and_a_read_only_root_is_one() {
    scene(|scene| {
        let data = scene.path("data");
        fs::create_dir(&data).unwrap();
        load(scene, &Image::probe(&[]), NAME);
        let volume = format!("{}:/data", data.display());
        let flags = ["--network", "none", "--read-only", "-v", &volume];
        bundle(scene, &flags, NAME, "b", &["/probe", "append", "/data/file", "kept"]);
        run(scene, "b").success();
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "kept\n");
        remove(scene, "b");
        bundle(scene, &flags, NAME, "b", &["/probe", "try", "create", "/file"]);
        assert_eq!(run(scene, "b").success().stdout, "EROFS\n");
        remove(scene, "b");
        let read_only = format!("{volume}:ro");
        let flags = ["--network", "none", "-v", &read_only];
        bundle(scene, &flags, NAME, "b", &["/probe", "try", "create", "/data/other"]);
        assert_eq!(run(scene, "b").success().stdout, "EROFS\n");
        remove(scene, "b");
    });
}

#[test]
fn entrypoint_and_command_combine_as_in_docker() {
    scene(|scene| {
        let image = Image::probe(&[])
            .with("Entrypoint", vec!["/probe", "echo", "entry"])
            .with("Cmd", vec!["command"]);
        load(scene, &image, NAME);
        for (flags, words, expected) in [
            (&["--network", "none"][..], &[][..], "entry command\n"),
            (&["--network", "none"], &["given"], "entry given\n"),
            (&["--network", "none", "--entrypoint", "/probe"], &["echo", "bare"], "bare\n"),
        ] {
            bundle(scene, flags, NAME, "b", words);
            assert_eq!(run(scene, "b").success().stdout, expected);
            remove(scene, "b");
        }
    });
}

#[test]
fn a_terminal_is_given_when_asked() {
    scene(|scene| {
        load(scene, &Image::probe(&["report"]), NAME);
        let dir = bundle(scene, &["--network", "none", "-t", "-i"], NAME, "b", &[]);
        let run = scene.runtime().args(["run", "--bundle"]).arg(&dir).arg(scene.id("tty"));
        assert_eq!(run.on_terminal().run().success().json()["tty"], true);
        remove(scene, "b");
    });
}

/// An image must not act on the host: labels under prefixes that runtimes, engines or our own
/// binaries act on never become annotations, and that is said.
#[test]
fn labels_that_act_are_dropped() {
    scene(|scene| {
        let acting = [
            "io.containerd.runc.options",
            "run.oci.hooks.stdout",
            "org.systemd.property.ExecStopPost",
            "org.criu.config",
            "io.kubernetes.cri.sandbox-id",
            "org.imgtool.bundle",
            "org.imgtool.hostname",
        ];
        let mut labels = json!({ "org.example.harmless": "kept" });
        for label in acting {
            labels[label] = "planted".into();
        }
        load(scene, &Image::probe(&[]).with("Labels", labels), NAME);
        let dir = scene.path("b");
        let made = scene.imgtool().args(["bundle", "--network", "none", NAME]).arg(&dir).run();
        let made = made.success();
        let config = fs::read_to_string(dir.join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        let annotations = config["annotations"].as_object().unwrap();
        assert_eq!(annotations["org.example.harmless"], "kept");
        for label in acting {
            assert_ne!(annotations.get(label), Some(&"planted".into()), "{label}");
            assert!(made.stderr.contains(label), "{label} is not told: {}", made.stderr);
        }
        remove(scene, "b");
    });
}

#[test]
fn a_user_that_is_no_user_is_refused() {
    scene(|scene| {
        load(scene, &Image::probe(&["report"]), NAME);
        for user in ["4294967296", "-1", "+0", " 0", "nobody-here", "0:4294967296", "a:b:c"] {
            let made = scene.imgtool().arg("bundle").arg(format!("--user={user}")).arg(NAME);
            made.arg(scene.path("b")).run().refused(&[user.rsplit(':').next().unwrap().trim()]);
            assert!(!scene.path("b").exists());
        }
    });
}
