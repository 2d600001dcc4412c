use super::*;

/// The plan without devices, one line a write.
fn writes(mode: Mode, resources: &str) -> Vec<String> {
    let resources: Resources = serde_json::from_str(resources).unwrap();
    let plan = plan_update(&resources, mode).unwrap();
    plan.steps.iter().flat_map(lines).collect()
}

fn lines(step: &Step) -> Vec<String> {
    let line = |setting: &Setting| {
        let choices: Vec<String> =
            setting.choices.iter().map(|(file, value)| format!("{file}={value}")).collect();
        let skip = if setting.missing == Missing::Skip { "?" } else { "" };
        format!("{}{skip}", choices.join("|"))
    };
    match step {
        Step::Write(setting) => vec![line(setting)],
        Step::Together(settings) => {
            vec![settings.iter().map(line).collect::<Vec<_>>().join(" & ")]
        }
        Step::MemoryV1 { limit, memory_and_swap } => {
            vec![format!("memory {limit} {memory_and_swap}")]
        }
        Step::CheckMemory { limit, memory_and_swap } => {
            vec![format!("check {limit} {memory_and_swap}")]
        }
        Step::Devices(_) => vec!["devices".to_owned()],
        Step::Unified { file, value } => vec![format!("{file}={value}")],
    }
}

