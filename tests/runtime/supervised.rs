//! `run --supervise`: what is kept of a container, by whom, and for how long.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Subject, under_ours};
use crate::harness::command::binary;
use crate::harness::{Bundle, Cmd, wait_for_exit};

mod attach;
mod health;
mod many;
mod verbs;

const RECORDS: &str = "/var/lib/runtime";

impl Subject<'_> {
    fn record(&self, id: &str) -> Value {
        let text = fs::read(Path::new(RECORDS).join(id).join("record.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn supervisor(&self, id: &str) -> i32 {
        let pid = self.record(id)["life"]["supervisor"]["pid"].as_i64().unwrap();
        i32::try_from(pid).unwrap()
    }

    /// Waits until the container has ended and its supervisor has nothing more to do.
    fn await_end(&self, id: &str) {
        if let Some(pid) = self.record(id)["life"]["supervisor"]["pid"].as_i64() {
            wait_for_exit(i32::try_from(pid).unwrap());
        }
    }

    /// A detached one with this id.
    fn supervise(&self, bundle: &Path, id: &str) {
        let run = self.cmd(["run", "--supervise", "--detach", "--bundle"]).arg(bundle);
        run.arg(id).run().success();
    }

    fn log(&self, id: &str) -> String {
        fs::read_to_string(Path::new(RECORDS).join(id).join("log")).unwrap()
    }

    /// The line about this container that people see.
    fn wide(&self, id: &str) -> String {
        let list = self.run(["list", "-f", "wide", "--filter", &format!("name={id}")]).success();
        list.stdout.lines().nth(1).unwrap_or_default().to_owned()
    }
}

#[test]
fn a_supervised_program_speaks_through_and_stays_listed_with_its_code() {
    under_ours(|it| {
        let id = it.scene.id("fg");
        let bundle = Bundle::new(it.scene, &["echo", "one", "two"]);
        let run = || it.cmd(["run", "--supervise", "--bundle"]).arg(bundle.write()).arg(&id).run();
        assert_eq!(run().success().stdout, "one two\n");

        assert_eq!(it.status(&id), "stopped");
        it.run(["list"]).success().stdout_has(&id).stdout_has("stopped");
        assert!(it.wide(&id).contains("Exited (0) "), "{}", it.wide(&id));
        let log = it.log(&id);
        let (time, row) = log.split_once(' ').unwrap();
        assert_eq!(row, "stdout F one two\n");
        assert!(time.ends_with('Z') && time.len() == "2026-11-24T07:35:21.681362631Z".len());
        let record = it.record(&id);
        assert_eq!(record["life"]["exit_code"], 0);
        assert_eq!(record["command"][1], "echo");
        let mode = |name: &str| {
            let path = Path::new(RECORDS).join(&id).join(name);
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((mode(""), mode("record.json")), (0o700, 0o600));

        // Nothing but the record is left, and the id is taken.
        assert!(!Path::new("/run/runtime").join(&id).exists());
        run().refused(&["already exists"]);
        it.run(["start", &id]).success();
        it.await_end(&id);
        assert_eq!(it.log(&id).lines().count(), 2);
        assert_eq!(it.record(&id)["life"]["exits"], 2);
        it.run(["delete", &id]).success();
        it.run(["state", &id]).refused(&["does not exist"]);
    });
}

#[test]
fn the_code_of_a_supervised_program_is_that_of_run() {
    under_ours(|it| {
        let id = it.scene.id("code");
        let bundle = Bundle::new(it.scene, &["exit", "42"]);
        it.cmd(["run", "--supervise", "--bundle"]).arg(bundle.write()).arg(&id).run().code(42);
        assert!(it.wide(&id).contains("Exited (42) "), "{}", it.wide(&id));
        let listed = |filter: &str| {
            let list = it.run(["list", "-q", "--filter", filter]).success().stdout;
            list.lines().any(|line| line == id)
        };
        assert!(listed("exited=42") && listed("status=exited") && !listed("exited=0"));
        it.run(["list", "--filter", "status=dead"]).refused(&["status=dead", "restarting"]);
        it.run(["delete", &id]).success();
    });
}

#[test]
fn input_comes_and_ends_and_both_streams_are_told_apart() {
    under_ours(|it| {
        let id = it.scene.id("in");
        let bundle = Bundle::new(it.scene, &["stdin"]);
        let run = it.cmd(["run", "--supervise", "-i", "--bundle"]).arg(bundle.write()).arg(&id);
        assert_eq!(run.stdin("typed\nmore").run().success().stdout, "typed\nmore");
        let log = it.log(&id);
        let rows: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(rows, ["stdout F typed", "stdout P more"]);
        it.run(["delete", &id]).success();

        // Without -i it reads nothing, and the program's own error goes to stderr.
        let bundle = Bundle::new(it.scene, &["stdin"]);
        let run = it.cmd(["run", "--supervise", "--rm", "--bundle"]).arg(bundle.write()).arg(&id);
        assert_eq!(run.stdin("typed").run().success().stdout, "");
        let bundle = Bundle::new(it.scene, &["no-such-word"]);
        let run = it.cmd(["run", "--supervise", "--bundle"]).arg(bundle.write()).arg(&id).run();
        run.code(125).stderr_has("probe: unknown words");
        // Words may come one by one, and then lie in the log in parts.
        it.run(["logs", "--stream", "stderr", &id]).success().stderr_has("probe: unknown words");
        it.run(["delete", &id]).success();
    });
}

#[test]
fn a_generated_id_is_printed_and_its_beginning_or_its_name_is_enough() {
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let run = |words: &[&str]| {
            let run = it.cmd(["run", "--supervise", "--detach", "--bundle"]).arg(bundle.write());
            run.args(words).run()
        };
        let id = run(&[]).success().word().to_owned();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let name = it.record(&id)["name"].as_str().unwrap().to_owned();
        assert_eq!(name.split('_').count(), 2, "{name}");
        let line = it.wide(&name);
        assert!(line.starts_with(&id[..12]) && line.contains(" Up "), "{line}");
        for word in [&id[..12], &id, &name] {
            assert_eq!(it.state(word)["id"], *id);
        }
        it.run(["exec", &name, "/probe", "echo", "in"]).success().stdout_has("in");

        let other = run(&["--name", "e2e-named"]).success().word().to_owned();
        run(&["--name", "e2e-named"]).refused(&["e2e-named", &other[..12]]);
        it.run(["delete", &id[..12]]).refused(&[&id, "not stopped", "runtime stop"]);
        it.run(["delete", &id[..12], "e2e-named"]).refused(&[&id, &other, "not stopped"]);
        it.run(["delete", "-f", &id[..12], "e2e-named"]).success();
        it.run(["state", &id]).refused(&["does not exist"]);
        it.run(["delete", "e2e-named"]).refused(&["does not exist"]);
    });
}

