//! After a reboot and after somebody's flush: `check` says what is missing, `restore` brings it back.

use std::fs;

use super::{Cmd, Netns, netsetup, scene};

#[test]
fn a_flushed_ruleset_is_noticed_and_brought_back() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        netsetup(scene, ["attach", &path, "--network", "e2e0", "-p", "18080:80"]);
        netsetup(scene, ["check"]);
        let rules = || Cmd::line("nft list table inet netsetup").run();
        let before = rules().success().stdout;
        for (harm, told) in [
            ("nft delete table inet netsetup", "table netsetup is gone"),
            ("nft flush map inet netsetup ports", "set ports"),
            ("nft flush chain inet netsetup forward", "chain forward"),
            ("ip addr flush dev e2e0", "lacks its address 10.198.0.1"),
            ("ip link set e2e0 down", "switched off"),
        ] {
            Cmd::line(harm).run().success();
            let checked = scene.netsetup().arg("check").run();
            assert!(checked.stdout.contains(told), "{harm}: {}", checked.stdout);
            checked.refused(&["netsetup restore"]);
            netsetup(scene, ["restore"]);
            netsetup(scene, ["check"]);
            assert_eq!(rules().success().stdout, before, "after {harm}");
        }
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn a_table_that_lacks_a_set_is_in_nobodys_way() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let lose = || {
            for line in ["flush chain inet netsetup publish", "delete map inet netsetup ports"] {
                Cmd::line("nft").args(line.split(' ')).run().success();
            }
        };
        netsetup(scene, ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"]);
        netsetup(scene, ["attach", &path, "--network", "e2e0", "-p", "18080:80"]);
        let rules = || Cmd::line("nft list table inet netsetup").run().success().stdout;
        let before = rules();
        lose();
        netsetup(scene, ["unpublish", &path]);
        // The next change brings the whole table back.
        netsetup(scene, ["publish", &path, "18080:80"]);
        assert_eq!(rules(), before);
        netsetup(scene, ["check"]);
        lose();
        netsetup(scene, ["detach", &path]);
        assert!(!rules().contains("18080"));
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn defined_bridges_come_back_after_a_reboot() {
    scene(|scene| {
        let create =
            ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24", "--subnet", "fd98::/64"];
        netsetup(scene, create);
        // What a reboot leaves is the definitions.
        Cmd::line("ip link del e2e0").run().success();
        Cmd::line("nft delete table inet netsetup").run().success();
        let forwarding: Vec<(&str, bool)> = ["forwarding", "forwarding6"]
            .map(|name| (name, fs::remove_file(format!("/run/netsetup/{name}")).is_ok()))
            .into();
        fs::remove_dir_all("/run/netsetup/bridges").unwrap();
        scene.netsetup().arg("check").run().refused(&["problem"]);
        netsetup(scene, ["restore"]);
        netsetup(scene, ["check"]);
        Cmd::line("ip -o addr show dev e2e0").run().success().stdout_has("fd98::1/64");
        for (name, was_ours) in forwarding {
            if was_ours {
                fs::write(format!("/run/netsetup/{name}"), "was 0\n").unwrap();
            }
        }
        netsetup(scene, ["bridge", "prune"]).stdout_has("e2e0");
    });
}

/// Docker's and ufw's forward chain drops what it does not know.
#[test]
fn a_forward_policy_of_drop_does_not_break_us() {
    scene(|scene| {
        let _remote = Netns::remote_host();
        let container = Netns::new("container");
        let path = container.path();
        let foreign = |family: &str| {
            Cmd::line(&format!("nft add table {family} filter")).run().success();
            let chain = "{ type filter hook forward priority filter; policy drop; }";
            let add = Cmd::line(&format!("nft add chain {family} filter FORWARD")).arg(chain);
            add.run().success();
        };
        let there = Cmd::line("nft list table ip filter").run().code == 0
            || Cmd::line("nft list table ip6 filter").run().code == 0;
        if there {
            println!("SKIP: this host has a table named filter of its own");
            return;
        }
        foreign("ip");
        foreign("ip6");
        let words =
            ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24", "--subnet", "fd98::/64"];
        netsetup(scene, words);
        netsetup(scene, ["attach", &path, "--network", "e2e0"]);
        container.line("ping -c 1 -W 5 10.199.0.2");
        container.line("ping -c 1 -W 5 fd99::2");
        netsetup(scene, ["check"]);
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
        for family in ["ip", "ip6"] {
            let rules = Cmd::line(&format!("nft list chain {family} filter FORWARD")).run();
            assert!(!rules.stdout.contains("accept"), "{}", rules.stdout);
            Cmd::line(&format!("nft delete table {family} filter")).run().success();
        }
    });
}
