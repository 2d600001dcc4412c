//! Flags that docker's users bring along, down to what the container sees of them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Image, Outcome, Scene, load, remove, scene};

pub(super) const NAME: &str = "e2e.test/flags:1";

/// What a shell says in a container made with these flags, and its configuration.
pub(super) fn said(scene: &Scene, flags: &[&str], script: &str) -> (Outcome, Value) {
    let own = [&["--network", "none"], flags].concat();
    let dir = super::bundle(scene, &own, NAME, "b", &["sh", "-c", script]);
    let config = fs::read(dir.join("config.json")).unwrap();
    let outcome = super::run(scene, "b");
    remove(scene, "b");
    (outcome, serde_json::from_slice(&config).unwrap())
}

/// A bundle that is refused, and not made.
#[track_caller]
pub(super) fn refused(scene: &Scene, flags: &[&str], words: &[&str]) {
    let dir = scene.path("refused");
    scene.imgtool().arg("bundle").args(flags).arg(NAME).arg(&dir).run().refused(words);
    assert!(!dir.exists());
}

pub(super) fn with_busybox(body: impl FnOnce(&Scene)) {
    scene(|scene| {
        let image = Image::busybox()
            .with("ExposedPorts", json!({ "80/tcp": {}, "53/udp": {} }))
            .with("StopSignal", "SIGTERM")
            .with("Labels", json!({ "kind": "image", "kept": "yes" }));
        load(scene, &image, NAME);
        body(scene);
    });
}

#[test]
fn names_of_hosts_and_servers_are_the_user_s() {
    with_busybox(|scene| {
        let flags = ["-h", "box", "--add-host", "db:10.0.0.2", "--add-host", "six=[fe80::1]"];
        let servers = ["--dns", "192.0.2.1", "--dns-search", "a.example", "--dns-opt", "ndots:2"];
        let script = "hostname; cat /etc/hosts /etc/resolv.conf";
        let (outcome, _) = said(scene, &[&flags[..], &servers].concat(), script);
        let told = outcome.success().stdout;
        assert!(told.starts_with("box\n"), "{told}");
        for line in ["10.0.0.2\tdb", "fe80::1\tsix", "nameserver 192.0.2.1", "search a.example"] {
            assert!(told.lines().any(|other| other == line), "{line:?} in {told}");
        }
        assert_eq!(told.matches("nameserver").count(), 1, "{told}");
        refused(scene, &["--add-host", "db"], &["NAME:ADDRESS"]);
        refused(scene, &["--add-host", "db:host-gateway"], &["gateway"]);
        let dns = scene.imgtool().args(["bundle", "--dns", "x", NAME, "x"]).run();
        dns.code(125);
        scene.imgtool().args(["bundle", "--help"]).run().success().stdout_has("--hostname");
    });
}

