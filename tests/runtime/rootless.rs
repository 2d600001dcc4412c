//! What an ordinary user can do, with ids besides its own and without. Here cgroups are not the
//! user's to write; tests/vm has those that are.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::ordinary::{FIRST_SUBID, SUBIDS, UID};
use crate::harness::{Ordinary, Subids, requires, scene};

use super::seccomp::agent::Agent;

/// Runs `body` as a user under our runtime, then under runc.
#[track_caller]
fn under_both(subids: Subids, body: impl Fn(&Ordinary, &str)) {
    requires::program("newuidmap", "uidmap");
    for program in ["runtime", "runc"] {
        println!("under {program}");
        scene(|scene| body(&Ordinary::new(scene, subids), program));
    }
}

#[track_caller]
fn under_ours(subids: Subids, body: impl Fn(&Ordinary)) {
    requires::program("newuidmap", "uidmap");
    scene(|scene| body(&Ordinary::new(scene, subids)));
}

fn maps(further: bool) -> Value {
    let mut maps = vec![json!({"containerID": 0, "hostID": UID, "size": 1})];
    if further {
        maps.push(json!({"containerID": 1, "hostID": FIRST_SUBID, "size": SUBIDS}));
    }
    maps.into()
}

fn map_further_ids(config: &mut Value) {
    config["linux"]["uidMappings"] = maps(true);
    config["linux"]["gidMappings"] = maps(true);
}

#[test]
fn rootless_spec_runs_as_it_is() {
    under_both(Subids::None, |user, program| {
        let bundle = user.bundle(program, "b", &["report"]);
        let run = user.cmd(program).args(["run", "--bundle"]).arg(&bundle).arg("c").run();
        let report = run.success().json();
        assert_eq!((&report["uid"], &report["gid"]), (&json!(0), &json!(0)));
        let map = report["uidMap"].as_str().unwrap();
        let map: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(map, ["0", &UID.to_string(), "1"]);
        assert_eq!(report["mounts"]["/proc"]["type"], "proc");
        // Nodes can't be made in a user namespace: the host's are bound.
        assert!(report["dev"].to_string().contains("null"), "{}", report["dev"]);
        // Its records are the user's own, and nothing but the directory for them is left.
        let records = user.run_dir(program);
        let mode = fs::metadata(&records).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o1700, "{mode:o}");
        assert_eq!(fs::read_dir(records).unwrap().count(), 0);
    });
}

#[test]
fn rootless_container_lives_through_all_its_states() {
    under_both(Subids::None, |user, program| {
        let bundle = user.bundle(program, "b", &["pause"]);
        let run = |words: &[&str]| user.cmd(program).args(words).run();
        user.cmd(program).args(["create", "--bundle"]).arg(&bundle).arg("c").run().success();
        assert_eq!(run(&["state", "c"]).success().json()["status"], "created");
        run(&["exec", "c", "/probe", "exit", "5"]).code(5);
        run(&["start", "c"]).success();
        run(&["list"]).success().stdout_has("running");
        let report = run(&["exec", "c", "/probe", "report"]).success().json();
        assert_eq!(report["uid"], 0);
        let namespaces = report["namespaces"].as_object().unwrap();
        let init = run(&["state", "c"]).success().json()["pid"].as_i64().unwrap();
        for (name, id) in namespaces.iter().filter(|(name, _)| !name.ends_with("_for_children")) {
            let own = fs::read_link(format!("/proc/{init}/ns/{name}")).unwrap();
            assert_eq!(id.as_str().unwrap(), own.to_str().unwrap(), "{name}");
        }
        let typed = user.cmd(program).args(["exec", "--tty", "c", "/probe", "echo", "typed"]);
        typed.on_terminal().run().success().stdout_has("typed");
        run(&["exec", "c", "/probe", "exit", "7"]).code(7);
        run(&["kill", "c", "KILL"]).success();
        crate::harness::wait_for_exit(i32::try_from(init).unwrap());
        assert_eq!(run(&["state", "c"]).success().json()["status"], "stopped");
        run(&["delete", "c"]).success();
        run(&["state", "c"]).refused(&["container does not exist"]);
    });
}

