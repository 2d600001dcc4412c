//! A disk that is full: one line, the host as it was, and once there is room the same succeeds.

use std::fs;

use super::{Netns, scene};
use crate::harness::Cmd;
use crate::harness::disk::Disk;

#[test]
fn without_room_for_what_is_to_be_remembered_nothing_is_made() {
    scene(|scene| {
        let container = Netns::new("container");
        let state = scene.path("state");
        let disk = Disk::at(&state, "size=256k");
        let definitions = scene.path("definitions");
        let netsetup = || {
            let ours = scene.netsetup().arg("--state-dir").arg(&state);
            ours.arg("--config-dir").arg(&definitions)
        };
        let listed = || {
            let mut lines = Cmd::line("ls /sys/class/net").run().success().stdout;
            lines += &Cmd::line("nft -s list ruleset").run().success().stdout;
            let find = Cmd::line("find")
                .arg(&state)
                .args(["-type", "f", "!", "-name", "lock", "!", "-name", "last-*"]);
            lines + &find.run().success().stdout
        };
        let create = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"];
        let attach = || {
            let words = ["--network", "e2e0", "--publish", "18080:80"];
            netsetup().args(["attach", &container.path()]).args(words)
        };
        let before = listed();
        let filler = disk.fill_but(0);
        netsetup().args(create).run().refused(&["No space left on device", "state"]);
        fs::remove_file(filler).unwrap();
        assert_eq!(listed(), before);
        netsetup().args(create).run().success();

        let before = listed();
        // Room for nothing, for one file, and for two.
        for free in [0, 4096, 8192] {
            let filler = disk.fill_but(free);
            let attached = attach().run();
            fs::remove_file(filler).unwrap();
            if attached.code == 0 {
                netsetup().args(["detach", &container.path()]).run().success();
                assert_ne!(free, 0);
            } else {
                attached.refused(&["No space left on device", "state"]);
            }
            assert_eq!(listed(), before, "with {free} bytes");
        }
        attach().run().success();
        // What is to go needs no room.
        let filler = disk.fill_but(0);
        netsetup().args(["detach", &container.path()]).run().success();
        netsetup().args(["bridge", "delete", "e2e0"]).run().success();
        fs::remove_file(filler).unwrap();
    });
}
