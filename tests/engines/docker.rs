//! Docker Engine with `--add-runtime`: containerd's shim and BuildKit call the runtime for it.

use std::fs;

use super::{IMAGE, archive};
use crate::harness::docker::Engine;
use crate::harness::{Cmd, Scene, Witness, eventually, scene};

/// A scene with an engine under our runtime that has the image.
#[track_caller]
fn engine(body: impl FnOnce(&Engine, &Witness, &Scene)) {
    scene(|scene| {
        let witness = Witness::new(scene);
        let engine = Engine::under(&witness, scene);
        engine.docker(["load", "--quiet", "--input"]).arg(archive(scene)).run().success();
        body(&engine, &witness, scene);
    });
}

/// `docker run --network none <options> IMAGE /bin/sh -c <script>`.
fn run(engine: &Engine, options: &str, script: &str) -> Cmd {
    let words = options.split_whitespace();
    engine.docker(["run", "--network=none"]).args(words).args([IMAGE, "/bin/sh", "-c", script])
}

fn detached(engine: &Engine, options: &str, script: &str) {
    run(engine, &format!("--detach {options}"), script).run().success();
}

fn inspect(engine: &Engine, container: &str, field: &str) -> String {
    let format = format!("{{{{{field}}}}}");
    engine.docker(["inspect", "--format", &format, container]).run().success().word().to_owned()
}

#[test]
fn docker_names_our_runtime_and_its_version() {
    engine(|engine, witness, _| {
        let info = engine.docker(["info", "--format", "{{json .}}"]).run().success().json();
        assert_eq!(info["DefaultRuntime"], "ours");
        assert_eq!(info["Runtimes"]["ours"]["path"], witness.program().display().to_string());
        let version = engine.docker(["version", "--format", "{{json .Server.Components}}"]);
        let version = version.run().success().json();
        let ours = version.as_array().unwrap().iter().find(|part| part["Name"] == "ours").unwrap();
        assert_eq!(ours["Version"], witness.version());
    });
}

#[test]
fn docker_runs_execs_and_stops() {
    engine(|engine, witness, _| {
        let said = run(engine, "--rm", "echo out; echo err >&2; exit 3").run().code(3);
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
        run(engine, "--rm -i", "cat").stdin("typed").run().success().stdout_has("typed");
        let terminal = run(engine, "--rm -t", "test -t 0 && echo terminal").on_terminal();
        terminal.run().success().stdout_has("terminal");

        let polite = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done";
        detached(engine, "--name=polite", polite);
        let exec = |options: &str, script: &str| {
            let words = options.split_whitespace();
            engine.docker(["exec"]).args(words).args(["polite", "/bin/sh", "-c", script])
        };
        let seen = exec("-u 1000:2000 -w /etc -e KEY=value", "id; pwd; echo $KEY").run().success();
        assert_eq!(seen.stdout, "uid=1000(user) gid=2000(extra) groups=2000(extra)\n/etc\nvalue\n");
        exec("", "exit 7").run().code(7);
        exec("-i", "cat").stdin("typed").run().success().stdout_has("typed");
        let terminal = exec("-t", "test -t 0 && echo terminal").on_terminal();
        terminal.run().success().stdout_has("terminal");
        engine.docker(["exec", "polite", "/nowhere"]).run().code(126).stdout_has("no such file");
        engine.docker(["top", "polite"]).run().success().stdout_has("trap");

        engine.docker(["stop", "polite"]).run().success();
        assert_eq!(inspect(engine, "polite", ".State.ExitCode"), "4");
        assert_eq!(engine.docker(["logs", "polite"]).run().success().stdout, "up\nbye\n");
        engine.docker(["start", "polite"]).run().success();
        engine.docker(["kill", "polite"]).run().success();
        assert_eq!(engine.docker(["wait", "polite"]).run().success().word(), "137");
        engine.docker(["rm", "polite"]).run().success();
        witness.saw(&["create --pid-file", "start", "exec --process", "exec --console-socket"]);
        witness.saw(&["kill 15", "kill 9", "ps --format json", "delete"]);
    });
}

