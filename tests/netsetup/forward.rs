//! Forwarding of the host: shown, switched, kept over a reboot.

use std::fs;

use super::{Netns, netsetup, scene};

const KEPT: &str = "/etc/sysctl.d/99-netsetup.conf";

fn value(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned()
}

#[test]
fn forwarding_is_shown_and_switched() {
    scene(|scene| {
        for (flags, file, name) in [
            (&["-4"][..], "ipv4/ip_forward", "net.ipv4.ip_forward"),
            (&["-6"], "ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
        ] {
            let before = value(file);
            let forward = |words: &[&str]| {
                scene.netsetup().arg("forward").args(words).args(flags).run().success()
            };
            forward(&["on"]);
            assert_eq!(value(file), "1");
            forward(&[]).stdout_has(&format!("{name} = 1"));
            netsetup(scene, ["forward"]).stdout_has(&format!("{name} = 1"));
            forward(&["off"]).stdout_has(&format!("{name} = 0"));
            assert_eq!(value(file), "0");
            forward(&["on", "--persist"]);
            assert!(fs::read_to_string(KEPT).unwrap().contains(&format!("{name} = 1")));
            forward(&["off", "--persist"]);
            assert!(fs::read_to_string(KEPT).unwrap().contains(&format!("{name} = 0")));
            fs::write(format!("/proc/sys/net/{file}"), before).unwrap();
        }
        let kept = fs::read_to_string(KEPT).unwrap();
        assert_eq!(kept.lines().count(), 2, "one line for each setting: {kept}");
        fs::remove_file(KEPT).unwrap();
    });
}

#[test]
fn forwarding_of_one_interface_is_its_own() {
    scene(|scene| {
        let _remote = Netns::remote_host();
        let all = value("ipv4/ip_forward");
        for (flag, family) in [("-4", "ipv4"), ("-6", "ipv6")] {
            let words = ["forward", "on", flag, "--interface", "e2e-here"];
            let setting = format!("net.{family}.conf.e2e-here.forwarding = 1");
            netsetup(scene, words).stdout_has(&setting);
            assert_eq!(value(&format!("{family}/conf/e2e-here/forwarding")), "1");
        }
        assert_eq!(value("ipv4/ip_forward"), all);
        let missing = ["forward", "--interface", "e2e-never"];
        scene.netsetup().args(missing).run().refused(&["e2e-never"]);
    });
}

#[test]
fn a_file_that_is_read_later_and_decides_otherwise_is_named() {
    scene(|scene| {
        let before = value("ipv4/ip_forward");
        let later = "/etc/sysctl.d/99-z-e2e.conf";
        fs::write(later, "net/ipv4/ip_forward = 1\nnet.ipv4.ip_forward=0\n").unwrap();
        let persisted = scene.netsetup().args(["forward", "on", "--persist"]).run();
        persisted.refused(&[later, KEPT]);
        // Of two lines the last one counts.
        fs::write(later, "net.ipv4.ip_forward=0\nnet.ipv4.ip_forward = 1\n").unwrap();
        netsetup(scene, ["forward", "on", "--persist"]);
        fs::remove_file(later).unwrap();
        fs::remove_file(KEPT).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_forward", before).unwrap();
    });
}