#[test]
fn the_callers_death_changes_nothing() {
    under_ours(|it| {
        let id = it.scene.id("orphan");
        let bundle = Bundle::new(it.scene, &["pause"]);
        let output = fs::File::create(it.scene.path("output")).unwrap();
        let run = it.cmd(["run", "--supervise", "--bundle"]).arg(bundle.write()).arg(&id);
        let mut caller = run.start(output);
        assert!(crate::harness::eventually(|| it.wide(&id).contains(" Up ")));
        caller.kill().unwrap();
        caller.wait().unwrap();
        let init = it.pid(&id);
        it.run(["kill", &id, "KILL"]).success();
        wait_for_exit(init);
        it.await_end(&id);
        assert_eq!(it.record(&id)["life"]["exit_code"], 137);
        it.run(["delete", &id]).success();
    });
}

#[test]
fn a_supervisors_death_is_seen_and_what_it_left_is_deleted() {
    under_ours(|it| {
        let id = it.scene.id("widow");
        let bundle = Bundle::new(it.scene, &["pause"]);
        it.supervise(bundle.write(), &id);
        let (init, supervisor) = (it.pid(&id), it.supervisor(&id));
        Cmd::new("kill").args(["-KILL", &supervisor.to_string()]).run().success();
        wait_for_exit(supervisor);
        assert_eq!(it.status(&id), "running");
        it.run(["start", &id]).refused(&["already running"]);
        it.run(["delete", &id]).refused(&["not stopped"]);
        it.run(["kill", &id, "KILL"]).success();
        wait_for_exit(init);
        // Nobody saw the end: docker says 255 then.
        assert!(it.wide(&id).contains("Exited (255) "), "{}", it.wide(&id));
        it.run(["start", &id]).success();
        it.run(["delete", "-f", &id]).success();
    });
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    under_ours(|it| {
        let id = it.scene.id("none");
        let bundle = Bundle::new(it.scene, &[]);
        let bundle = bundle.edit("/process/args", serde_json::json!(["/no/such/program"]));
        for how in ["--detach=true", "--detach=false"] {
            let run = it.cmd(["run", "--supervise", how, "--bundle"]).arg(bundle.write()).arg(&id);
            run.run().refused(&["run failed", "/no/such/program", "no such file"]);
            assert!(!Path::new(RECORDS).join(&id).exists());
        }
        let run = it.cmd(["run", "--restart", "always", "--bundle"]).arg(bundle.write()).arg(&id);
        run.run().refused(&["--restart needs --supervise"]);
        let run = it.cmd(["run", "--supervise", "--restart", "ever", "--bundle"]);
        run.arg(bundle.write()).arg(&id).run().refused(&["ever", "on-failure"]);
    });
}

