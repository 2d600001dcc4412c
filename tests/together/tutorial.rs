//! A tutorial of docker's, line by line with the three binaries, and what a person sees of it.

use std::fs;

use crate::harness::command::binary;
use crate::harness::image::{Compression, Image};
use crate::harness::pty::Pty;
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, Outcome, Scene, eventually, scene, web};

/// An image that stands for another distribution, by the file that tells them apart.
pub(super) fn as_centos(image: Image) -> Image {
    let release = Entry::file("etc/centos-release", "CentOS Linux release 7.9 (Core)\n");
    image.layer(Tarball::of([release]))
}

fn centos() -> Image {
    as_centos(Image::busybox())
}

/// A line typed into a shell, where our binaries are found.
pub(super) fn line(scene: &Scene, text: &str) -> Cmd {
    let bin = binary("runtime").parent().unwrap().display().to_string();
    let path = format!("PATH={bin}:{}", std::env::var("PATH").unwrap());
    let store = format!("IMGTOOL_ROOT={}", scene.store().display());
    let home = format!("HOME={}", scene.path("home").display());
    Cmd::new("env").args([path, store, home]).args(["sh", "-c", text])
}

/// The same, run to its end.
fn sh(scene: &Scene, text: &str) -> Outcome {
    println!("$ {text}");
    line(scene, text).run()
}

/// The line of `list -f wide` about the container of this name or id.
fn listed(scene: &Scene, word: &str) -> String {
    let list = sh(scene, "runtime list -f wide").success().stdout;
    list.lines().find(|line| line.contains(word)).unwrap_or_default().to_owned()
}

#[test]
fn one_container_lives_under_one_id_through_exit_reboot_and_commit() {
    scene(|scene| {
        fs::create_dir(scene.path("home")).unwrap();
        let archive = centos().docker_archive(&scene.path("centos.tar"), "centos:latest");
        sh(scene, &format!("imgtool load -i {}", archive.display())).success();
        let bundle =
            sh(scene, "imgtool bundle -t -i centos -- /bin/sh").success().word().to_owned();
        let mut terminal =
            Pty::start(line(scene, &format!("runtime run --supervise -b {bundle}")), 24, 80);
        terminal.type_in("echo more > /software\n");
        terminal.type_in("exit\n");
        let (code, seen) = terminal.end();
        assert_eq!(code, 0, "{seen}");
        let image = "docker.io/library/centos:latest";
        let list = format!("runtime list -q --filter image={image}");
        let id = sh(scene, &list).success().word().to_owned();
        let short = &id[..12];
        assert_eq!(id.len(), 64);
        assert!(listed(scene, short).contains("Exited (0) "), "{}", listed(scene, short));

        // A reboot: nothing is mounted any more, and no live state is there.
        sh(scene, &format!("imgtool umount {bundle}")).success();
        assert!(!fs::exists(format!("/run/runtime/{id}")).unwrap());
        assert!(listed(scene, short).contains("Exited (0) "), "{}", listed(scene, short));
        sh(scene, "imgtool bundles").success().stdout_has(&id[..12]);
        let start = sh(scene, &format!("runtime start {short}"));
        start.refused(&["not mounted", "imgtool mount"]);
        let rm = sh(scene, &format!("imgtool rm {bundle}"));
        rm.refused(&["stopped container", &id]);

        sh(scene, &format!("imgtool commit {short} centos:more")).success();
        let run = "runtime run -b \"$(imgtool bundle --rm centos:more -- cat /software)\"";
        assert_eq!(sh(scene, run).success().stdout, "more\n");
        sh(scene, &format!("runtime delete {short} && imgtool rm {bundle}")).success();
        sh(scene, "imgtool rmi centos:more centos").success();
    });
}

