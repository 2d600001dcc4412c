//! `--device VENDOR/CLASS=NAME` and `--gpus`: what vendors' files say is there in the container.

use std::fs;

use serde_json::json;

use super::{Image, load, remove, scene};

const NAME: &str = "e2e.test/cdi:1";

#[test]
fn a_vendor_s_device_brings_its_nodes_mounts_hooks_and_variables() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        let specs = scene.path("cdi");
        fs::create_dir(&specs).unwrap();
        let library = scene.path("library");
        fs::write(&library, "code\n").unwrap();
        let (library, told) = (library.display(), scene.path("told").display().to_string());
        let widget = format!(
            "cdiVersion: 0.6.0\nkind: vendor.example/widget\ncontainerEdits:\n  env: [DRIVER=7]\n  \
             hooks:\n  - hookName: createRuntime\n    path: /bin/sh\n    args: [sh, -c, 'echo hook >> {told}']\n\
             devices:\n- name: one\n  containerEdits:\n    env: [\"WIDGET=one\"]\n    \
             deviceNodes:\n    - path: /dev/widget\n      hostPath: /dev/fuse\n      permissions: r\n    \
             mounts:\n    - hostPath: {library}\n      containerPath: /lib/widget.so\n      options: [ro, nosuid, bind]\n\
             - name: two\n  containerEdits:\n    env: [SECOND=two]\n"
        );
        fs::write(specs.join("widget.yaml"), widget).unwrap();
        let gpu = |name: &str, value: &str| json!({ "name": name, "containerEdits": { "env": [format!("GPU={value}")] } });
        let gpus = json!({ "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu",
                           "devices": [gpu("all", "every"), gpu("0", "first")] });
        fs::write(specs.join("nvidia.json"), gpus.to_string()).unwrap();

        let specs = specs.to_str().unwrap();
        let said = |flags: &[&str], script: &str| {
            let flags = [&["--network", "none", "--cdi-spec-dir", specs], flags].concat();
            super::bundle(scene, &flags, NAME, "b", &["sh", "-c", script]);
            let outcome = super::run(scene, "b");
            remove(scene, "b");
            outcome
        };
        let script = "echo $DRIVER $WIDGET $SECOND; cat /lib/widget.so; : < /dev/widget && echo opened; \
                      echo x > /lib/widget.so; : > /dev/widget";
        let both =
            ["--device", "vendor.example/widget=one", "--device", "vendor.example/widget=two"];
        let outcome = said(&both, script).stderr_has("Read-only").stderr_has("not permitted");
        assert_eq!(outcome.stdout, "7 one two\ncode\nopened\n");
        // What holds for the whole file is done once.
        assert_eq!(fs::read_to_string(&told).unwrap(), "hook\n");
        for (gpus, value) in [("all", "every"), ("1", "first"), ("device=0", "first")] {
            assert_eq!(said(&["--gpus", gpus], "echo $GPU").success().stdout, format!("{value}\n"));
        }
    });
}

#[test]
fn a_device_that_nobody_describes_or_two_do_is_refused_and_a_later_directory_wins() {
    scene(|scene| {
        load(scene, &Image::busybox(), NAME);
        let (first, second) = (scene.path("first"), scene.path("second"));
        fs::create_dir(&first).unwrap();
        fs::create_dir(&second).unwrap();
        let spec = |value: &str| {
            json!({ "cdiVersion": "0.6.0", "kind": "v.example/x",
                    "devices": [{ "name": "a", "containerEdits": { "env": [format!("A={value}")] } }] })
            .to_string()
        };
        let dirs =
            ["--cdi-spec-dir", first.to_str().unwrap(), "--cdi-spec-dir", second.to_str().unwrap()];
        let refused = |flags: &[&str], words: &[&str]| {
            let dir = scene.path("refused");
            let bundle = scene.imgtool().arg("bundle").args(dirs).args(flags).arg(NAME).arg(&dir);
            bundle.run().refused(words);
            assert!(!dir.exists());
        };
        refused(
            &["--gpus", "all"],
            &["no CDI specification", "nvidia.com/gpu=all", "there is nothing"],
        );
        fs::write(first.join("x.json"), spec("early")).unwrap();
        fs::write(first.join("broken.yaml"), "kind: [").unwrap();
        refused(
            &["--device", "v.example/x=b"],
            &["v.example/x=b", "there is v.example/x=a", "broken.yaml"],
        );
        refused(&["--device", "v.example=a"], &["invalid device", "VENDOR/CLASS=NAME"]);
        refused(&["--gpus", "some"], &["--gpus \"some\"", "a number"]);
        fs::write(second.join("x.json"), spec("late")).unwrap();
        let flags = [&dirs[..], &["--network", "none", "--device", "v.example/x=a"]].concat();
        super::bundle(scene, &flags, NAME, "b", &["sh", "-c", "echo $A"]);
        assert_eq!(super::run(scene, "b").success().stdout, "late\n");
        remove(scene, "b");
        fs::write(second.join("y.json"), spec("again")).unwrap();
        refused(&["--device", "v.example/x=a"], &["two things", "x.json", "y.json"]);
    });
}
