//! A disk that is full, too little memory, a limit of processes that is reached, a clock that is set:
//! one line, nothing left of what was begun, and what runs goes on.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::json;

use super::limits::assert_limits;
use super::{Subject, under_ours};
use crate::harness::disk::Disk;
use crate::harness::{Bundle, Cmd, eventually, tracer};

const HOUR: i64 = 3600;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn on_a_full_disk_nothing_starts_and_what_runs_goes_on() {
    under_ours(|it| {
        let root = it.scene.path("root");
        let disk = Disk::at(&root, "size=256k");
        let runtime = || it.cmd(["--root"]).arg(&root);
        let bundle = Bundle::new(it.scene, &["pause"]);
        let (dir, live) = (bundle.write(), it.scene.id("live"));
        runtime().args(["run", "--detach", "--bundle"]).arg(dir).arg(&live).run().success();
        let state = runtime().args(["state", &live]).run().success().json();
        let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
        let before = names(&root.join(&live));
        // No room for the configuration, for the state, for the state when there is a process.
        for free in [0, 4096, 8192] {
            let filler = disk.fill_but(free);
            for start in ["create", "run", "run --detach", "run --detach --supervise"] {
                let start = start.split(' ').collect::<Vec<_>>();
                let id = it.scene.id("none");
                let full = runtime().args(start).arg("--bundle").arg(dir).arg(&id).run();
                full.refused(&["no space left on device", &root.display().to_string()]);
                assert_eq!(names(&root), [live.clone(), "filler".to_owned()]);
            }
            runtime().args(["exec", &live, "/probe", "exit", "3"]).run().code(3);
            if free == 0 {
                let update = ["update", "--pids-limit", "33", &live];
                runtime().args(update).run().refused(&["no space left on device"]);
                assert_limits(pid, &[("pids", "pids.max", "max")], &[("pids.max", "max")]);
                assert_eq!(names(&root.join(&live)), before);
            }
            fs::remove_file(filler).unwrap();
        }
        let id = it.scene.id("none");
        runtime().args(["create", "--bundle"]).arg(dir).arg(&id).run().success();
        let filler = disk.fill_but(0);
        for id in [&live, &id] {
            runtime().args(["delete", "--force", id]).run().success();
        }
        fs::remove_file(filler).unwrap();
        assert_eq!(names(&root), [""; 0]);
    });
}

#[test]
fn an_end_is_recorded_where_the_log_has_filled_the_disk() {
    under_ours(|it| {
        let records = it.scene.path("records");
        let disk = Disk::at(&records, "size=256k");
        let runtime = || it.cmd(["--records"]).arg(&records);
        let bundle = Bundle::new(it.scene, &["cat", "/large"]);
        let large = vec![b'x'; 400_000];
        fs::write(it.scene.path("bundle/rootfs/large"), &large).unwrap();
        let id = it.scene.id("full");
        let run = runtime().args(["run", "--supervise", "--bundle"]).arg(bundle.write()).arg(&id);
        // What is attached sees all of it.
        assert_eq!(run.run().success().stdout.len(), large.len());
        let filler = disk.fill_but(0);
        let seen = runtime().args(["inspect", &id]).run().success().stdout;
        assert!(seen.contains("\"exit_code\": 0"), "{seen}");
        assert!(seen.contains("some of the output could not be logged"), "{seen}");
        runtime().args(["wait", &id]).run().success().stdout_has("0");
        runtime().args(["logs", &id]).run().success().stdout_has("xxx");
        runtime().args(["delete", &id]).run().success();
        fs::remove_file(filler).unwrap();
        // Where there is no room for a record nothing is started.
        let filler = disk.fill_but(0);
        let run = runtime().args(["run", "--supervise", "--bundle"]).arg(bundle.write()).arg(&id);
        run.run().refused(&["no space left on device", &records.display().to_string()]);
        fs::remove_file(filler).unwrap();
        assert_eq!(names(&records), [""; 0]);
    });
}

#[test]
fn too_little_memory_to_set_up_a_container_is_said() {
    under_ours(|it| {
        let id = it.scene.id("oom");
        let mut killed = 0;
        for limit in [4096, 16_384, 65_536, 262_144, 524_288] {
            let memory = json!({ "limit": limit, "swap": limit });
            let bundle = Bundle::new(it.scene, &["pause"])
                .edit("/linux/resources", json!({ "memory": memory }))
                .edit("/linux/cgroupsPath", format!("/{id}"));
            let create = it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run();
            if create.code == 0 {
                it.run(["delete", "--force", &id]).success();
                continue;
            }
            killed += usize::from(create.stderr.contains("OOM-killed"));
            create.refused(&["memory"]);
            it.run(["state", &id]).refused(&["does not exist"]);
        }
        assert!(killed > 0, "no limit was too low for the set-up");
    });
}

