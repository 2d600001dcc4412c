//! Ids that are left out, names for people, and the file that an id is written to.

use std::fs;

use serde_json::json;

use super::under_ours;
use crate::harness::Bundle;
use crate::harness::command::binary;

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