#[test]
fn rootless_containers_share_namespaces_of_others() {
    under_both(Subids::None, |user, program| {
        let run = |words: &[&str]| user.cmd(program).args(words).run();
        let first = user.bundle(program, "a", &["pause"]);
        user.cmd(program).args(["run", "-d", "--bundle"]).arg(&first).arg("c").run().success();
        let init = run(&["state", "c"]).success().json()["pid"].as_i64().unwrap();
        let second = user.bundle(program, "b", &["report"]);
        user.edit(&second, |config| {
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                let name = namespace["type"].as_str().unwrap().to_owned();
                if let "user" | "pid" | "ipc" = name.as_str() {
                    namespace["path"] = json!(format!("/proc/{init}/ns/{name}"));
                }
            }
            // Debian's runc wants the ids of a namespace that has them already.
            for key in ["uidMappings", "gidMappings"].iter().filter(|_| program == "runtime") {
                config["linux"].as_object_mut().unwrap().remove(*key);
            }
        });
        let joined = user.cmd(program).args(["run", "--bundle"]).arg(&second).arg("d").run();
        let report = joined.success().json();
        for name in ["user", "pid", "ipc"] {
            let own = fs::read_link(format!("/proc/{init}/ns/{name}")).unwrap();
            assert_eq!(report["namespaces"][name], own.to_str().unwrap(), "{name}");
        }
        run(&["delete", "-f", "c"]).success();
    });
}

#[test]
fn rootless_processes_are_listed_without_a_cgroup() {
    under_ours(Subids::None, |user| {
        let bundle = user.bundle("runtime", "b", &["pause"]);
        let run = |words: &[&str]| user.cmd("runtime").args(words).run();
        user.cmd("runtime").args(["run", "-d", "--bundle"]).arg(&bundle).arg("c").run().success();
        run(&["exec", "-d", "c", "/probe", "pause"]).success();
        let pids = run(&["ps", "--format", "json", "c"]).success().json();
        assert_eq!(pids.as_array().unwrap().len(), 2, "{pids}");
        run(&["pause", "c"]).code(1).stderr_has("cgroup");
        run(&["delete", "-f", "c"]).success();
    });
}

#[test]
fn rootless_ids_besides_the_own_come_from_the_ranges() {
    under_both(Subids::Granted, |user, program| {
        let bundle = user.bundle(program, "b", &["report"]);
        user.edit(&bundle, |config| {
            map_further_ids(config);
            // runc has no further groups at all without root.
            let groups = if program == "runc" { json!([]) } else { json!([7, 8]) };
            config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": groups});
        });
        let run = user.cmd(program).args(["run", "--bundle"]).arg(&bundle).arg("c").run();
        let report = run.success().json();
        assert_eq!((&report["uid"], &report["gid"]), (&json!(5), &json!(6)));
        if program != "runc" {
            assert_eq!(report["groups"], json!([7, 8]));
        }
    });
}

#[test]
fn rootless_refusals_name_the_cause() {
    under_both(Subids::None, |user, program| {
        let bundle = user.bundle(program, "b", &["report"]);
        let sound = fs::read_to_string(bundle.join("config.json")).unwrap();
        let refused = |change: &dyn Fn(&mut Value), words: &[&str]| {
            fs::write(bundle.join("config.json"), &sound).unwrap();
            user.edit(&bundle, change);
            let run = user.cmd(program).args(["run", "--bundle"]).arg(&bundle).arg("c").run();
            for word in words {
                assert!(run.stderr.contains(word), "{word:?} in {}", run.stderr);
            }
            run.code(1);
        };
        // runc's own words differ from version to version, but not these.
        refused(&map_further_ids, &["newuidmap"]);
        refused(
            &|config| config["process"]["user"]["additionalGids"] = json!([0]),
            &["cannot set any additional groups in a rootless container"],
        );
        refused(
            &|config| {
                let list = config["linux"]["namespaces"].as_array_mut().unwrap();
                list.retain(|namespace| namespace["type"] != "user");
                for key in ["uidMappings", "gidMappings"] {
                    config["linux"].as_object_mut().unwrap().remove(key);
                }
            },
            &["rootless container requires user namespaces"],
        );
        refused(
            &|config| config["mounts"][1]["options"] = json!(["gid=5"]),
            &["cannot specify gid="],
        );
        refused(&|config| config["process"]["user"]["uid"] = json!(9), &["unmapped"]);
    });
}