/// A control group with a limit of processes, for who is put into it.
struct Crowded(PathBuf);

impl Crowded {
    fn of(id: &str) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/pids");
        let root = if v1.exists() { v1 } else { Path::new("/sys/fs/cgroup") };
        let path = root.join(id);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Starts a command that may be so many processes, and threads, at once.
    fn run(&self, most: usize, command: Cmd) -> crate::harness::Outcome {
        fs::write(self.0.join("pids.max"), most.to_string()).unwrap();
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        command.prefix(&["sh", "-c", &enter, "sh"]).run()
    }
}

impl Drop for Crowded {
    fn drop(&mut self) {
        // What is left in it is found by the scene.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn where_no_more_processes_may_be_started_nothing_is_half_started() {
    const REFUSED: &str = "esource temporarily unavailable";
    under_ours(|it| {
        let group = it.scene.id("crowded");
        let crowded = Crowded::of(&group);
        let mut bundle = Bundle::new(it.scene, &["pause"]);
        if !Path::new("/sys/fs/cgroup/pids").exists() {
            // v2 counts a process where it is born: that is to be beneath the limit.
            bundle = bundle.edit("/linux/cgroupsPath", json!(format!("/{group}/one")));
        }
        let (dir, id) = (bundle.write(), it.scene.id("one"));
        let mut created = false;
        for most in 1..=4 {
            let create = it.cmd(["create", "--bundle"]).arg(dir).arg(&id);
            let create = crowded.run(most, create);
            created = create.code == 0;
            assert!(!(created && most == 1), "{create:?}");
            if created {
                break;
            }
            create.refused(&[REFUSED]);
            it.run(["state", &id]).refused(&["does not exist"]);
        }
        assert!(created, "four processes are enough");
        it.run(["start", &id]).success();
        let mut joined = false;
        for most in 1..=4 {
            let exec = crowded.run(most, it.cmd(["exec", &id, "/probe", "exit", "3"]));
            joined = exec.code == 3;
            assert!(!(joined && most == 1), "{exec:?}");
            if joined {
                break;
            }
            exec.refused(&[REFUSED]);
            let listed = it.run(["ps", "--format", "json", &id]).success().json();
            assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        }
        assert!(joined, "four processes are enough");
        it.run(["delete", "--force", &id]).success();
    });
}

/// The clocks of the container and of its supervisor are set, those of the other commands are not.
#[test]
fn a_clock_that_is_set_changes_no_wait_and_loses_no_line() {
    under_ours(|it: &Subject| {
        let id = it.scene.id("clock");
        let bundle = Bundle::new(it.scene, &["cat", "/go"]);
        let go = it.scene.path("bundle/rootfs/go");
        Cmd::new("mkfifo").arg(&go).run().success();
        let run = it.cmd(["run", "--supervise", "--detach", "--bundle"]);
        let run = run.arg(bundle.write()).arg(&id);
        let ahead = Arc::new(AtomicI64::new(0));
        let traced = std::thread::scope(|scope| {
            let clock = Arc::clone(&ahead);
            let traced = scope.spawn(move || tracer::with_clock(run, clock));
            // Opens once the container reads from it.
            assert!(eventually(|| it.run(["state", &id]).code == 0));
            let mut pipe = fs::File::options().write(true).open(&go).unwrap();
            let logged = || it.run(["logs", &id]).success().stdout;
            for (jump, line) in [(0, "now"), (-6 * HOUR, "before"), (6 * HOUR, "after")] {
                ahead.store(jump, Ordering::Relaxed);
                writeln!(pipe, "{line}").unwrap();
                assert!(eventually(|| logged().contains(line)), "{line}");
            }
            assert_eq!(logged(), "now\nbefore\nafter\n");
            let since = it.run(["logs", "--since", "1h", &id]).success().stdout;
            assert_eq!(since, "now\nafter\n");
            it.run(["list", "--format", "wide"]).success().stdout_has("Up ");
            // The first program of a PID namespace is deaf to TERM: the time has to run out.
            it.run(["stop", "--time", "1", &id]).success();
            it.run(["wait", &id]).success().stdout_has("137");
            it.run(["list", "--format", "wide"]).success().stdout_has("Exited (137)");
            traced.join().unwrap()
        });
        assert_eq!((traced.code, traced.hung), (0, false), "{traced:?}");
        it.run(["start", &id]).success();
        assert!(it.run(["logs", &id]).success().stdout.starts_with("now\nbefore\nafter\n"));
        it.run(["delete", "--force", &id]).success();
    });
}
