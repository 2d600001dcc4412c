//! Wishes of the command line that are not the usual ones, and what would come of them.

use serde_json::json;

use super::{Cmd, Netns, address_of, netsetup, scene};

const CREATE: [&str; 5] = ["bridge", "create", "e2e0", "--subnet", "10.198.0.0/24"];

#[test]
fn what_would_be_made_is_told_and_not_made() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let create = scene.netsetup().args(CREATE).args(["--mtu", "1400", "--dry-run"]);
        let told = create.run().success().stdout;
        for step in [
            "define bridge e2e0",
            "make bridge e2e0 with MTU 1400",
            "give e2e0 the address 10.198.0.1/24",
            "make the nf_tables table netsetup",
        ] {
            assert!(told.lines().any(|line| line == step), "{step} in {told}");
        }
        let is_off = Cmd::line("sysctl -n net.ipv4.ip_forward").run().stdout == "0\n";
        assert_eq!(told.contains("switch forwarding of IPv4 on"), is_off, "{told}");
        assert_eq!(netsetup(scene, ["bridge", "list", "-q"]).stdout, "");
        assert_ne!(Cmd::line("ip link show dev e2e0").run().code, 0);

        netsetup(scene, CREATE);
        let attach = ["attach", &path, "--network", "e2e0", "-p", "18080:80", "--dry-run"];
        let told = netsetup(scene, attach).stdout;
        for step in [
            "give eth0 the address 10.198.0.2/24",
            "route everything else by 10.198.0.1",
            "publish 0.0.0.0:18080->80/tcp",
        ] {
            assert!(told.lines().any(|line| line == step), "{step} in {told}");
        }
        assert_ne!(Cmd::line("ip link show dev eth0").in_netns(&container.name).run().code, 0);
        assert_eq!(netsetup(scene, ["inspect"]).json(), json!([]));

        netsetup(scene, ["attach", &path, "--network", "e2e0"]);
        assert_eq!(address_of(scene, &path), "10.198.0.2");
        let publish = ["publish", &path, "18080:80", "--dry-run"];
        assert_eq!(netsetup(scene, publish).stdout, "publish 0.0.0.0:18080->80/tcp\n");
        assert_eq!(netsetup(scene, ["ports", &path]).stdout, "");
        // What would be refused is refused.
        let outside = ["attach", &path, "--network", "e2e1", "--dry-run"];
        scene.netsetup().args(outside).run().refused(&["e2e1"]);
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn reserved_addresses_are_given_to_nobody() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        let reserve = ["--reserve", "10.198.0.2", "--aux-address", "10.198.0.3"];
        scene.netsetup().args(CREATE).args(reserve).run().success();
        let wish = ["attach", &path, "--network", "e2e0", "--ip", "10.198.0.3"];
        scene.netsetup().args(wish).run().refused(&["10.198.0.3", "reserved"]);
        netsetup(scene, ["attach", &path, "--network", "e2e0"]);
        assert_eq!(address_of(scene, &path), "10.198.0.4");
        netsetup(scene, ["detach", &path]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
        let outside = scene.netsetup().args(CREATE).args(["--reserve", "10.9.0.1"]).run();
        outside.refused(&["10.9.0.1", "subnets"]);
    });
}

#[test]
fn routes_have_metrics_and_may_lead_nowhere() {
    scene(|scene| {
        let container = Netns::new("container");
        let path = container.path();
        netsetup(scene, CREATE);
        let attach = ["attach", &path, "--network", "e2e0", "--metric", "70"];
        let routes =
            ["10.9.0.0/16=10.198.0.9@5", "10.8.0.0/16=blackhole", "10.7.0.0/16=prohibit@9"];
        let attach = scene.netsetup().args(attach);
        routes.iter().fold(attach, |attach, route| attach.args(["--route", route])).run().success();
        let shown = container.line("ip route");
        let shown = shown.stdout_has("default via 10.198.0.1 dev eth0 proto static metric 70");
        let shown = shown.stdout_has("10.9.0.0/16 via 10.198.0.9 dev eth0 proto static metric 5");
        let shown = shown.stdout_has("blackhole 10.8.0.0/16");
        shown.stdout_has("prohibit 10.7.0.0/16 proto static metric 9");
        netsetup(scene, ["detach", &path]);
        assert_eq!(container.line("ip route").stdout, "");
        let bad = ["attach", &path, "--network", "e2e0", "--route", "10.9.0.0/16=nowhere"];
        scene.netsetup().args(bad).run().refused(&["nowhere"]);
        netsetup(scene, ["bridge", "delete", "e2e0"]);
    });
}

#[test]
fn bridges_are_found_by_their_labels() {
    scene(|scene| {
        scene.netsetup().args(CREATE).args(["--label", "tier=web", "--label", "kept"]).run();
        netsetup(scene, ["bridge", "create", "e2e1", "--subnet", "10.197.0.0/24"]);
        for (filters, names) in [
            (vec![], "e2e0\ne2e1\n"),
            (vec!["label=tier"], "e2e0\n"),
            (vec!["label=tier=db"], ""),
            (vec!["label=tier=web", "label=kept"], "e2e0\n"),
            (vec!["name=2e1"], "e2e1\n"),
            (vec!["name=e0", "name=e1"], "e2e0\ne2e1\n"),
        ] {
            let list = scene.netsetup().args(["bridge", "list", "-q"]);
            let list = filters.iter().fold(list, |list, filter| list.args(["--filter", filter]));
            assert_eq!(list.run().success().stdout, names, "{filters:?}");
        }
        let seen = netsetup(scene, ["bridge", "inspect", "e2e0"]).json();
        assert_eq!(seen[0]["labels"], json!({"tier": "web", "kept": ""}));
        let bad = ["bridge", "list", "--filter", "color=red"];
        scene.netsetup().args(bad).run().refused(&["color=red", "label=KEY"]);
        let prune = ["bridge", "prune", "--filter", "label=kept"];
        assert_eq!(netsetup(scene, prune).stdout, "e2e0\n");
        assert_eq!(netsetup(scene, ["bridge", "prune"]).stdout, "e2e1\n");
    });
}