#[test]
fn rootless_limits_need_a_cgroup() {
    under_ours(Subids::None, |user| {
        let bundle = user.bundle("runtime", "b", &["report"]);
        user.edit(&bundle, |config| {
            config["linux"]["resources"] = json!({"pids": {"limit": 10}});
        });
        let run = user.cmd("runtime").args(["run", "--bundle"]).arg(&bundle).arg("c").run();
        let texts = [
            "cannot set pids limit: container could not join or create cgroup",
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        ];
        assert!(texts.iter().any(|text| run.stderr.contains(text)), "{}", run.stderr);
        run.code(1);
        assert_eq!(fs::read_dir(user.run_dir("runtime")).unwrap().count(), 0);
    });
}

#[test]
fn rootless_runs_come_from_a_copy_of_the_program_and_the_log_says_so() {
    let logged = "exeseal: using /proc/self/exe clone";
    under_ours(Subids::None, |user| {
        let bundle = user.bundle("runtime", "b", &["report"]);
        let run = user.cmd("runtime").args(["--debug", "run", "--bundle"]).arg(&bundle).arg("c");
        let said = run.run().success().stderr;
        assert!(said.contains(logged), "{said}");
    });
}

#[test]
fn rootless_mapping_programs_that_are_missing_are_named() {
    under_ours(Subids::Granted, |user| {
        let bundle = user.bundle("runtime", "b", &["report"]);
        user.edit(&bundle, map_further_ids);
        let run =
            user.cmd("env").args(["PATH=/nowhere".as_ref(), user.binary("runtime").as_os_str()]);
        run.args(["run", "--bundle"]).arg(&bundle).arg("c").run().refused(&["newuidmap", "uidmap"]);
    });
}

#[test]
fn rootless_mounts_come_and_go() {
    for subids in [Subids::None, Subids::Granted] {
        under_ours(subids, |user| {
            let bundle = user.bundle("runtime", "b", &["pause"]);
            if subids == Subids::Granted {
                user.edit(&bundle, map_further_ids);
            }
            // Of another owner, the sticky /tmp could refuse the write before its mount does.
            fs::write(user.home("word"), "the user's").unwrap();
            user.own(&user.home("word"));
            let run = |words: &[&str]| user.cmd("runtime").args(words).run();
            let change = |verb: &str, list: &Value| {
                let mounts = user.cmd("runtime").args(["mounts", verb, "c", "-"]);
                mounts.stdin(list.to_string()).run()
            };
            user.cmd("runtime").args(["run", "-d", "-b"]).arg(&bundle).arg("c").run().success();
            let list = json!([
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
                { "destination": "/tmp/word", "source": user.home("word"),
                  "options": ["bind", "ro"] },
                { "destination": "/queues", "type": "mqueue", "source": "mqueue" },
            ]);
            change("add", &list).success();
            let cat = run(&["exec", "c", "/probe", "cat", "/tmp/word"]).success();
            assert_eq!(cat.stdout, "the user's");
            let write = run(&["exec", "c", "/probe", "try", "write", "/tmp/word", "x"]);
            write.success().stdout_has("EROFS");
            change("remove", &list).success();

            let one = |destination: &str, kind: &str| json!([{ "destination": destination, "type": kind, "source": kind }]);
            change("add", &one("/sysfs", "sysfs")).refused(&["bind /sys instead"]);
            let mapped = json!([{ "destination": "/mapped", "source": user.home("word"),
                "options": ["bind", "idmap"] }]);
            change("add", &mapped).refused(&["only root can map the owners of files"]);
            change("add", &one("/cgroups", "cgroup")).refused(&["cgroup"]);
            run(&["delete", "-f", "c"]).success();
        });
    }
}

