//! Something in the container's tree is swapped for a symlink while the runtime works on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use super::super::under_ours;
use super::{Bundle, Canary, Subject, under_both};

/// How many starts ours must stand; `RACE_TRIES` for more.
fn tries() -> usize {
    let tries = std::env::var("RACE_TRIES").ok().and_then(|tries| tries.parse().ok());
    tries.unwrap_or(80)
}

/// Within so many starts runc has been hit with all but certainty: about one in twenty hits.
const TRIES_OF_THE_CONTROL: usize = 400;

/// How a start went.
enum Met {
    /// The host was reached.
    Hit,
    /// The swap was seen, and did no harm.
    Swap,
    Nothing,
}

/// Exchanges `one` and `other` without a pause while `body` runs.
fn swapping<T>(one: &Path, other: &Path, body: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn make_null(path: &Path) {
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let device = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFCHR, mode, device).unwrap();
}

/// Ours is never hit although at least a tenth of its starts met the swap; the control is, once.
fn judge(it: &Subject, start: impl Fn(usize) -> Met) {
    if it.is_control() {
        let hit = (0..TRIES_OF_THE_CONTROL).find(|&index| matches!(start(index), Met::Hit));
        assert!(hit.is_some(), "runc was not hit: the race proves nothing");
        println!("runc was hit at start {}", hit.unwrap_or_default() + 1);
        return;
    }
    let tries = tries();
    let (mut met, mut hits) = (0, 0);
    for index in 0..tries {
        match start(index) {
            Met::Hit => hits += 1,
            Met::Swap => met += 1,
            Met::Nothing => {}
        }
    }
    println!("{hits} hits in {tries} starts, {met} of which met the swap");
    assert_eq!(hits, 0, "of {tries} starts");
    assert!(met * 10 >= tries, "only {met} of {tries} starts met the swap");
}

#[test]
fn the_null_device_is_swapped_for_a_link_before_it_masks() {
    under_both(|it| {
        let volume = it.scene.path("volume");
        fs::create_dir_all(&volume).unwrap();
        let (null, link) = (volume.join("null"), volume.join("link"));
        symlink("/proc/sys/kernel/hostname", &link).unwrap();
        make_null(&null);
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit(
                "/mounts",
                json!([
                    { "destination": "/proc", "type": "proc", "source": "proc" },
                    { "destination": "/dev", "type": "bind", "source": volume, "options": ["rbind"] },
                ]),
            )
            .edit("/linux/maskedPaths", json!(["/proc/timer_list"]));
        let dir = bundle.write();
        swapping(&null, &link, || {
            judge(it, |index| match it.mounts_of(dir, &it.scene.id(&index.to_string())) {
                Some(mounts) if mounts.contains(" /sys/kernel/hostname ") => Met::Hit,
                Some(_) => Met::Nothing,
                None => Met::Swap,
            });
        });
    });
}

#[test]
fn a_parent_of_a_mount_target_is_swapped_for_a_link() {
    under_both(|it| {
        let canary = Canary::new(it);
        let mount = json!({ "destination": "/a/sub/deep", "type": "tmpfs", "source": "tmpfs" });
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/mounts", json!([mount]));
        let bundle = bundle.edit("/linux/maskedPaths", json!([]));
        let bundle = bundle.edit("/linux/readonlyPaths", json!([]));
        let rootfs = it.scene.path("bundle/rootfs");
        let (real, link) = (rootfs.join("a"), rootfs.join("b"));
        fs::create_dir(&real).unwrap();
        symlink(&canary.dir, &link).unwrap();
        // Where the link leads for one who takes the rootfs for the root.
        let inside = rootfs.join(canary.dir.strip_prefix("/").unwrap());
        let dir = bundle.write();
        swapping(&real, &link, || {
            judge(it, |index| {
                let mounts = it.mounts_of(dir, &it.scene.id(&index.to_string()));
                let met = match mounts {
                    _ if !canary.untouched() => Met::Hit,
                    Some(_) if !inside.exists() => Met::Nothing,
                    _ => Met::Swap,
                };
                for place in [&real, &link, &inside, &canary.dir] {
                    // Whether these are there depends on how the race went.
                    let _ = fs::remove_dir(place.join("sub/deep"));
                    let _ = fs::remove_dir(place.join("sub"));
                }
                let _ = fs::remove_dir_all(&inside);
                met
            });
        });
    });
}

