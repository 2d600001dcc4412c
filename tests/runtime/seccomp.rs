//! The filter of system calls: agents that answer for the kernel, programs of another ABI, and
//! what libseccomp makes of the same profile.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Subject, under_both, under_ours};
use crate::harness::image::Image;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Bundle, Scene, scene};

pub(super) mod agent;
mod filter;

use agent::Agent;

const IMAGE: &str = "e2e.test/seccomp:latest";

/// A bundle whose calls named `notified` an agent answers.
fn notifying(it: &Subject, words: &[&str], notified: &[&str], rules: &[Value]) -> Bundle {
    let notify = json!({ "names": notified, "action": "SCMP_ACT_NOTIFY" });
    let rules: Vec<Value> = std::iter::once(notify).chain(rules.iter().cloned()).collect();
    Bundle::new(it.scene, words).edit(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": it.scene.path("agent.sock"),
            "listenerMetadata": "words for the agent",
            "syscalls": rules,
        }),
    )
}

#[test]
fn an_agent_answers_for_the_kernel() {
    for no_new_privileges in [true, false] {
        under_both(|it| {
            let bundle = notifying(it, &["try", "mkdir", "/new"], &["mkdir"], &[])
                .edit("/process/noNewPrivileges", no_new_privileges);
            let id = it.scene.id("notify");
            let agent = Agent::listen(&it.scene.path("agent.sock"), 1);
            let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
            assert_eq!(run.stdout, "ENOMEDIUM\n");
            assert!(!it.scene.path("bundle/rootfs/new").exists());
            let [session] = &agent.sessions()[..] else { panic!("one filter, one session") };
            assert_eq!(session.asked, [libc::SYS_mkdir]);
            let told = &session.told;
            assert_eq!(told["fds"], json!(["seccompFd"]));
            assert_eq!(told["metadata"], "words for the agent");
            assert_eq!(
                (&told["state"]["id"], &told["state"]["status"]),
                (&json!(id), &json!("creating"))
            );
            assert_eq!(told["pid"], told["state"]["pid"]);
            assert!(told["pid"].as_i64() > Some(1), "{told}");
        });
    }
}

#[test]
fn an_agent_answers_for_a_process_that_joins() {
    for no_new_privileges in [true, false] {
        under_both(|it| {
            let bundle = notifying(it, &["pause"], &["mkdir"], &[])
                .edit("/process/noNewPrivileges", no_new_privileges);
            let id = it.scene.id("notify-exec");
            let agent = Agent::listen(&it.scene.path("agent.sock"), 2);
            it.start_pausing(bundle.write(), &id);
            let pid = it.pid(&id);
            let exec = it.cmd(["exec", &id, "/probe", "try", "mkdir", "/new"]).run().success();
            assert_eq!(exec.stdout, "ENOMEDIUM\n");
            it.run(["delete", "--force", &id]).success();
            let sessions = agent.sessions();
            let [init, joined] = &sessions[..] else { panic!("two filters, two sessions") };
            assert!(init.asked.is_empty());
            assert_eq!(init.told["pid"], pid);
            assert_eq!(joined.asked, [libc::SYS_mkdir]);
            let state = &joined.told["state"];
            assert_eq!((&state["pid"], &state["status"]), (&json!(pid), &json!("running")));
            assert_ne!(joined.told["pid"], pid);
        });
    }
}

/// Nothing that it takes to start a container or to hand its listener over is called under the
/// filter, but to write, to hear that the listener is taken, and to open and close the fifo.
#[test]
fn a_filter_may_refuse_what_a_start_takes() {
    let refused = [
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "socket",
        "connect",
        "pidfd_getfd",
        "openat2",
        "readlinkat",
        "setresuid",
        "setresgid",
        "setgroups",
        "capset",
        "capget",
        "prctl",
        "umask",
        "chdir",
        "fchdir",
        "getcwd",
        "statx",
        "faccessat2",
        "fchown",
        "fstatfs",
        "setns",
        "unshare",
        "clone",
        "clone3",
        "mkdirat",
        "mount",
        "fsopen",
    ];
    let rules = [json!({ "names": refused, "action": "SCMP_ACT_KILL_PROCESS" })];
    under_ours(|it| {
        let bundle = notifying(it, &["try", "mkdir", "/new"], &["mkdir"], &rules);
        let id = it.scene.id("notify-narrow");
        let agent = Agent::listen(&it.scene.path("agent.sock"), 2);
        let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().success();
        assert_eq!(run.stdout, "ENOMEDIUM\n");
        let bundle = bundle.edit("/process/args", json!(["/probe", "exit", "3"]));
        it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().code(3);
        assert_eq!(agent.sessions()[0].asked, [libc::SYS_mkdir]);
    });
}

/// The agent may already be wanted while its descriptor is on the way to it.
#[test]
fn calls_of_the_start_itself_wait_for_the_agent() {
    let notified = ["read", "close", "openat", "execve", "sendmsg"];
    for no_new_privileges in [true, false] {
        under_ours(|it| {
            let bundle = notifying(it, &["pause"], &notified, &[])
                .edit("/process/noNewPrivileges", no_new_privileges);
            let id = it.scene.id("notify-early");
            let agent = Agent::listen(&it.scene.path("agent.sock"), 2);
            it.start_pausing(bundle.write(), &id);
            it.run(["exec", &id, "/probe", "exit", "5"]).code(5);
            it.run(["delete", "--force", &id]).success();
            for session in agent.sessions() {
                let asked = |call| session.asked.contains(&call);
                assert!(asked(libc::SYS_read) && asked(libc::SYS_execve), "{:?}", session.asked);
                assert!(!asked(libc::SYS_sendmsg), "{:?}", session.asked);
            }
        });
    }
}

