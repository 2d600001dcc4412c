//! The README's table, row by row: what it promises is what runs.

use std::fs;
use std::path::Path;

use crate::harness::command::binary;
use crate::harness::image::{Compression, Image};
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Cmd, Scene, scene};

/// The commands of the right-hand column, top to bottom.
fn commands() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(path).unwrap();
    let table = text.split("| docker | here |").nth(1).expect("the README has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// busybox with its web server, as the quickstart makes it.
fn hello() -> Image {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Tarball::of([
        Entry::dir("bin"),
        Entry::file("bin/busybox", busybox).mode(0o755),
        Entry::dir("etc"),
        Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        Entry::dir("www"),
        Entry::file("www/index.html", "Hello from a container.\n"),
    ]);
    for applet in ["echo", "httpd", "sh"] {
        layer.add(Entry::symlink(&format!("bin/{applet}"), "busybox"));
    }
    Image {
        layers: vec![layer.bytes()],
        config: serde_json::json!({
            "Env": ["PATH=/bin"], "Cmd": ["httpd", "-f", "-p", "80", "-h", "/www"],
        }),
    }
}

fn run(scene: &Scene, command: &str) {
    println!("$ {command}");
    let bin = binary("runtime").parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let cmd = Cmd::new("sh").args(["-c", command]).dir(&scene.path("here"));
    let cmd =
        cmd.env("PATH", path).env("IMGTOOL_ROOT", scene.store()).env("HOME", scene.path("here"));
    let interactive = command.contains(" -t ");
    let outcome = if interactive { cmd.stdin("exit\n").on_terminal().run() } else { cmd.run() };
    outcome.success();
}

#[test]
fn every_row_of_the_readme_runs() {
    scene(|scene| {
        let here = scene.path("here");
        fs::create_dir(&here).unwrap();
        let forward = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        hello().docker_archive(&here.join("hello.tar"), "hello:latest");
        fs::write(here.join("secret"), "any\n").unwrap();
        fs::write(here.join("app.conf"), "any\n").unwrap();
        fs::write(here.join("Dockerfile"), "FROM hello\nARG MODE\nRUN echo $MODE > /mode\n")
            .unwrap();
        let registry = Registry::start_at(scene, 5000);
        let layout = hello().layout(&scene.path("layout"), "latest", Compression::Gzip);
        registry.push(&layout, "latest", "hello:latest");

        let commands = commands();
        assert!(commands.len() > 30, "the table has {} commands", commands.len());
        for command in &commands {
            run(scene, command);
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", forward).unwrap();
    });
}

/// The script of the README, as a program of this name.
fn script(scene: &Scene) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(path).unwrap();
    let script = text.split("```sh\n").nth(1).expect("the README has the script");
    let script = script.split("```").next().unwrap();
    fs::write(scene.path("here/d"), script).unwrap();
    Cmd::new("chmod").arg("+x").arg(scene.path("here/d")).run().success();
}

#[test]
fn a_docker_of_ten_lines_runs_lists_reads_and_removes() {
    scene(|scene| {
        let here = scene.path("here");
        fs::create_dir(&here).unwrap();
        script(scene);
        hello().docker_archive(&here.join("hello.tar"), "hello:latest");
        for command in [
            "./d load -i hello.tar",
            "./d run hello -- echo hi | grep hi",
            "./d run -d --name web hello -- sh -c 'echo up; exec httpd -f -h /www'",
            "./d ps | grep 'Exited (0)'",
            "./d ps | grep web | grep Up",
            "./d exec web echo in",
            "./d stop --time 0 web",
            "./d wait web | grep 137",
            "./d logs web | grep up",
            "./d no-such-verb 2>&1 | grep imgtool",
            "./d rm $(runtime list -q --filter image=hello)",
            "imgtool rm $(imgtool bundles -q)",
            "./d rmi hello",
        ] {
            run(scene, command);
        }
    });
}

/// The table of docker's flags names no flag that is not there, and none is there twice.
#[test]
fn every_flag_of_the_readme_is_one() {
    scene(|scene| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let text = fs::read_to_string(path).unwrap();
        let table = text.split("### The flags of `docker run`").nth(1).unwrap();
        let table = table.split("###").next().unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
        let flags: Vec<&str> = rows
            .flat_map(|row| row.split('`').skip(1).step_by(2))
            .filter(|word| word.starts_with('-'))
            .collect();
        assert!(flags.len() > 80, "{}", flags.len());
        let help = scene.imgtool().args(["bundle", "--help"]).run().success().stdout;
        let known = |flag: &&str| {
            help.lines().any(|line| {
                let words = line.trim_start().split([' ', ',']);
                words
                    .take_while(|word| word.is_empty() || word.starts_with('-'))
                    .any(|word| word == *flag)
            })
        };
        let unknown: Vec<_> = flags.iter().filter(|flag| !known(flag)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let twice: Vec<_> =
            flags.iter().filter(|flag| flags.iter().filter(|it| it == flag).count() > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
    });
}
