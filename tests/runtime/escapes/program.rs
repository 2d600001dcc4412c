//! The runtime's own program, which runs for a moment within the container: a container that lies
//! in wait for it must neither write it nor read what it has open.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Bundle, Canary, Subject, binary, scene};
use crate::harness::wait_for_exit;

/// How many processes the hunter gets to see.
const EXECS: usize = 40;

/// Every capability that this kernel has.
fn all_capabilities() -> Vec<&'static str> {
    const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID \
        SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_ADMIN NET_RAW IPC_LOCK SYS_RAWIO SYS_CHROOT \
        SYS_PTRACE SYS_ADMIN SYS_NICE MKNOD AUDIT_WRITE SETFCAP";
    NAMES.split_whitespace().collect()
}

/// Runs `body` under a copy of each runtime, so that what it does to the program harms nobody.
fn under_copies(body: impl Fn(&Subject)) {
    let installed = std::env::var("PATH").unwrap_or_default();
    let installed = installed.split(':').map(|dir| Path::new(dir).join("runc"));
    let runc = installed.clone().find(|path| path.exists()).expect("runc is on the PATH");
    for original in [binary("runtime"), runc] {
        println!("under {}", original.display());
        scene(|scene| {
            let program = scene.path("program");
            fs::copy(&original, &program).unwrap();
            let hash = || Sha256::digest(fs::read(&program).unwrap());
            let before = hash();
            body(&Subject { scene, program: program.clone() });
            assert_eq!(hash(), before, "the runtime's program was written");
        });
    }
}

/// Has a container hunt while processes come into it, some of which are the runtime itself.
fn hunt(it: &Subject, bundle: &Bundle) -> Value {
    let rootfs = it.scene.path("bundle/rootfs");
    let script = rootfs.join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let id = it.scene.id("hunter");
    it.start_pausing(bundle.write(), &id);
    for number in 0..EXECS {
        let program = match number % 4 {
            0 => "/proc/self/exe",
            1 => "/script",
            _ => "/probe",
        };
        // Where the runtime stands lies what must not be read through it.
        it.cmd(["exec", &id, program]).dir(&it.scene.path("")).run();
    }
    let pid = it.pid(&id);
    fs::write(rootfs.join("stop"), "").unwrap();
    wait_for_exit(pid);
    it.run(["delete", "--force", &id]).success();
    let found = serde_json::from_slice(&fs::read(rootfs.join("found")).unwrap()).unwrap();
    println!("{found}");
    found
}

#[test]
fn exec_shows_a_container_nothing_of_the_runtime() {
    under_copies(|it| {
        let canary = Canary::new(it);
        let found = hunt(it, &Bundle::new(it.scene, &["hunt", "/stop", "/found"]));
        assert!(found["stages"].as_u64() >= Some(5), "too few were seen: {found}");
        assert_eq!(found["descriptors"], json!([]));
        assert!(found["writes"].get("written").is_none(), "{found}");
        canary.assert_untouched();
    });
}

#[test]
fn nor_can_one_with_all_capabilities_write_its_program() {
    under_copies(|it| {
        let all: Vec<String> =
            all_capabilities().into_iter().map(|name| format!("CAP_{name}")).collect();
        let sets = json!({ "bounding": all, "effective": all, "permitted": all });
        let bundle = Bundle::new(it.scene, &["hunt", "/stop", "/found"])
            .edit("/process/capabilities", sets)
            .edit("/process/noNewPrivileges", false);
        let found = hunt(it, &bundle);
        assert!(found["stages"].as_u64() >= Some(5), "too few were seen: {found}");
        assert!(found["writes"].get("written").is_none(), "{found}");
    });
}

#[test]
fn a_container_that_is_the_runtime_can_not_write_it() {
    under_copies(|it| {
        for program in ["/proc/self/exe", "/script"] {
            let bundle = Bundle::new(it.scene, &[]).edit("/process/args", json!([program]));
            fs::write(it.scene.path("bundle/rootfs/script"), "#!/proc/self/exe\n").unwrap();
            it.attempt(&bundle, &it.scene.id("self"));
        }
    });
}
