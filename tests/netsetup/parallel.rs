//! Many commands at the same time: nobody gets what somebody else has, and nothing is lost.

use std::collections::BTreeSet;
use std::thread;

use super::{Netns, Outcome, Scene, netsetup, scene};

/// How many containers come at once.
const MANY: usize = 64;

/// The same command for every container, all at once.
fn at_once(scene: &Scene, containers: &[Netns], words: &[&str]) -> Vec<Outcome> {
    thread::scope(|threads| {
        let start = |container: &Netns| {
            let (verb, rest) = words.split_first().expect("a command has a verb");
            let command = scene.netsetup().args([verb, container.path().as_str()]).args(rest);
            threads.spawn(|| command.run())
        };
        let running: Vec<_> = containers.iter().map(start).collect();
        running.into_iter().map(|thread| thread.join().expect("the command is run")).collect()
    })
}

#[test]
fn attachments_at_the_same_time_get_addresses_of_their_own_and_one_gets_the_port() {
    scene(|scene| {
        let names: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
        let containers: Vec<Netns> = names.iter().map(|name| Netns::new(name)).collect();
        // The bridge is made by whoever comes first, and goes with the last.
        let attached = at_once(scene, &containers, &["attach"]);
        let addresses: BTreeSet<String> =
            attached.into_iter().map(|it| it.success().word().to_owned()).collect();
        assert_eq!(addresses.len(), MANY, "{addresses:?}");
        let published = at_once(scene, &containers, &["publish", "18080:80"]);
        let (won, lost): (Vec<_>, Vec<_>) = published.into_iter().partition(|it| it.code == 0);
        assert_eq!(won.len(), 1);
        for loser in lost {
            loser.refused(&["18080", "already published by container"]);
        }
        netsetup(scene, ["check"]);
        for detached in at_once(scene, &containers, &["detach"]) {
            detached.success();
        }
    });
}
