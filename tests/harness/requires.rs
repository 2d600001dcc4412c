//! What a test needs of the machine. A missing program means failed: `tests/run` installs it all. What
//! no installation mends is told, and the test is one for another machine.

use std::path::Path;
use std::sync::OnceLock;

use super::command::Cmd;

/// Fails, naming the Debian package, unless `program` is installed.
#[track_caller]
pub(crate) fn program(program: &str, package: &str) {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').any(|dir| Path::new(dir).join(program).exists());
    assert!(found, "{program} is missing: apt-get install {package}, or use tests/run");
}

/// Tells why and returns false unless systemd runs this host.
pub(crate) fn systemd() -> bool {
    let there = Path::new("/run/systemd/system").exists();
    if !there {
        println!("SKIP: this host is not run by systemd");
    }
    there
}

/// Tells why and returns false unless this is the machine of `tests/vm`, with ordinary users who have
/// a systemd of their own; waits until that has started, with what stays once something asked for it.
pub(crate) fn users_systemd() -> bool {
    if !(systemd() && optional("as-user")) {
        return false;
    }
    Cmd::line("systemctl start user@1000.service").run().success();
    Cmd::line("as-user rootless systemctl --user start dbus.service user.slice").run().success();
    true
}

/// Tells why and returns false unless a program that not every host has is installed.
pub(crate) fn optional(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').any(|dir| Path::new(dir).join(program).exists());
    if !found {
        println!("SKIP: {program} is not installed");
    }
    found
}

/// Tells why and returns false where AppArmor confines pasta: the profile of Debian 12 lets it open no
/// namespace of another process.
pub(crate) fn pasta_unconfined() -> bool {
    let profiles = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles");
    let confined = profiles.is_ok_and(|text| text.lines().any(|line| line.starts_with("passt ")));
    if confined {
        println!("SKIP: AppArmor lets pasta open no namespace of another process");
    }
    !confined
}

/// Tells why and returns false unless the kernel makes links of a kind, on a link of the host or by
/// itself (`"ipvlan"`, `"vrf table 77"`).
pub(crate) fn link_kind(kind: &str, parent: Option<&str>) -> bool {
    let on = parent.map(|parent| format!("link {parent}")).unwrap_or_default();
    let line = format!("ip link add {on} name e2e-probe type {kind}");
    let made = Cmd::line(&line).run();
    if made.code != 0 {
        println!("SKIP: this kernel makes no link of type {kind}: {}", made.stderr.trim());
        return false;
    }
    Cmd::line("ip link del e2e-probe").run().success();
    true
}

/// Tells why and returns false unless the kernel knows VLANs on bridges; one that does not may make
/// a bridge without them.
#[must_use]
pub(crate) fn vlans_on_bridges() -> bool {
    let made = Cmd::line("ip link add e2e-probe type bridge vlan_filtering 1").run().code == 0;
    let there = Path::new("/sys/class/net/e2e-probe/bridge/vlan_filtering").exists();
    if made {
        Cmd::line("ip link del e2e-probe").run().success();
    }
    if !there {
        println!("SKIP: this kernel has no VLANs on bridges (CONFIG_BRIDGE_VLAN_FILTERING)");
    }
    there
}

/// False, with the reason told, where CRIU can't save a process at all: that of Debian 12 is older
/// than some kernels, and its own check does not find that out.
#[must_use]
pub(crate) fn checkpoints() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    program("criu", "criu");
    let works = *WORKS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("make a directory");
        let mut victim = std::process::Command::new("setsid")
            .args(["sleep", "1000"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start a process to save");
        // Until then it is in this test's session, which CRIU would have to save as well.
        let comm = format!("/proc/{}/comm", victim.id());
        let sleeps = || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n");
        assert!(super::eventually(sleeps), "sleep does not start");
        let dump = Cmd::line("criu dump --leave-running --tree").arg(victim.id().to_string());
        let code = dump.arg("--images-dir").arg(dir.path()).run().code;
        // Both fail only if it is gone already.
        let _ = victim.kill();
        let _ = victim.wait();
        code == 0
    });
    if !works {
        println!("SKIP: criu can't save a process on this kernel");
    }
    works
}

/// False, with the reason told, where CRIU finds that the kernel lacks something.
#[must_use]
pub(crate) fn criu_feature(name: &str) -> bool {
    let has = Cmd::line("criu check --feature").arg(name).run().code == 0;
    if !has {
        println!("SKIP: criu finds no {name} on this kernel");
    }
    has
}

/// False, with the reason told, where not even root may exceed what is set for everybody.
#[must_use]
pub(crate) fn resources_without_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").expect("read own status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = u64::from_str_radix(line.expect("there is a CapEff").trim(), 16).expect("hex");
    let has = held >> CAP_SYS_RESOURCE & 1 == 1;
    if !has {
        println!("SKIP: root has no CAP_SYS_RESOURCE here");
    }
    has
}
