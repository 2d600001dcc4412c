//! Ids that are left out, names for people, and the file that an id is written to.

use std::fs;

use serde_json::json;

use super::under_ours;
use crate::harness::Bundle;
use crate::harness::command::binary;
use crate::harness::pty::Pty;

#[test]
fn an_id_left_out_begins_with_the_host_name_that_was_made_for_it() {
    under_ours(|it| {
        // So nobody else has it.
        let short = format!("{:012x}", std::process::id());
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/hostname", short.as_str())
            .edit("/annotations", json!({ "org.imgtool.hostname": "id" }));
        let create = || it.cmd(["create", "--bundle"]).arg(bundle.write()).run().success();
        let first = create().word().to_owned();
        assert!(first.len() == 64 && first.starts_with(&short), "{first}");
        // Two that look the same to people would be no help.
        let second = create().word().to_owned();
        assert!(second.len() == 64 && !second.starts_with(&short), "{second}");
        it.run(["list", "-f", "wide"]).success().stdout_has(&format!("\n{short} "));
        it.run(["delete", "--force", &short]).success();
        it.run(["delete", "--force", &second]).success();

        let other = bundle.edit("/annotations", json!({}));
        let id = it.cmd(["create", "--bundle"]).arg(other.write()).run().success();
        assert!(!id.word().starts_with(&short));
        it.run(["delete", "--force", id.word()]).success();
    });
}

#[test]
fn one_that_nobody_supervises_has_a_name_too() {
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let name = it.scene.id("name");
        let create =
            |flags: &[&str]| it.cmd(["create", "--bundle"]).arg(bundle.write()).args(flags).run();
        let id = create(&["--name", &name]).success().word().to_owned();
        assert_eq!(it.run(["state", &name]).success().json()["id"], id.as_str());
        create(&["--name", &name]).refused(&[&name, "--name", &id[..12]]);
        create(&["--name", &id]).refused(&[&id[..12]]);
        create(&["--name", "a/b"]).code(1);
        it.run(["start", &name]).success();
        let list = it.run(["list", "-f", "wide", "--filter", &format!("name={name}")]).success();
        assert!(list.stdout.trim_end().ends_with(&name), "{}", list.stdout);
        it.run(["delete", "--force", &name]).success();
        // Of `run` as well, which takes it away at its end.
        let run = Bundle::new(it.scene, &["echo", "ran"]);
        let outcome = it.cmd(["run", "--name", &name, "--bundle"]).arg(run.write()).run();
        assert_eq!(outcome.success().stdout, "ran\n");
        it.run(["state", &name]).code(1);
    });
}

#[test]
fn an_id_is_written_to_a_file_if_the_container_comes_about() {
    under_ours(|it| {
        let bundle = Bundle::new(it.scene, &["echo"]);
        let file = it.scene.path("cid");
        let run = |flags: &[&str]| {
            let run = it.cmd(["run", "--cidfile"]).arg(&file).args(flags);
            run.arg("--bundle").arg(bundle.write()).run()
        };
        for flags in [&[][..], &["--supervise", "--detach"]] {
            run(flags).success();
            let id = fs::read_to_string(&file).unwrap();
            assert_eq!(id.len(), 64, "{id}");
            if !flags.is_empty() {
                run(flags).refused(&["--cidfile", "there already"]);
                it.run(["wait", &id]).success();
                it.run(["delete", &id]).success();
            }
            fs::remove_file(&file).unwrap();
        }
        let lost = Bundle::new(it.scene, &["echo"]).edit("/process/args", json!(["/none"]));
        let outcome = it.cmd(["run", "--cidfile"]).arg(&file).arg("--bundle").arg(lost.write());
        assert_ne!(outcome.run().code, 0);
        assert!(!file.exists(), "the file of none");
        let hooks = json!({ "poststart": [{ "path": "/bin/false" }] });
        let ended = Bundle::new(it.scene, &["pause"]).edit("/hooks", hooks);
        let outcome = it.cmd(["run", "--detach", "--cidfile"]).arg(&file).arg("--bundle");
        assert_ne!(outcome.arg(ended.write()).run().code, 0);
        assert!(!file.exists(), "the file of one that was ended at once");
        // runc has neither, and who is called so has them neither.
        let runc = it.scene.path("runc");
        std::os::unix::fs::symlink(binary("runtime"), &runc).unwrap();
        for flag in ["--cidfile", "--name"] {
            let words = ["create", flag, "x", "c1"];
            let outcome = crate::harness::Cmd::new(&runc).args(words).run();
            assert_ne!(outcome.code, 0);
            assert!(outcome.stderr.contains("flag provided but not defined"), "{}", outcome.stderr);
        }
    });
}

#[test]
fn a_list_for_people_fits_their_terminal() {
    under_ours(|it| {
        let image = format!("registry.example/{}:latest", "long/".repeat(6));
        let args = json!(["/probe", "pause", "with", "a", "long", "line", "of", "words"]);
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/process/args", args)
            .edit("/annotations", json!({ "org.imgtool.image": image }));
        let name = it.scene.id("wide");
        let create = it.cmd(["create", "--name", &name, "--bundle"]).arg(bundle.write());
        let id = create.run().success().word().to_owned();
        let filter = format!("id={id}");
        let words = ["list", "-f", "wide", "--filter", &filter];
        let seen = |columns: u16| {
            let (code, text) = Pty::start(it.cmd(words), 24, columns).end();
            assert_eq!(code, 0, "{text}");
            text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        for columns in [80, 90, 100, 120] {
            let lines = seen(columns);
            assert_eq!(lines.len(), 2, "{lines:?}");
            for line in &lines {
                assert!(line.chars().count() <= usize::from(columns), "{columns}: {line}");
                assert!(!line.contains(&image));
            }
            assert!(lines[1].starts_with(&id[..12]), "{lines:?}");
        }
        let whole = seen(200);
        assert!(whole[1].contains(&image) && whole[1].ends_with(&name), "{whole:?}");
        // What is read by a program is whole.
        it.run(words).success().stdout_has(&image);
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn words_of_docker_s_are_taken_or_told_what_is_here() {
    under_ours(|it| {
        let id = it.scene.id("words");
        let bundle = Bundle::new(it.scene, &["pause"]);
        it.cmd(["run", "--detach", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        it.cmd(["exec", "-i", &id, "/probe", "echo", "in"]).run().success().stdout_has("in\n");
        let exec = it.cmd(["exec", "-it", &id, "/probe", "echo", "in"]).on_terminal().run();
        exec.success().stdout_has("in");
        it.run(["list", "-aq"]).success().stdout_has(&id);
        it.run(["delete", "--force", &id]).success();
        for (verb, here) in [("rm", "runtime delete"), ("images", "imgtool images")] {
            it.run([verb, "x"]).code(3).stderr_has(here);
        }
        let imgtool = |verb: &str| it.scene.imgtool().args([verb, "x"]).run();
        for (verb, here) in [("run", "imgtool bundle IMAGE"), ("ps", "runtime list -f wide")] {
            imgtool(verb).code(125).stderr_has(here);
        }
        // Who is called runc has none of it.
        let runc = it.scene.path("runc");
        std::os::unix::fs::symlink(binary("runtime"), &runc).unwrap();
        for words in [["list", "-a"], ["list", "-aq"], ["exec", "-it"]] {
            let outcome = crate::harness::Cmd::new(&runc).args(words).arg("x").arg("y").run();
            outcome.code(1).stderr_has("flag provided but not defined");
        }
    });
}
