//! buildah with `--runtime`: it polls the runtime's state, and believes only what the spec names.

use std::fs;

use super::{IMAGE, archive};
use crate::harness::podman::Podman;
use crate::harness::{Scene, Witness, scene};

#[track_caller]
fn buildah(body: impl FnOnce(&Podman, &Witness, &Scene)) {
    scene(|scene| {
        let witness = Witness::new(scene);
        let podman = Podman::new(&witness, scene);
        let source = format!("docker-archive:{}", archive(scene).display());
        podman.buildah("pull --quiet").arg(source).run().success();
        body(&podman, &witness, scene);
    });
}

#[test]
fn buildah_builds_a_dockerfile() {
    buildah(|podman, witness, scene| {
        let context = scene.path("context");
        fs::create_dir(&context).unwrap();
        let dockerfile = format!(
            "FROM {IMAGE}\nCOPY file /copied\nRUN cat /copied > /built && echo built >> /built\n\
             RUN --mount=type=tmpfs,target=/scratch touch /scratch/file && cat /built\n"
        );
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        fs::write(context.join("file"), "copied\n").unwrap();
        let bud = podman.buildah_running("bud").args(["--tag", "e2e.test/built"]).arg(&context);
        bud.run().success().stdout_has("copied\nbuilt\n");
        witness.saw(&["create --bundle", "start", "state", "delete"]);
    });
}

#[test]
fn buildah_runs_in_a_working_container() {
    buildah(|podman, witness, _| {
        podman.buildah("from --name working").arg(IMAGE).run().success();
        let run = |options: &str, script: &str| {
            let run = podman.buildah_running("run").args(options.split_whitespace());
            run.args(["working", "/bin/sh", "-c", script])
        };
        run("", "echo made > /made").run().success();
        run("", "cat /made; exit 5").run().code(5).stdout_has("made");
        run("--user 1000", "id -u").run().success().stdout_has("1000");
        let terminal = run("--tty", "test -t 0 && echo terminal").on_terminal();
        terminal.run().success().stdout_has("terminal");
        let missing = podman.buildah_running("run").args(["working", "/nowhere"]).run();
        missing.code(1).stderr_has("stat /nowhere: no such file or directory");
        podman.buildah("rm working").run().success();
        witness.saw(&["create --pid-file", "create --console-socket", "start", "state", "delete"]);
    });
}
