use super::*;
use crate::bundle::capabilities;
use crate::userns::Maps;

fn image(config: &Value) -> ImageConfig {
    let json = json!({"architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": []}});
    ImageConfig::parse(json.to_string().as_bytes()).unwrap()
}

fn config<'a>(
    image: &'a ImageConfig,
    options: &'a Options,
    edit: impl FnOnce(&mut Inputs<'a>),
) -> Value {
    let identity = Box::leak(Box::new(Identity::default()));
    let host = Box::leak(Box::new(Host::default()));
    let hooks = Box::leak(Box::new(Hooks::default()));
    let arguments = Box::leak(Box::new(["sh".to_owned()]));
    let mut inputs = Inputs {
        image,
        options,
        arguments,
        identity,
        host,
        maps: None,
        hostname: "box",
        own_network: true,
        joined: Box::leak(Box::default()),
        bundle_id: "b1",
        volumes: &[],
        hooks,
        annotations: BTreeMap::new(),
        capabilities: &capabilities::DEFAULT,
        seccomp: Some(json!({"defaultAction": "SCMP_ACT_ERRNO"})),
        devices: Vec::new(),
        device_rules: Vec::new(),
        block: None,
    };
    edit(&mut inputs);
    inputs.maps = inputs.host.rootless.as_ref();
    generate(&inputs).unwrap()
}

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn commands_combine_as_with_docker() {
    let both = image(&json!({"Entrypoint": ["/entry"], "Cmd": ["a", "b"]}));
    let cmd = image(&json!({"Cmd": ["a"]}));
    for (image, entrypoint, command, expected) in [
        (&both, None, None, vec!["/entry", "a", "b"]),
        (&both, None, words(&["c"]), vec!["/entry", "c"]),
        (&both, words(&["/other"]), None, vec!["/other"]),
        (&both, words(&["/other"]), words(&["c"]), vec!["/other", "c"]),
        (&both, words(&[]), words(&["c"]), vec!["c"]),
        (&cmd, None, None, vec!["a"]),
        (&cmd, None, words(&["c"]), vec!["c"]),
    ] {
        let options = Options { entrypoint, command, ..Options::default() };
        assert_eq!(arguments(image, &options).unwrap(), expected);
    }
    let cleared = Options { entrypoint: words(&[]), ..Options::default() };
    for (image, options) in [(&image(&json!({})), &Options::default()), (&both, &cleared)] {
        let error = arguments(image, options).unwrap_err().to_string();
        assert!(error.contains("no command specified"), "{error}");
    }
}

#[test]
fn the_environment_keeps_order_and_the_last_value() {
    let image = image(&json!({"Env": ["A=1", "PATH=/bin", "B=2", "broken"]}));
    let options = Options {
        terminal: true,
        env: vec![("B".into(), "3".into()), ("C".into(), String::new())],
        ..Options::default()
    };
    let config = config(&image, &options, |_| {});
    assert_eq!(
        config["process"]["env"],
        json!(["PATH=/bin", "HOSTNAME=box", "TERM=xterm", "A=1", "B=3", "C="])
    );
    assert_eq!(config["process"]["terminal"], true);
}

#[test]
fn defaults_are_dockers() {
    let config = config(&image(&json!({})), &Options::default(), |_| {});
    assert_eq!(config["process"]["cwd"], "/");
    assert_eq!(config["process"]["capabilities"]["effective"].as_array().unwrap().len(), 14);
    assert!(config["process"]["capabilities"].get("ambient").is_none());
    assert_eq!(
        config["linux"]["resources"],
        json!({"devices": [{"allow": false, "access": "rwm"}]})
    );
    assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(config["root"], json!({"path": "rootfs", "readonly": false}));
    let targets: Vec<_> = config["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].clone())
        .collect();
    assert_eq!(
        json!(targets),
        json!([
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/sys/fs/cgroup",
            "/dev/mqueue",
            "/dev/shm",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/hosts"
        ])
    );
    assert!(config.get("hooks").is_none());
}

#[test]
fn limits_are_written_where_they_were_asked_for() {
    let options = Options {
        memory_bytes: Some(256 << 20),
        cpu_quota_us: Some(150_000),
        pids_limit: Some(50),
        ..Options::default()
    };
    let host = Host { swap_limit: true, ..Host::default() };
    let config = config(&image(&json!({})), &options, |inputs| inputs.host = &host);
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["memory"], json!({"limit": 268_435_456, "swap": 536_870_912}));
    assert_eq!(resources["cpu"], json!({"quota": 150_000, "period": 100_000}));
    assert_eq!(resources["pids"], json!({"limit": 50}));
}