#[test]
fn each_limit_becomes_its_files() {
    #[rustfmt::skip]
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r"{}", &[], &[]),
        (r#"{"pids":{}}"#, &[], &[]),
        (r#"{"pids":{"limit":0}}"#, &["pids.max=1"], &["pids.max=1"]),
        (r#"{"pids":{"limit":-1}}"#, &["pids.max=max"], &["pids.max=max"]),
        (r#"{"pids":{"limit":20}}"#, &["pids.max=20"], &["pids.max=20"]),
        (r#"{"memory":{"limit":0,"swap":0,"reservation":0}}"#, &[], &[]),
        (r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":7}}"#,
            &["memory 100 150", "memory.soft_limit_in_bytes=50", "memory.swappiness=7"],
            &["memory.swap.max=50", "memory.max=100", "memory.low=50"]),
        (r#"{"memory":{"kernel":9,"kernelTCP":8}}"#, &["memory.kmem.tcp.limit_in_bytes=8?"], &[]),
        (r#"{"memory":{"limit":-1,"reservation":-1}}"#,
            &["memory -1 0", "memory.soft_limit_in_bytes=-1"],
            &["memory.swap.max=max?", "memory.max=max", "memory.low=max"]),
        (r#"{"memory":{"limit":9,"swap":9,"checkBeforeUpdate":true,"disableOOMKiller":true}}"#,
            &["memory 9 9", "memory.oom_control=1"],
            &["check 9 9", "memory.swap.max=0?", "memory.max=9"]),
        (r#"{"cpu":{"shares":1024,"idle":1}}"#,
            &["cpu.shares=1024", "cpu.idle=1"],
            &["cpu.idle=1"]),
        (r#"{"cpu":{"shares":1024,"idle":0}}"#,
            &["cpu.idle=0", "cpu.shares=1024"],
            &["cpu.idle=0", "cpu.weight=100"]),
        (r#"{"cpu":{"quota":5000}}"#, &["cpu.cfs_quota_us=5000"], &["cpu.max=5000 100000"]),
        (r#"{"cpu":{"period":1000}}"#, &["cpu.cfs_period_us=1000"], &["cpu.max=max 1000"]),
        (r#"{"cpu":{"quota":-1,"period":1000,"burst":0}}"#,
            &["cpu.cfs_period_us=1000 & cpu.cfs_burst_us=0? & cpu.cfs_quota_us=-1"],
            &["cpu.max.burst=0 & cpu.max=max 1000"]),
        (r#"{"cpu":{"burst":5}}"#, &["cpu.cfs_burst_us=5?"], &["cpu.max.burst=5"]),
        (r#"{"cpu":{"realtimeRuntime":5,"realtimePeriod":10}}"#,
            &["cpu.rt_period_us=10 & cpu.rt_runtime_us=5"], &[]),
        (r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
            &["cpuset.cpus=0-1|cpus=0-1", "cpuset.mems=0|mems=0"],
            &["cpuset.cpus=0-1", "cpuset.mems=0"]),
        (r#"{"blockIO":{"weight":750,"leafWeight":500,
                "weightDevice":[{"major":8,"minor":0,"weight":100,"leafWeight":200}],
                "throttleReadBpsDevice":[{"major":8,"minor":16,"rate":99}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":7},
                    {"major":8,"minor":0,"rate":0}]}}"#,
            &["blkio.weight=750|blkio.bfq.weight=750", "blkio.leaf_weight=500",
              "blkio.weight_device=8:0 100|blkio.bfq.weight_device=8:0 100",
              "blkio.leaf_weight_device=8:0 200",
              "blkio.throttle.read_bps_device=8:16 99", "blkio.throttle.write_iops_device=8:16 7",
              "blkio.throttle.write_iops_device=8:0 0"],
            &["io.bfq.weight=750|io.weight=7475", "io.bfq.weight=8:0 100?",
              "io.max=8:16 rbps=99", "io.max=8:16 wiops=7", "io.max=8:0 wiops=max"]),
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#,
            &["hugetlb.2MB.limit_in_bytes=9", "hugetlb.2MB.rsvd.limit_in_bytes=9?"],
            &["hugetlb.2MB.max=9", "hugetlb.2MB.rsvd.max=9?"]),
        (r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#,
            &["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"], &[]),
        (r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":4}}}"#,
            &["rdma.max=mlx5_1 hca_handle=3 hca_object=4"],
            &["rdma.max=mlx5_1 hca_handle=3 hca_object=4"]),
    ];
    for (resources, v1, v2) in cases {
        assert_eq!(&writes(Mode::V1, resources), v1, "v1 {resources}");
        assert_eq!(&writes(Mode::Hybrid, resources), v1, "hybrid {resources}");
        assert_eq!(&writes(Mode::V2, resources), v2, "v2 {resources}");
    }
}

#[test]
fn the_users_own_files_come_last_and_need_the_unified_hierarchy() {
    let text = r#"{"unified":{"memory.high":"5","cpu.weight":"7"},"pids":{"limit":1},
        "rdma":{"a":{"hcaHandles":1}}}"#;
    assert_eq!(
        writes(Mode::V2, text),
        ["pids.max=1", "rdma.max=a hca_handle=1", "cpu.weight=7", "memory.high=5"]
    );
    let error = |text: &str, mode| {
        let error = plan_update(&serde_json::from_str(text).unwrap(), mode).unwrap_err();
        format!("{error:#}").replace("linux.resources.unified: ", "")
    };
    assert_eq!(error(text, Mode::V1), "invalid configuration: cannot use unified on cgroup v1");
    assert_eq!(
        error(r#"{"unified":{"../x.y":"1"}}"#, Mode::V2),
        "unified resource \"../x.y\" must be a file name (no slashes)"
    );
    assert_eq!(
        error(r#"{"unified":{"xy":"1"}}"#, Mode::V2),
        "unified resource \"xy\" must be in the form CONTROLLER.PARAMETER"
    );
    for (rdma, told) in [
        (r#"{"mlx5_1":{}}"#, ".mlx5_1: neither hcaHandles nor hcaObjects is given"),
        (
            r#"{"a hca_handle=max":{"hcaObjects":1}}"#,
            ": \"a hca_handle=max\" is no name of a device",
        ),
        (r#"{"":{"hcaObjects":1}}"#, ": \"\" is no name of a device"),
    ] {
        let told = format!("linux.resources.rdma{told}");
        assert_eq!(error(&format!(r#"{{"rdma":{rdma}}}"#), Mode::V2), told);
    }
    assert_eq!(
        error(r#"{"memory":{"swappiness":101}}"#, Mode::V1),
        "linux.resources.memory.swappiness: invalid memory swappiness value: 101 (valid range is 0-100)"
    );
    assert_eq!(
        error(r#"{"memory":{"limit":9,"swap":8}}"#, Mode::V2),
        "linux.resources.memory.swap: memory+swap limit should be >= memory limit"
    );
}

#[test]
fn what_v2_lacks_is_told() {
    let text = r#"{"memory":{"swappiness":60,"disableOOMKiller":false},"network":{"classID":0},
        "cpu":{"realtimeRuntime":5,"realtimePeriod":0,"shares":2,"idle":1},
        "unified":{"cpu.idle":"1","cpu.weight":"8"}}"#;
    let resources: Resources = serde_json::from_str(text).unwrap();
    let warnings = plan_update(&resources, Mode::V2).unwrap().warnings;
    let fields: Vec<_> = warnings.iter().filter_map(|line| line.split(' ').next()).collect();
    let expected = ["cpu.realtimeRuntime", "memory.swappiness", "cpu.shares", "unified:"]
        .map(|field| format!("linux.resources.{field}"));
    assert_eq!(fields, expected);
    let plan = plan_update(&resources, Mode::V2).unwrap();
    let files = plan.steps.iter().filter_map(|step| match step {
        Step::Unified { file, .. } => Some(file.as_str()),
        _ => None,
    });
    assert_eq!(files.collect::<Vec<_>>(), ["cpu.idle"]);
    let v1 = r#"{"memory":{"swappiness":60},"cpu":{"shares":2,"idle":1}}"#;
    assert!(plan_update(&serde_json::from_str(v1).unwrap(), Mode::V1).unwrap().warnings.is_empty());
}

#[test]
fn each_write_knows_its_field() {
    let text = r#"{"memory":{"limit":1,"swap":1,"reservation":1},"pids":{"limit":1},
        "cpu":{"shares":2,"burst":1,"period":1,"cpus":"0"},"rdma":{"mlx5_1":{"hcaHandles":3}},
        "hugepageLimits":[{"pageSize":"2MB","limit":9}],
        "blockIO":{"weight":10,"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7}]}}"#;
    let plan = plan_update(&serde_json::from_str(text).unwrap(), Mode::V2).unwrap();
    let mut fields = Vec::new();
    for step in &plan.steps {
        match step {
            Step::Write(setting) => fields.push(setting.field.as_str()),
            Step::Together(settings) => fields.extend(settings.iter().map(|it| it.field.as_str())),
            _ => {}
        }
    }
    let expected = [
        "pids.limit",
        "memory.swap",
        "memory.limit",
        "memory.reservation",
        "blockIO.weight",
        "blockIO.throttleWriteIOPSDevice[0]",
        "cpu.shares",
        "cpu.burst",
        "cpu.period",
        "cpu.cpus",
        "hugepageLimits[0]",
        "hugepageLimits[0]",
        "rdma.mlx5_1",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn devices_are_restricted_even_without_resources() {
    for mode in [Mode::V1, Mode::V2] {
        let steps = plan(None, mode).unwrap().steps;
        assert!(matches!(&steps[..], [Step::Devices(devices)] if !devices.default_allow));
    }
    assert_eq!(plan(None, Mode::V2).unwrap().controllers().count(), 0);
}

#[test]
fn a_plan_knows_its_controllers_and_files() {
    let text = r#"{"pids":{"limit":1},"cpu":{"quota":1,"period":2,"cpus":"0"},
        "unified":{"memory.high":"1"}}"#;
    let plan = plan(Some(&serde_json::from_str(text).unwrap()), Mode::V2).unwrap();
    assert_eq!(plan.controllers().collect::<Vec<_>>(), ["pids", "cpu", "cpuset", "memory"]);
    assert!(plan.sets("cpuset.cpus") && !plan.sets("cpuset.mems"));
}