#[test]
fn the_tutorial_is_followed_and_its_outputs_are_seen() {
    scene(|scene| {
        fs::create_dir(scene.path("home")).unwrap();
        let hub = web::serve(|_| {
            r#"{"num_results":1,"results":[{"name":"centos","description":"DEPRECATED; The official build of CentOS.","star_count":7762,"is_official":true}]}"#.to_owned()
        });
        let found = sh(scene, &format!("imgtool search --hub-url {hub} centos")).success();
        found.stdout_has("centos").stdout_has("The official build").stdout_has("7762");
        let registry = Registry::start(scene);
        let host = &registry.host;
        let layout = centos().layout(&scene.path("layout"), "latest", Compression::Gzip);
        registry.push(&layout, "latest", "lib/centos:latest");
        let pull = format!("imgtool pull {host}/lib/centos:latest");
        sh(scene, &pull).success();
        sh(scene, &format!("imgtool tag {host}/lib/centos centos")).success();
        sh(scene, "imgtool images").success().stdout_has("centos").stdout_has("latest");

        // run -it, a look around, exit: it stays listed with its code.
        let run = "runtime run --supervise -b \"$(imgtool bundle -t -i centos -- /bin/sh)\" tut1";
        let mut terminal = Pty::start(line(scene, run), 24, 80);
        terminal.type_in("cat /etc/centos-release\n");
        terminal.expect("CentOS Linux release 7.9 (Core)");
        terminal.type_in("echo installed > /software; exit\n");
        assert_eq!(terminal.end().0, 0);
        let row = listed(scene, "tut1");
        assert!(row.contains("Exited (0) ") && row.contains("\"/bin/sh\""), "{row}");

        // run -d, its log, kill; rm refuses what runs.
        let hello = "while true; do echo hello world; sleep 1; done";
        let run = format!(
            "runtime run --supervise --detach -b \"$(imgtool bundle centos -- sh -c '{hello}')\""
        );
        let id = sh(scene, &run).success().word().to_owned();
        assert_eq!(id.len(), 64, "{id}");
        let logged = || sh(scene, &format!("runtime logs {}", &id[..12])).success().stdout;
        assert!(eventually(|| logged().starts_with("hello world\n")));
        assert!(listed(scene, &id[..12]).contains(" Up "), "{}", listed(scene, &id[..12]));
        let refused = sh(scene, &format!("runtime delete {id}"));
        refused.refused(&["cannot delete", "not stopped", "runtime stop"]);
        sh(scene, &format!("runtime kill {id} KILL && runtime wait {id}"))
            .success()
            .stdout_has("137");
        sh(scene, &format!("runtime start {id} && runtime delete -f {id}")).success();

        // commit what was installed, and run the result.
        sh(scene, "imgtool commit tut1 centos:software").success();
        let run = "runtime run -b \"$(imgtool bundle --rm centos:software -- cat /software)\" tut2";
        assert_eq!(sh(scene, run).success().stdout, "installed\n");
        sh(scene, "runtime delete $(runtime list -q --filter name=tut)").success();
        sh(scene, "imgtool rm $(imgtool bundles -q)").success();

        // save, rmi, load.
        let tar = scene.path("saved.tar").display().to_string();
        sh(scene, &format!("imgtool save -o {tar} centos:software")).success();
        let gone = sh(scene, "imgtool rmi centos:software").success();
        gone.stdout_has("Untagged: ").stdout_has("Deleted: sha256:");
        sh(scene, &format!("imgtool load -i {tar}")).success().stdout_has("centos:software");

        // push: a bare name is refused, one with a user and a registry goes.
        let push = sh(scene, "imgtool push centos:software");
        push.refused(&["requested access to the resource is denied", "imgtool tag"]);
        let name = format!("{host}/me/centos:software");
        sh(scene, &format!("imgtool tag centos:software {name}")).success();
        let pushed = sh(scene, &format!("imgtool push {name}")).success();
        pushed.stdout_has("digest: sha256:");
        sh(scene, &format!("imgtool rmi {name} centos:software centos {host}/lib/centos"))
            .success();
    });
}