#[test]
fn users_other_than_root_hold_no_capability() {
    let identity = Identity { uid: 5, gid: 6, additional_gids: vec![6, 7] };
    let config =
        config(&image(&json!({})), &Options::default(), |inputs| inputs.identity = &identity);
    assert_eq!(config["process"]["user"], json!({"uid": 5, "gid": 6, "additionalGids": [6, 7]}));
    let sets = config["process"]["capabilities"].as_object().unwrap();
    assert_eq!(sets.keys().collect::<Vec<_>>(), ["bounding"]);
}

#[test]
fn volumes_come_parents_first_and_replace_our_files() {
    let mount = |target: &str, read_only| Mount {
        source: "/s".into(),
        target: target.into(),
        read_only,
        propagation: "rprivate",
        filesystem: None,
        mapped: false,
    };
    let volumes = [
        mount("/a/b", true),
        mount("/a", false),
        mount("/etc/hosts", true),
        mount("/dev/shm", false),
    ];
    let config =
        config(&image(&json!({})), &Options::default(), |inputs| inputs.volumes = &volumes);
    let binds: Vec<_> = config["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["type"] == "bind")
        .map(|mount| {
            (mount["destination"].as_str().unwrap(), mount["options"][1].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        binds,
        [
            ("/a", "rprivate"),
            ("/a/b", "ro"),
            ("/etc/hosts", "ro"),
            ("/dev/shm", "rprivate"),
            ("/etc/resolv.conf", "rprivate"),
            ("/etc/hostname", "rprivate"),
        ]
    );
    let shm =
        config["mounts"].as_array().unwrap().iter().filter(|m| m["destination"] == "/dev/shm");
    assert_eq!(shm.count(), 1);
}

#[test]
fn privileged_masks_nothing() {
    let options = Options { privileged: true, ..Options::default() };
    let config = config(&image(&json!({})), &options, |_| {});
    let linux = config["linux"].as_object().unwrap();
    for absent in ["maskedPaths", "readonlyPaths", "seccomp"] {
        assert!(!linux.contains_key(absent), "{absent}");
    }
    assert_eq!(linux["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    let sys =
        config["mounts"].as_array().unwrap().iter().find(|m| m["destination"] == "/sys").unwrap();
    assert_eq!(sys["options"], json!(["nosuid", "noexec", "nodev"]));
}

fn one(outside: u32) -> Range {
    Range { inside: 0, outside, count: 1 }
}

#[test]
fn without_root_one_id_is_mapped() {
    let maps = Maps { uids: vec![one(1000)], gids: vec![one(1001)] };
    let host: &Host = Box::leak(Box::new(Host { rootless: Some(maps), ..Host::default() }));
    let config = config(&image(&json!({})), &Options::default(), |inputs| inputs.host = host);
    let linux = &config["linux"];
    assert_eq!(linux["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
    assert_eq!(linux["gidMappings"], json!([{"containerID": 0, "hostID": 1001, "size": 1}]));
    assert_eq!(linux["sysctl"]["net.ipv4.ping_group_range"], "0 0");
    assert_eq!(linux["resources"], json!({}));
    assert_eq!(config["process"]["user"]["additionalGids"], json!([]));
    assert!(!config["mounts"].to_string().contains("gid=5"));
    assert!(!config["mounts"].to_string().contains("cgroup"));
}

#[test]
fn without_root_further_ids_are_mapped_where_there_are_any() {
    let further = Range { inside: 1, outside: 100_000, count: 65_536 };
    let maps = Maps { uids: vec![one(1000), further], gids: vec![one(1000), further] };
    let host =
        Box::leak(Box::new(Host { rootless: Some(maps), unified_cgroup: true, ..Host::default() }));
    let identity =
        Box::leak(Box::new(Identity { uid: 7, gid: 8, additional_gids: vec![8, 70_000] }));
    let config = config(&image(&json!({})), &Options::default(), |inputs| {
        (inputs.host, inputs.identity) = (host, identity);
        inputs.own_network = false;
    });
    let second = json!({"containerID": 1, "hostID": 100_000, "size": 65_536});
    assert_eq!(config["linux"]["uidMappings"][1], second);
    assert_eq!(config["process"]["user"]["additionalGids"], json!([8]));
    let mounts = config["mounts"].as_array().unwrap();
    assert!(config["mounts"].to_string().contains("gid=5"));
    let sys = mounts.iter().find(|mount| mount["destination"] == "/sys").unwrap();
    assert_eq!((&sys["type"], &sys["source"]), (&json!("bind"), &json!("/sys")));
    assert!(config["linux"].get("sysctl").is_none());
}

#[test]
fn annotations_of_ours_can_not_be_replaced_by_labels() {
    let image = image(&json!({"Labels": {"org.imgtool.name": "evil", "a": "b"}}));
    let options = Options { name: Some("good".into()), ..Options::default() };
    let config = config(&image, &options, |_| {});
    assert_eq!(config["annotations"]["org.imgtool.name"], "good");
    assert_eq!(config["annotations"]["a"], "b");
    assert_eq!(config["annotations"]["org.imgtool.command"], "[\"sh\"]");
}