#[test]
fn rootless_binds_keep_the_flags_that_are_locked() {
    under_ours(Subids::None, |user| {
        let bundle = user.bundle("runtime", "b", &["report"]);
        // /proc is mounted without any of them, /sys of this very namespace with all.
        user.edit(&bundle, |config| {
            let bind = |options: Value| {
                json!({ "destination": "/var", "type": "bind", "source": "/dev/shm",
                        "options": options })
            };
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(bind(json!(["rbind", "ro"])));
        });
        let inner = "mount -t tmpfs -o nosuid,nodev,noexec tmpfs /dev/shm && exec \"$@\"";
        let unshare = crate::harness::Cmd::line("unshare --mount --propagation private -- sh -c");
        let run = unshare.args([inner, "sh"]).args(user.cmd("runtime").into_words());
        let run = run.args(["run", "--bundle"]).arg(&bundle).arg("c").run().success();
        let options = run.json()["mounts"]["/var"]["options"].take();
        for flag in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(options.as_array().unwrap().contains(&json!(flag)), "{flag}: {options}");
        }
    });
}

#[test]
fn rootless_within_a_user_namespace_of_its_own() {
    under_both(Subids::None, |user, program| {
        let bundle = user.bundle(program, "b", &["pause"]);
        let inside = |words: &[&str]| {
            let unshare = ["--user", "--map-root-user", "--mount", "sh", "-ec"];
            let script = words.join(" ");
            user.cmd("unshare").args(unshare).arg(script).run()
        };
        user.edit(&bundle, |config| {
            let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        });
        let script = format!(
            "{program} run -d -b {} c; {program} exec c /probe report; {program} delete -f c",
            bundle.display()
        );
        let report = inside(&[&script]).success().json();
        assert_eq!(report["uid"], 0);
        // And without a further one.
        user.edit(&bundle, |config| {
            let list = config["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|namespace| namespace["type"] != "user");
            for key in ["uidMappings", "gidMappings"] {
                config["linux"].as_object_mut().unwrap().remove(key);
            }
        });
        let report = inside(&[&script]).success().json();
        assert_eq!(report["uid"], 0);
    });
}

#[test]
fn rootless_filters_listeners_reach_their_agent() {
    under_ours(Subids::None, |user| {
        let bundle = user.bundle("runtime", "b", &["try", "mkdir", "/tmp/new"]);
        let socket = user.home("agent");
        for privileges in [true, false] {
            user.edit(&bundle, |config| {
                config["process"]["noNewPrivileges"] = privileges.into();
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "listenerPath": socket,
                    "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
                });
            });
            let agent = Agent::listen(&socket, 1);
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
            let run = user.cmd("runtime").args(["run", "--bundle"]).arg(&bundle).arg("c").run();
            run.success().stdout_has("ENOMEDIUM");
            let sessions = agent.sessions();
            assert_eq!(sessions[0].told["state"]["status"], "creating");
            fs::remove_file(&socket).unwrap();
        }
    });
}

#[test]
fn rootless_containers_are_supervised_and_their_records_are_the_users() {
    under_ours(Subids::None, |user| {
        let bundle = user.bundle("runtime", "b", &["echo", "from", "within"]);
        let run = |words: &[&str]| user.cmd("runtime").args(words).run();
        let first = user.cmd("runtime").args(["run", "--supervise", "--bundle"]).arg(&bundle);
        assert_eq!(first.arg("c").run().success().stdout, "from within\n");
        run(&["list", "-f", "wide"]).success().stdout_has("Exited (0) ");
        assert!(user.home(".local/share/runtime/c/record.json").exists());
        run(&["start", "c"]).success();
        assert_eq!(run(&["wait", "c"]).success().stdout, "0\n");
        let logs = run(&["logs", "c"]).success().stdout;
        assert_eq!(logs, "from within\nfrom within\n");
        run(&["delete", "c"]).success();
        run(&["state", "c"]).refused(&["container does not exist"]);
    });
}