/// CVE-2025-52565: what is bound onto /dev/console must be the terminal itself. Looked up once more
/// by its name, it may by then be a file of /proc, and is so before that is made read-only.
#[test]
fn the_terminal_is_swapped_for_a_link_before_it_becomes_the_console() {
    under_both(|it| {
        let volume = it.scene.path("volume");
        for dir in ["terminals", "fake"] {
            fs::create_dir_all(volume.join(dir)).unwrap();
        }
        symlink("/proc/sys/kernel/hostname", volume.join("fake/0")).unwrap();
        symlink("pts/ptmx", volume.join("ptmx")).unwrap();
        fs::write(volume.join("console"), "").unwrap();
        make_null(&volume.join("null"));
        let (real, link) = (volume.join("pts"), volume.join("other"));
        symlink("terminals", &real).unwrap();
        symlink("fake", &link).unwrap();
        let devpts = ["newinstance", "ptmxmode=0666", "mode=0620"];
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/process/terminal", true).edit(
            "/mounts",
            json!([
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "bind", "source": volume, "options": ["rbind"] },
                { "destination": "/dev/terminals", "type": "devpts", "source": "devpts",
                  "options": devpts },
            ]),
        );
        let bundle = bundle.edit("/linux/maskedPaths", json!([]));
        let dir = bundle.write();
        let socket = it.scene.path("console.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        swapping(&real, &link, || {
            judge(it, |index| {
                let id = it.scene.id(&index.to_string());
                let run = it.cmd(["run", "--detach", "--console-socket"]).arg(&socket);
                let mounts = it.mounts_after(run.arg("--bundle").arg(dir).arg(&id), &id);
                // Terminals that were sent: nobody reads them.
                while listener.accept().is_ok() {}
                match mounts {
                    Some(mounts) if mounts.contains(" /sys/kernel/hostname ") => Met::Hit,
                    Some(_) => Met::Nothing,
                    None => Met::Swap,
                }
            });
        });
    });
}

/// The family of CVE-2025-52881: what is written to /proc goes to a procfs, and one that nobody
/// could put something else in the place of.
#[test]
fn the_place_of_proc_is_swapped_for_a_link_while_settings_are_written() {
    under_ours(|it| {
        let rootfs = it.scene.path("bundle/rootfs");
        let bundle = Bundle::new(it.scene, &["pause"])
            .edit("/linux/sysctl", json!({ "kernel.domainname": "raced" }))
            .edit("/linux/maskedPaths", json!(["/proc/keys"]))
            .edit("/linux/readonlyPaths", json!(["/proc/sys"]));
        let decoy = rootfs.join("decoy/sys/kernel");
        fs::create_dir_all(&decoy).unwrap();
        for name in ["domainname", "../../keys"] {
            fs::write(decoy.join(name), "untouched").unwrap();
        }
        let (real, link) = (rootfs.join("proc"), rootfs.join("other"));
        symlink("/decoy", &link).unwrap();
        let before = fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
        let dir = bundle.write();
        swapping(&real, &link, || {
            judge(it, |index| {
                let mounts = it.mounts_of(dir, &it.scene.id(&index.to_string()));
                let touched = fs::read(decoy.join("domainname")).unwrap() != b"untouched";
                // It lies where its place was moved to, and what closes it went with it; the names
                // change from line to line while the kernel writes them.
                let open = mounts.as_deref().is_some_and(|mounts| {
                    ["sys", "keys"].iter().any(|it| {
                        let closed = ["proc", "other"].map(|place| format!(" /{place}/{it} "));
                        !closed.iter().any(|point| mounts.contains(point))
                    })
                });
                match mounts {
                    _ if touched || open => Met::Hit,
                    Some(_) => Met::Nothing,
                    None => Met::Swap,
                }
            });
        });
        assert_eq!(fs::read_to_string("/proc/sys/kernel/domainname").unwrap(), before);
    });
}