#[test]
fn without_its_agent_nothing_starts() {
    for no_new_privileges in [true, false] {
        under_both(|it| {
            let bundle = notifying(it, &["append", "/ran", "yes"], &["mkdir"], &[])
                .edit("/process/noNewPrivileges", no_new_privileges);
            let id = it.scene.id("no-agent");
            let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(&id).run().code(1);
            run.stderr_has("failed to connect with seccomp agent specified in the seccomp profile");
            assert!(!it.scene.path("bundle/rootfs/ran").exists());
            it.run(["state", &id]).code(1).stderr_has("container does not exist");
        });
    }
}

/// The `linux.seccomp` of a bundle that imgtool makes of `image`.
fn default_profile(scene: &Scene, image: &Image, body: impl FnOnce(&Path, Value)) {
    let archive = image.docker_archive(&scene.path("image.tar"), IMAGE);
    scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
    let dir = scene.path("made");
    scene.imgtool().args(["bundle", "--network", "none", IMAGE]).arg(&dir).run().success();
    let config = fs::read(dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    body(&dir, config["linux"]["seccomp"].clone());
    scene.imgtool().arg("rm").arg(&dir).run().success();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_program_lives_under_the_default_profile_and_is_filtered() {
    scene(|scene| {
        let layer = Tarball::of([Entry::file("program", program_of_i386()).mode(0o755)]);
        let image = Image::probe(&[]).layer(layer).with("Cmd", vec!["/program"]);
        default_profile(scene, &image, |dir, profile| {
            let architectures = profile["architectures"].as_array().unwrap();
            assert!(architectures.contains(&"SCMP_ARCH_X86".into()), "{architectures:?}");
            let run = scene.runtime().args(["run", "--bundle"]).arg(dir).arg(scene.id("i386"));
            assert_eq!(run.run().code(libc::EPERM).stdout, "32 bits\n");
        });
    });
}

/// A static ELF of i386 that writes a line and exits with what `keyctl` fails with: by itself that
/// is EOPNOTSUPP, since there is no such operation.
fn program_of_i386() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    const TEXT: &[u8] = b"32 bits\n";
    const CODE_SIZE: u32 = 45;
    let (eax, ebx, ecx, edx) = (0xb8, 0xbb, 0xb9, 0xba);
    let load = |register: u8, value: u32| [&[register][..], &value.to_le_bytes()].concat();
    let int_0x80 = vec![0xcd, 0x80];
    let code = [
        load(eax, 4), // write
        load(ebx, 1),
        load(ecx, BASE + HEADERS + CODE_SIZE),
        load(edx, 8),
        int_0x80.clone(),
        load(eax, 288), // keyctl
        load(ebx, 0xffff),
        int_0x80.clone(),
        vec![0xf7, 0xd8], // neg eax
        vec![0x89, 0xc3], // mov ebx, eax
        load(eax, 1),     // exit
        int_0x80,
    ]
    .concat();
    assert_eq!(code.len(), CODE_SIZE as usize, "the text follows the code");
    let size = HEADERS + CODE_SIZE + 8;
    let halves = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        halves(&[2, 3]), // an executable for i386
        words(&[1, BASE + HEADERS, 52, 0, 0]),
        halves(&[52, 32, 1, 0, 0, 0]),
        // One segment: the whole file, to be read and executed.
        words(&[1, 0, BASE, BASE, size, size, 5, 0x1000]),
        code,
        TEXT.to_vec(),
    ]
    .concat()
}

/// Names that Debian's libseccomp has not heard of: it would leave them out.
const NEWER_THAN_DEBIANS: [&str; 11] = [
    "futex_requeue",
    "futex_wait",
    "futex_wake",
    "getxattrat",
    "listmount",
    "listxattrat",
    "mseal",
    "removexattrat",
    "setxattrat",
    "statmount",
    "uretprobe",
];

#[cfg(target_arch = "x86_64")]
#[test]
fn the_default_profile_means_what_libseccomp_makes_of_it() {
    let mut known = None;
    scene(|scene| {
        default_profile(scene, &Image::probe(&[]), |_, mut profile| {
            let names = profile["syscalls"][0]["names"].as_array_mut().unwrap();
            names.retain(|name| !NEWER_THAN_DEBIANS.contains(&name.as_str().unwrap()));
            known = Some(profile);
        });
    });
    let profile = known.unwrap();
    let programs = std::cell::RefCell::new(Vec::new());
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/linux/seccomp", profile.clone());
        let id = it.scene.id("filter");
        it.start_pausing(bundle.write(), &id);
        programs.borrow_mut().push(filter::of_process(it.pid(&id)));
        it.run(["delete", "--force", &id]).success();
    });
    let [ours, theirs] = &programs.into_inner()[..] else { panic!("two runtimes, two filters") };
    assert!(ours.len() < theirs.len(), "{} against {}", ours.len(), theirs.len());
    // The library gives x32 no such call.
    let map_shadow_stack = 0x4000_0000 + 453;
    let differing: Vec<_> = filter::cases(&profile, &[ours, theirs])
        .filter(|call| filter::answer(ours, call).value != filter::answer(theirs, call).value)
        .filter(|call| (call.arch, call.number) != (filter::X86_64, map_shadow_stack))
        .map(|call| (call, filter::answer(ours, &call).value, filter::answer(theirs, &call).value))
        .take(20)
        .collect();
    assert!(differing.is_empty(), "call, ours, libseccomp's: {differing:#x?}");
}