#[test]
fn memory_file_systems_and_mounts_are_where_they_are_wanted() {
    with_busybox(|scene| {
        let data = scene.path("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), "bound\n").unwrap();
        let bind = format!("type=bind,src={},dst=/data,readonly", data.display());
        let tmpfs = "type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=1770";
        let flags = ["--tmpfs", "/run:size=64k", "--mount", &bind, "--mount", tmpfs];
        let flags = [&flags[..], &["--shm-size", "1m", "--read-only"]].concat();
        let script = "cat /data/file; touch /data/x; touch /run/x /scratch/y && echo made; \
                      grep -E ' /(run|scratch|data|dev/shm) ' /proc/mounts";
        let (outcome, _) = said(scene, &flags, script);
        let told = outcome.success().stderr_has("Read-only").stdout;
        assert!(told.starts_with("bound\nmade\n"), "{told}");
        let mount = |at: &str| {
            let line = told.lines().find(|line| line.split(' ').nth(1) == Some(at));
            line.unwrap_or_else(|| panic!("{at} in {told}")).to_owned()
        };
        assert!(mount("/run").contains("size=64k") && mount("/run").contains("noexec"));
        assert!(mount("/scratch").contains("size=1024k,mode=1770"), "{}", mount("/scratch"));
        assert!(mount("/data").contains(" ro,"));
        assert!(mount("/dev/shm").contains("size=1024k"));
        refused(scene, &["--mount", "type=bind,src=/none/at/all,dst=/x"], &["does not exist"]);
        refused(scene, &["--mount", "type=what,dst=/x"], &["bind, volume and tmpfs"]);
        refused(scene, &["--tmpfs", "/x:lowerdir=/etc"], &["unknown option"]);
        refused(scene, &["--tmpfs", "/x", "-v", "/tmp:/x"], &["duplicate mount point: /x"]);
    });
}

#[test]
fn limits_of_every_kind_reach_the_container() {
    with_busybox(|scene| {
        let memory = ["-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"];
        let cpus = ["--cpuset-cpus", "0", "-c", "512"];
        let limits = ["--ulimit", "nofile=64:128", "--ulimit", "core=0"];
        let script = "ulimit -n; ulimit -Hn; ulimit -c; grep Cpus_allowed_list /proc/self/status";
        let (outcome, config) = said(scene, &[&memory[..], &cpus, &limits].concat(), script);
        assert_eq!(outcome.success().stdout, "64\n128\n0\nCpus_allowed_list:\t0\n");
        let resources = &config["linux"]["resources"];
        assert_eq!(resources["memory"]["reservation"], 32 << 20);
        assert_eq!(resources["cpu"], json!({ "shares": 512, "cpus": "0" }));
        if !resources["memory"]["swap"].is_null() {
            assert_eq!(resources["memory"]["swap"], 96 << 20);
        }
        refused(scene, &["-m", "64m", "--memory-swap", "32m"], &["can't be below --memory"]);
        refused(scene, &["--ulimit", "files=1"], &["unknown type", "nofile"]);
        refused(scene, &["--cpuset-cpus", "3-1"], &["--cpuset-cpus"]);
    });
}

#[test]
fn filters_of_docker_s_form_and_other_ways_of_confinement() {
    with_busybox(|scene| {
        let profile = scene.path("profile.json");
        let rules = json!([
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
              "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
              "includes": { "minKernel": "99.0" } },
        ]);
        let text = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
            "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": [] },
                        { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": [] }] });
        fs::write(&profile, text.to_string()).unwrap();
        let option = format!("seccomp={}", profile.display());
        let script = "busybox mkdir /x; busybox chmod 700 /tmp && echo changed";
        let (outcome, _) = said(scene, &["--security-opt", &option], script);
        outcome.success().stdout_has("changed").stderr_has("not supported");
        let admin = ["--security-opt", &option, "--cap-add", "SYS_ADMIN"];
        let (outcome, _) = said(scene, &admin, "busybox mkdir /x && echo made");
        outcome.success().stdout_has("made");
        let open = ["--security-opt", "systempaths=unconfined", "--security-opt", "apparmor=mine"];
        let dir = super::bundle(scene, &open, NAME, "b", &[]);
        let config = fs::read(dir.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["linux"]["maskedPaths"], Value::Null);
        assert_eq!(config["process"]["apparmorProfile"], "mine");
        remove(scene, "b");
        fs::write(&profile, "{").unwrap();
        refused(scene, &["--security-opt", &option], &["profile.json", "not JSON"]);
        refused(scene, &["--security-opt", "seccomp=/none"], &["/none"]);
        refused(scene, &["--security-opt", "x=y"], &["unknown security option"]);
    });
}

#[test]
fn a_device_of_the_host_is_there_under_its_name_and_with_its_access() {
    with_busybox(|scene| {
        let script = "ls /dev/fuse || echo none";
        said(scene, &[], script).0.success().stdout_has("none");
        let script = ": < /dev/mine && echo read; : > /dev/mine";
        let (outcome, _) = said(scene, &["--device", "/dev/fuse:/dev/mine:r"], script);
        assert_ne!(outcome.code, 0);
        outcome.stdout_has("read").stderr_has("not permitted");
        let (outcome, _) = said(scene, &["--device", "/dev/fuse:/dev/mine"], script);
        outcome.success();
        refused(scene, &["--device", "/dev/none-at-all"], &["/dev/none-at-all"]);
        refused(scene, &["--device", "/etc/passwd"], &["no device"]);
        refused(scene, &["--device", "/dev/fuse:/dev/x:q"], &["r, w and m"]);
    });
}