#[test]
fn a_supervisor_keeps_no_secret_and_nothing_of_its_caller() {
    under_ours(|it| {
        let id = it.scene.id("secret");
        let secret = "correct-horse-battery";
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/process/env", serde_json::json!([format!("PASSWORD={secret}")]));
        let held = fs::File::create(it.scene.path("held")).unwrap();
        rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
        let run = it.cmd(["run", "--supervise", "--detach", "--bundle"]).arg(bundle.write());
        run.env("TOKEN", secret).arg(&id).run().success();
        drop(held);

        let supervisor = it.supervisor(&id);
        let environment = fs::read(format!("/proc/{supervisor}/environ")).unwrap();
        assert!(!find(&environment, secret.as_bytes()));
        let memory = fs::File::open(format!("/proc/{supervisor}/mem")).unwrap();
        let maps = fs::read_to_string(format!("/proc/{supervisor}/maps")).unwrap();
        let mut seen = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let range = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [range.0, range.1].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, from).unwrap();
            assert!(!find(&bytes, secret.as_bytes()), "{line}");
            seen += 1;
        }
        assert!(seen > 0, "no memory was read");
        let fds = fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap();
        let targets: Vec<PathBuf> =
            fds.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
        assert!(!targets.contains(&it.scene.path("held")), "{targets:?}");
        let null = targets.iter().filter(|target| *target == Path::new("/dev/null")).count();
        assert_eq!(null, 3, "{targets:?}");
        it.run(["delete", "-f", &id]).success();
    });
}

fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn called_runc_nothing_is_supervised() {
    under_ours(|it| {
        let link = it.scene.path("runc");
        std::os::unix::fs::symlink(binary("runtime"), &link).unwrap();
        for (flag, name) in [("--supervise", "supervise"), ("--restart=always", "restart")] {
            let run = Cmd::new(&link).args(["run", flag, "c"]).run().code(1);
            run.stderr_has(&format!("flag provided but not defined: -{name}"));
        }
        Cmd::new(&link).args(["list", "-f", "wide"]).run().refused(&["invalid format option"]);
        let help = Cmd::new(&link).args(["run", "--help"]).run().success();
        assert!(!help.stdout.contains("supervise"), "{}", help.stdout);
        let help = Cmd::new(&link).arg("--help").run().success();
        assert!(!help.stdout.contains("--records"), "{}", help.stdout);
    });
}