/// The engine reads our error texts to choose between 126 and 127.
#[test]
fn docker_tells_why_a_program_can_not_be_run() {
    engine(|engine, _, _| {
        for (program, code, text) in [
            ("/nowhere", 127, "no such file or directory"),
            ("nowhere", 127, "executable file not found in $PATH"),
            ("/etc/passwd", 126, "permission denied"),
        ] {
            let run = engine.docker(["run", "--rm", "--network=none", IMAGE, program]).run();
            run.code(code).stderr_has("OCI runtime create failed: ").stderr_has(text);
        }
        assert_eq!(engine.docker(["ps", "--all", "--quiet"]).run().success().stdout, "");
    });
}

#[test]
fn docker_pauses_and_goes_on() {
    engine(|engine, witness, _| {
        detached(engine, "--name=paused", "sleep 1000");
        engine.docker(["pause", "paused"]).run().success();
        assert_eq!(inspect(engine, "paused", ".State.Status"), "paused");
        engine.docker(["exec", "paused", "true"]).run().code(1).stderr_has("is paused");
        engine.docker(["unpause", "paused"]).run().success();
        engine.docker(["exec", "paused", "true"]).run().success();
        engine.docker(["rm", "--force", "paused"]).run().success();
        witness.saw(&["pause", "resume"]);
    });
}

#[test]
fn docker_updates_limits_and_shows_them_in_stats() {
    engine(|engine, witness, _| {
        detached(engine, "--name=limited --memory=32m --pids-limit=20", "sleep 1000");
        let update = "--memory=64m --memory-swap=64m --cpus=0.5 --pids-limit=30";
        engine.docker(["update"]).args(update.split(' ')).arg("limited").run().success();
        let pid = inspect(engine, "limited", ".State.Pid");
        for (controller, file, value) in [
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("pids", "pids.max", "30"),
        ] {
            assert_eq!(limit(&pid, controller, file), value, "{file}");
        }
        let stats = engine.docker(["stats", "--no-stream", "--format", "{{json .}}", "limited"]);
        let stats = stats.run().success().json();
        assert_eq!(stats["PIDs"], "1");
        assert!(stats["MemUsage"].as_str().unwrap().ends_with(" / 64MiB"), "{stats}");
        engine.docker(["rm", "--force", "limited"]).run().success();
        witness.saw(&["update --resources -"]);
    });
}

/// What a file of cgroup v1 says for the process.
fn limit(pid: &str, controller: &str, file: &str) -> String {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = cgroups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let path = format!("/sys/fs/cgroup/{controller}{}/{file}", path.unwrap());
    fs::read_to_string(path).unwrap().trim_end().to_owned()
}

#[test]
fn docker_learns_of_a_container_out_of_memory() {
    engine(|engine, _, _| {
        let eat = "dd if=/dev/zero of=/dev/null bs=64M count=1";
        run(engine, "--name=eater --memory=16m --memory-swap=16m", eat).run().code(137);
        // Docker hears of it on a way of its own, which may be longer than that of the end.
        eventually(|| inspect(engine, "eater", ".State.OOMKilled") == "true");
        assert_eq!(inspect(engine, "eater", ".State.OOMKilled"), "true");
        engine.docker(["rm", "eater"]).run().success();
    });
}

#[test]
fn docker_restarts_what_fails_as_often_as_asked() {
    engine(|engine, witness, scene| {
        detached(engine, "--name=failing --restart=on-failure:2", "echo again; exit 1");
        let three = format!(
            "mkfifo $0; docker {} events --since=0 --filter=container=failing --filter=event=die >$0 &
             head -n 3 $0; kill $!",
            engine.host_words().join(" "),
        );
        let three = Cmd::new("sh").args(["-c", &three]).arg(scene.path("events")).run().success();
        assert_eq!(three.stdout.matches("exitCode=1").count(), 3, "{}", three.stdout);
        assert_eq!(inspect(engine, "failing", ".RestartCount"), "2");
        assert_eq!(engine.docker(["logs", "failing"]).run().success().stdout, "again\n".repeat(3));
        engine.docker(["rm", "--force", "failing"]).run().success();
        witness.saw(&["create", "start", "delete"]);
    });
}

