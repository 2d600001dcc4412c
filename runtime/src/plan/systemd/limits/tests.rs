use super::*;

const NEW: u32 = 253;

fn resources(text: &str) -> Resources {
    serde_json::from_str(text).unwrap()
}

/// Names and numbers, `max` for infinity; `mask` for masks.
fn shown(limits: &Limits) -> Vec<String> {
    let show = |property: &Property| match &property.value {
        Value::Uint64(u64::MAX) => format!("{}=max", property.name),
        Value::Uint64(number) => format!("{}={number}", property.name),
        Value::String(text) => format!("{}={text}", property.name),
        Value::Array(..) => format!("{}=mask", property.name),
        other => panic!("{other:?}"),
    };
    limits.properties.iter().map(show).collect()
}

fn planned(text: &str, mode: Mode, version: u32) -> Vec<String> {
    shown(&of_update(&resources(text), mode, version).unwrap())
}

#[test]
fn limits_become_properties() {
    let text = r#"{"memory":{"limit":100,"reservation":50,"swap":150},
        "cpu":{"shares":1024,"quota":4000,"period":10000,"cpus":"0","mems":"0"},
        "pids":{"limit":20},"blockIO":{"weight":1000}}"#;
    let v2 = [
        "MemoryMax=100",
        "MemoryLow=50",
        "MemorySwapMax=50",
        "CPUWeight=100",
        "CPUQuotaPeriodUSec=10000",
        "CPUQuotaPerSecUSec=400000",
        "TasksMax=20",
        "AllowedCPUs=mask",
        "AllowedMemoryNodes=mask",
        "IOWeight=10000",
    ];
    assert_eq!(planned(text, Mode::V2, NEW), v2);
    let v1 = [
        "MemoryLimit=100",
        "CPUShares=1024",
        "CPUQuotaPerSecUSec=400000",
        "TasksMax=20",
        "BlockIOWeight=1000",
    ];
    assert_eq!(planned(text, Mode::Hybrid, 239), v1);
}

#[test]
fn no_limit_is_infinity_and_absent_is_untouched() {
    let text = r#"{"memory":{"limit":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#;
    assert_eq!(
        planned(text, Mode::V2, NEW),
        ["MemoryMax=max", "MemorySwapMax=max", "CPUQuotaPerSecUSec=max", "TasksMax=max"]
    );
    let zeros = r#"{"memory":{"limit":0,"swap":0},"cpu":{"quota":0,"period":0,"shares":0}}"#;
    assert!(planned(zeros, Mode::V2, NEW).is_empty());
    assert_eq!(planned(r#"{"pids":{"limit":0}}"#, Mode::V2, NEW), ["TasksMax=1"]);
    assert_eq!(
        planned(r#"{"cpu":{"period":5000}}"#, Mode::V2, NEW),
        ["CPUQuotaPeriodUSec=5000", "CPUQuotaPerSecUSec=max"]
    );
}

#[test]
fn a_quota_is_rounded_up_to_whole_percents_in_both_places() {
    for (quota, period, per_second, written) in [
        (4000, 10_000, 400_000, 4000),
        (500_000, 1_000_000, 500_000, 500_000),
        (123, 1000, 130_000, 130),
        (1, 1_000_000, 10_000, 10_000),
        (i64::MAX, 1000, INFINITY, i64::MAX),
    ] {
        let cpu = Cpu { quota: Some(quota), period: Some(period), ..Cpu::default() };
        let resources = Resources { cpu: Some(cpu), ..Resources::default() };
        let limits = of_update(&resources, Mode::V2, NEW).unwrap();
        assert_eq!(limits.properties[1].value, Value::Uint64(per_second), "{quota} {period}");
        if quota != i64::MAX {
            assert_eq!(rounded(resources).cpu.unwrap().quota, Some(written), "{quota} {period}");
        }
    }
    let unlimited = resources(r#"{"cpu":{"quota":-1}}"#);
    assert_eq!(rounded(unlimited.clone()), unlimited);
}

#[test]
fn an_idle_container_has_no_weight_of_its_own() {
    let idle = resources(r#"{"cpu":{"idle":1,"shares":200}}"#);
    let limits = of_update(&idle, Mode::V2, NEW).unwrap();
    assert_eq!(shown(&limits), ["CPUWeight=0"]);
    assert!(limits.warnings[0].starts_with("unable to apply both CPUWeight and CpuIdle"));
    assert_eq!(planned(r#"{"cpu":{"idle":1}}"#, Mode::V2, NEW), ["CPUWeight=0"]);
    assert!(planned(r#"{"cpu":{"idle":1}}"#, Mode::V2, 251).is_empty());
    assert_eq!(planned(r#"{"cpu":{"idle":0}}"#, Mode::V2, NEW), ["CPUWeight=max"]);
    assert_eq!(planned(r#"{"cpu":{"idle":0,"shares":1024}}"#, Mode::V2, NEW), ["CPUWeight=100"]);
}

#[test]
fn files_that_systemd_knows_become_properties() {
    let text = r#"{"unified":{"memory.high":"1000","memory.max":"max","pids.max":"0",
        "cpu.max":"5000 10000","cpu.weight":" 42\n","cpuset.cpus":"0-1","io.max":"8:0 rbps=1",
        "memory.oom.group":"1"}}"#;
    let expected = [
        "CPUQuotaPeriodUSec=10000",
        "CPUQuotaPerSecUSec=500000",
        "CPUWeight=42",
        "AllowedCPUs=mask",
        "MemoryHigh=1000",
        "MemoryMax=max",
        "TasksMax=1",
    ];
    assert_eq!(planned(text, Mode::V2, NEW), expected);
    let start = at_start(&resources(text), Mode::V2, NEW).unwrap();
    assert!(start.properties.contains(&Property::new("OOMPolicy", Value::string("kill"))));
    let old = at_start(&resources(text), Mode::V2, 252).unwrap();
    assert!(old.properties.iter().all(|property| property.name != "OOMPolicy"));
    let idle = resources(r#"{"unified":{"cpu.idle":"1","cpu.weight":"5"}}"#);
    let limits = of_update(&idle, Mode::V2, NEW).unwrap();
    assert_eq!((shown(&limits), limits.warnings.len()), (vec!["CPUWeight=0".to_owned()], 1));
    assert_eq!(
        planned(r#"{"unified":{"cpu.max":"max"}}"#, Mode::V2, NEW),
        ["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=max"]
    );
}

#[test]
fn wrong_values_are_named() {
    for (text, part) in [
        (r#"{"unified":{"cpu.max":"a"}}"#, "unified resource \"cpu.max\" value conversion error"),
        (r#"{"unified":{"memory.high":"-1"}}"#, "\"memory.high\" value conversion error: \"-1\""),
        (r#"{"cpu":{"cpus":"3-1"}}"#, "resources.cpu.cpus"),
        (r#"{"memory":{"limit":10,"swap":5}}"#, "memory+swap limit should be >= memory limit"),
    ] {
        let error = format!("{:#}", of_update(&resources(text), Mode::V2, NEW).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}