#[test]
fn words_of_the_user_are_put_over_those_of_the_image() {
    with_busybox(|scene| {
        let file = scene.path("variables");
        fs::write(&file, "# mine\nA=from file\nB=1\nHOME\n").unwrap();
        let env_file = file.to_str().unwrap();
        let words = ["--label", "kind=user", "--annotation", "team=blue", "--stop-signal", "QUIT"];
        let variables = ["--env-file", env_file, "-e", "B=2"];
        let script = "echo \"$A $B\"";
        let (outcome, config) = said(scene, &[&words[..], &variables].concat(), script);
        assert_eq!(outcome.success().stdout, "from file 2\n");
        let annotations = &config["annotations"];
        assert_eq!(annotations["kind"], "user");
        assert_eq!(annotations["kept"], "yes");
        assert_eq!(annotations["team"], "blue");
        assert_eq!(annotations["org.opencontainers.image.stopSignal"], "QUIT");
        refused(scene, &["--annotation", "org.imgtool.bundle=x"], &["imgtool's own"]);
        refused(scene, &["--stop-signal", "STOPNOW"], &["unknown signal"]);
        refused(scene, &["--env-file", "/none/at/all"], &["/none/at/all"]);
        fs::write(&file, "a b=c\n").unwrap();
        refused(scene, &["--env-file", env_file], &["variables, line 1", "whitespace"]);

        // Ports that the image exposes, each once.
        let dir = super::bundle(scene, &["-P", "-p", "8080:80"], NAME, "b", &[]);
        let config = fs::read(dir.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let hook = config["hooks"]["createRuntime"][0]["args"].to_string();
        assert!(hook.contains("8080:80/tcp") && hook.contains("53/udp"), "{hook}");
        assert_eq!(hook.matches("--publish").count(), 2, "{hook}");
        remove(scene, "b");
        refused(scene, &["-P", "--network", "none"], &["network"]);
    });
}

#[test]
fn volumes_have_names_and_outlive_the_containers() {
    with_busybox(|scene| {
        let volume = |words: &[&str]| scene.imgtool().arg("volume").args(words).run();
        assert_eq!(volume(&["create", "-l", "k=v", "data"]).success().stdout, "data\n");
        let random = volume(&["create"]).success().word().to_owned();
        assert_eq!(random.len(), 64);
        let seen = volume(&["inspect", "data"]).success().json();
        assert_eq!(seen[0]["Labels"]["k"], "v");
        let content = Path::new(seen[0]["Mountpoint"].as_str().unwrap());

        // Filled from the image as long as it is empty, and kept from one bundle to the next.
        let (outcome, _) = said(scene, &["-v", "data:/etc"], "cat /etc/group > /etc/mine");
        outcome.success();
        assert!(content.join("passwd").exists() && content.join("mine").exists());
        let mount = "type=volume,src=data,dst=/elsewhere,ro";
        let script = "ls /elsewhere; touch /elsewhere/x";
        let (outcome, _) = said(scene, &["--mount", mount], script);
        assert_ne!(outcome.code, 0);
        // As with docker, what was mounted in it has left its mount points.
        let there: Vec<&str> = outcome.stdout.lines().collect();
        assert!(["group", "mine", "passwd"].iter().all(|name| there.contains(name)), "{there:?}");
        said(scene, &["-v", "fresh:/new"], "touch /new/made").0.success();
        let listed = volume(&["ls"]).success().stdout;
        assert!(listed.starts_with("DRIVER    VOLUME NAME\n"), "{listed}");
        let names = volume(&["list", "--quiet"]).success().stdout;
        assert_eq!(names.lines().filter(|name| ["data", "fresh"].contains(name)).count(), 2);
        let one = volume(&["ls", "--format", "{{.Name}} {{.Labels}}"]).success();
        one.stdout_has("data k=v\n");

        super::bundle(scene, &["-v", "data:/data"], NAME, "user", &[]);
        volume(&["rm", "data"]).refused(&["in use by bundle", "imgtool rm"]);
        remove(scene, "user");
        assert_eq!(volume(&["rm", "data", &random]).success().stdout, format!("data\n{random}\n"));
        assert!(!content.exists());
        volume(&["rm", "data"]).refused(&["no such volume"]);
        volume(&["rm", "-f", "data", "fresh"]).success();
        volume(&["inspect", "fresh"]).refused(&["no such volume"]);
        for bad in ["../x", "a", ".hidden"] {
            volume(&["create", bad]).refused(&["invalid name of a volume"]);
        }
        refused(scene, &["-v", "x:/data"], &["invalid name of a volume", "./x"]);
        scene.imgtool().arg("verify").run().success();
        assert!(!scene.path("x").exists());
    });
}

#[test]
fn the_image_s_health_check_is_run_unless_another_is_said() {
    scene(|scene| {
        let second = 1_000_000_000_u64;
        let check = json!({ "Test": ["CMD-SHELL", "exit 3"], "Interval": 5 * second });
        load(scene, &Image::busybox().with("Healthcheck", check), NAME);
        let annotation = |flags: &[&str]| {
            let (_, config) = said(scene, flags, "true");
            let text = config["annotations"]["org.imgtool.healthcheck"].as_str();
            text.map(|text| serde_json::from_str::<Value>(text).unwrap())
        };
        let own = annotation(&[]).unwrap();
        assert_eq!(own["args"], json!(["/bin/sh", "-c", "exit 3"]));
        assert_eq!(
            (own["interval"].as_u64(), own["retries"].as_u64()),
            (Some(5 * second), Some(3))
        );
        let flags = ["--health-cmd", "true", "--health-timeout", "1500ms", "--health-retries", "1"];
        let other = annotation(&flags).unwrap();
        assert_eq!(other["args"], json!(["/bin/sh", "-c", "true"]));
        assert_eq!(
            (other["timeout"].as_u64(), other["retries"].as_u64()),
            (Some(3 * second / 2), Some(1))
        );
        assert!(annotation(&["--no-healthcheck"]).is_none());
        refused(scene, &["--health-interval", "soon"], &["--health-interval", "soon"]);
        let both =
            scene.imgtool().args(["bundle", "--no-healthcheck", "--health-cmd", "x", NAME, "x"]);
        both.run().code(125);
    });
}