#[test]
fn dockers_flags_reach_the_container() {
    engine(|engine, _, scene| {
        let volume = scene.path("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("file"), "from the host\n").unwrap();
        let options = format!(
            "--rm --read-only --tmpfs=/scratch:size=1m --cap-drop=all --cap-add=kill --user=1000:2000 \
             --hostname=named --volume={}:/volume:ro --security-opt=no-new-privileges \
             --ulimit=nofile=99:99 --sysctl=kernel.msgmax=4096 --shm-size=2m --group-add=1234",
            volume.display(),
        );
        let script = "id -u; id -G; hostname; cat /volume/file; ulimit -n; \
             cat /proc/sys/kernel/msgmax; touch /scratch/file && echo scratch; \
             touch /file 2>/dev/null || echo read-only; touch /volume/file 2>/dev/null || echo ro; \
             grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";
        let seen = run(engine, &options, script).run().success();
        let wanted = "1000\n2000 1234\nnamed\nfrom the host\n99\n4096\nscratch\nread-only\nro\n\
             CapBnd:\t0000000000000020\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert_eq!(seen.stdout, wanted);
    });
}

/// Two containers of one engine in each other's namespaces, and one in none of its own.
#[test]
fn docker_shares_namespaces_between_containers_and_with_the_host() {
    engine(|engine, _, _| {
        let spaces = "for name in pid ipc net; do readlink /proc/self/ns/$name; done";
        detached(engine, "--name=first --ipc=shareable", "sleep 1000");
        let first = engine.docker(["exec", "first", "sh", "-c", spaces]).run().success().stdout;
        let join = "--rm --pid=container:first --ipc=container:first --network=container:first";
        let words = join.split(' ');
        let second = engine.docker(["run"]).args(words).args([IMAGE, "/bin/sh", "-c", spaces]);
        assert_eq!(second.run().success().stdout, first);
        engine.docker(["rm", "--force", "first"]).run().success();

        let words = "--rm --pid=host --ipc=host --uts=host --network=host".split(' ');
        let host = engine.docker(["run"]).args(words).args([IMAGE, "/bin/sh", "-c", spaces]);
        let ours = Cmd::new("sh").args(["-c", spaces]).run().success().stdout;
        assert_eq!(host.run().success().stdout, ours);
    });
}

const DOCKERFILE: &str = "FROM e2e.test/busybox\nCOPY file /copied\n\
    RUN cat /copied > /built && echo built >> /built\nCMD [\"/bin/cat\", \"/built\"]\n";

/// Builds with the client at `client`; what the built image prints.
fn build(engine: &Engine, scene: &Scene, buildkit: &str, client: Cmd) -> String {
    let context = scene.path("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
    fs::write(context.join("file"), "copied\n").unwrap();
    let words = ["build", "--network=none", "--tag=e2e.test/built"];
    client.args(words).arg(&context).env("DOCKER_BUILDKIT", buildkit).run().success();
    let built = engine.docker(["run", "--rm", "--network=none", "e2e.test/built"]);
    built.run().success().stdout
}

#[test]
fn docker_builds_with_its_own_builder() {
    engine(|engine, witness, scene| {
        assert_eq!(build(engine, scene, "0", engine.docker([])), "copied\nbuilt\n");
        witness.saw(&["create", "start", "delete"]);
    });
}

/// BuildKit runs a container in the foreground, with pipes.
#[test]
fn docker_builds_with_buildkit() {
    engine(|engine, witness, scene| {
        // Debian's client has BuildKit's side built in; others want a plugin.
        let client = Cmd::new("/usr/bin/docker").args(engine.host_words());
        assert_eq!(build(engine, scene, "1", client), "copied\nbuilt\n");
        witness.saw(&["run --bundle"]);
    });
}
