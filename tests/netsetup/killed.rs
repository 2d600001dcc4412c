//! `kill -9` at any moment: the next command finishes what was begun, and nothing stays.

use std::time::Duration;

use super::{Cmd, Netns, netsetup, scene};

/// Where the kills are spread over; the longest command takes less.
const STEPS: u64 = 16;

#[test]
fn whatever_a_kill_leaves_the_next_command_finishes() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let bridge = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"];
        let attach = ["attach", &path, "--network", "e2e0", "--publish", "18080:80"];
        let publish = ["publish", &path, "18081:81", "18082:82/udp"];
        for step in 0..STEPS {
            let time = Duration::from_millis(2 * step);
            let killed = |words: &[&str]| scene.netsetup().args(words).kill_after(time).run();
            killed(&bridge);
            netsetup(scene, bridge);
            killed(&attach);
            netsetup(scene, attach);
            container.line("ip route").stdout_has("default via 10.198.0.1");
            Cmd::line("nft list map inet netsetup ports").run().success().stdout_has("18080");
            killed(&publish);
            netsetup(scene, publish);
            killed(&["unpublish", &path, "18081"]);
            killed(&["detach", &path]);
            netsetup(scene, ["detach", &path]);
            killed(&["bridge", "delete", "e2e0"]);
            let deleted = scene.netsetup().args(["bridge", "delete", "e2e0"]).run();
            assert!(deleted.code == 0 || deleted.stderr.contains("no bridge"), "{deleted:?}");
        }
    });
}

#[test]
fn an_automatic_bridge_goes_although_its_last_detach_was_killed() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        for step in 0..STEPS {
            let time = Duration::from_millis(2 * step);
            netsetup(scene, ["attach", &path]);
            scene.netsetup().args(["detach", &path]).kill_after(time).run();
            netsetup(scene, ["detach", &path]);
            let left = Cmd::line("ip link show dev netsetup0").run();
            assert_ne!(left.code, 0, "killed after {time:?}: {}", left.stdout);
        }
    });
}
