//! Output that nobody reads any more or that can't be written: no panic, and the work is done.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::harness::command::binary;
use crate::harness::image::Image;
use crate::harness::{Cmd, Scene, scene};

const NAME: &str = "e2e.test/outputs:latest";
const COMMANDS: [&str; 32] = [
    "runtime --help",
    "runtime list",
    "runtime features",
    "runtime state e2e-none",
    "runtime no-such-verb",
    "imgtool --help",
    "imgtool images",
    "imgtool images --format json",
    "imgtool inspect e2e.test/outputs",
    "imgtool inspect e2e.test/none",
    "imgtool save e2e.test/outputs",
    "imgtool info",
    "imgtool bundles",
    "imgtool export e2e.test/outputs",
    "imgtool history e2e.test/outputs",
    "imgtool images --format {{.ID}}",
    "imgtool inspect --raw e2e.test/outputs",
    "imgtool prune --dry-run",
    "imgtool verify",
    "imgtool copy e2e.test/outputs oci-archive:-",
    "imgtool push e2e.test/none",
    "imgtool login --get-login e2e.test",
    "imgtool logout e2e.test",
    "imgtool no-such-verb",
    "netsetup --help",
    "netsetup status",
    "netsetup status --format json",
    "netsetup bridge list",
    "netsetup inspect",
    "netsetup inspect e2e-none",
    "netsetup forward",
    "netsetup no-such-verb",
];

/// A pipe whose reader is gone.
fn unread() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn command(scene: &Scene, line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(binary(words.next().unwrap()));
    command.args(words).env("IMGTOOL_ROOT", scene.store()).stdout(Stdio::null());
    command
}

#[test]
fn outputs_that_can_not_be_written_make_nobody_panic() {
    scene(|scene| {
        super::imgtool::load(scene, &Image::probe(&["report"]), NAME);
        for line in COMMANDS {
            for stream in [unread, full] {
                let ended = command(scene, line).stdout(stream()).output().unwrap();
                let told = String::from_utf8_lossy(&ended.stderr);
                let code = ended.status.code().unwrap_or_else(|| panic!("{line}: {told}"));
                assert!(code != 101 && !told.contains("panicked"), "{line}: {code}: {told}");
                let status = command(scene, line).stderr(stream()).status().unwrap();
                assert!(status.code().is_some_and(|code| code != 101), "{line}: {status}");
            }
        }
    });
}

#[test]
fn completions_are_scripts_that_the_shell_reads() {
    for name in ["runtime", "imgtool", "netsetup"] {
        let script = Cmd::new(binary(name)).args(["completion", "bash"]).run().success().stdout;
        let ask = format!(
            "{script}\nCOMP_WORDS=({name} co) COMP_CWORD=1; _{name} {name} co {name}; echo ${{COMPREPLY[@]}}"
        );
        let offered = Cmd::new("bash").args(["-c", &ask]).run().success().stdout;
        assert!(offered.split_whitespace().any(|word| word == "completion"), "{name}: {offered}");
        for shell in ["zsh", "fish"] {
            Cmd::new(binary(name)).args(["completion", shell]).run().success().stdout_has(name);
        }
    }
}

#[test]
fn imgtool_says_nothing_of_a_reader_that_went_away_and_all_of_a_full_disk() {
    scene(|scene| {
        super::imgtool::load(scene, &Image::probe(&["report"]), NAME);
        for line in ["imgtool inspect e2e.test/outputs", "imgtool images --format json"] {
            let ended = command(scene, line).stdout(unread()).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{line}");
            let ended = command(scene, line).stdout(full()).output().unwrap();
            let told = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(told.contains("standard output: No space left"), "{line}: {told}");
        }
        // What was asked for is done all the same.
        let removal = format!("imgtool rmi {NAME}");
        command(scene, &removal).stdout(full()).stderr(Stdio::null()).status().unwrap();
        let blobs = std::fs::read_dir(scene.store().join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, 0, "the image's blobs are left");
    });
}
