//! What can't be is refused in one line, and nothing is left of the attempt.

use super::{Cmd, Netns, address_of, netsetup, scene};

#[test]
fn a_port_that_is_taken_is_refused_by_the_name_of_its_owner() {
    scene(|scene| {
        let (one, two) = (Netns::new("one"), Netns::new("two"));
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        let words = ["--network", "e2e0", "--publish", "18080:80"];
        let attach = |netns: &Netns, id: &str| {
            scene.netsetup().args(["attach", &netns.path(), "--id", id]).args(words).run()
        };
        attach(&one, "the-first").success();
        attach(&two, "the-second").refused(&["18080", "the-first"]);
        netsetup(scene, ["attach", &two.path(), "--network", "e2e0"]);
        assert_eq!(address_of(scene, &two.path()), "10.198.0.3", "an address was lost");
        netsetup(scene, ["detach", &one.path()]);
        netsetup(scene, ["detach", &two.path()]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn a_subnet_that_overlaps_a_route_is_refused_by_its_name() {
    scene(|scene| {
        let _remote = Netns::remote_host();
        let create = ["bridge", "create", "e2e0", "--subnet", "10.199.0.128/25"];
        scene.netsetup().args(create).run().refused(&["10.199.0.0/24"]);
    });
}

#[test]
fn names_and_specs_that_make_no_sense_are_refused() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        for words in [
            &["bridge", "create", "a/b"][..],
            &["bridge", "create", "a-name-longer-than-a-link-has"],
            &["bridge", "create", "e2e0", "--subnet", "10.198.0.0/33"],
            &["bridge", "create", "e2e0", "--subnet", "127.0.0.0/8"],
            &["bridge", "delete", "never-made"],
            &["bridge", "inspect"],
            &["no-such-verb"],
            &["forward", "sideways"],
            &["attach", &path, "--network", "never-made"],
            &["attach", &path, "--publish", "99999:80"],
            &["attach", &path, "--publish", "80/icmp"],
            &["attach", "/run/netns/never-made"],
            &["publish", &path, "18080:80"],
        ] {
            scene.netsetup().args(words).run().refused(&["netsetup: "]);
        }
    });
}

#[test]
fn a_full_subnet_says_so() {
    scene(|scene| {
        let netns: Vec<Netns> = ["a", "b"].into_iter().map(Netns::new).collect();
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/30"]);
        netsetup(scene, ["attach", &netns[0].path(), "--network", "e2e0"]);
        let full = scene.netsetup().args(["attach", &netns[1].path(), "--network", "e2e0"]).run();
        full.refused(&["10.198.0.0/30"]);
        netsetup(scene, ["detach", &netns[0].path()]);
        netsetup(scene, ["attach", &netns[1].path(), "--network", "e2e0"]);
        netsetup(scene, ["detach", &netns[1].path()]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn a_full_bridge_says_so() {
    scene(|scene| {
        let (container, others) = (Netns::new("container"), Netns::new("others"));
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/16"]);
        let name = &others.name;
        let port = |number: u32| {
            format!(
                "link add e2e-{number} master e2e0 type veth peer name p{number} netns {name}\n"
            )
        };
        let lines: String = (0..1023).map(port).collect();
        Cmd::line("ip -batch -").stdin(lines).run().success();
        let attach = ["attach", &container.path(), "--network", "e2e0"];
        scene.netsetup().args(attach).run().refused(&["e2e0", "1023", "another bridge"]);
        Cmd::line("ip link del e2e-7").run().success();
        netsetup(scene, attach);
        netsetup(scene, ["detach", &container.path()]);
        let lines: String = (0..1023).map(|number| format!("link del e2e-{number}\n")).collect();
        Cmd::line("ip -force -batch -").stdin(lines).run();
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}
