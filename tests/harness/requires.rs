//! What a test needs of the machine. Missing means failed: `tests/run` installs it all.

use std::path::Path;

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
/// a systemd of their own; waits until that has started.
pub(crate) fn users_systemd() -> bool {
    if !(systemd() && optional("as")) {
        return false;
    }
    super::Cmd::line("systemctl start user@1000.service").run().success();
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
