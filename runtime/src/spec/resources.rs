//! `linux.resources` of config.json, as written: nothing is defaulted, so that "absent" stays
//! different from "0". Go's nulls (slices, maps, strings, pointers) read as absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::or_default;

/// All limits of a container (`update` reads the same shape).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Resources {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<DeviceRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Cpu>,
    /// The same in other letters; see [`Resources::in_the_specifications_letters`].
    #[serde(rename = "CPU", skip_serializing)]
    pub(crate) other_cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pids: Option<Pids>,
    #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
    pub(crate) block_io: Option<BlockIo>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Network>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) rdma: BTreeMap<String, Rdma>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) unified: BTreeMap<String, String>,
}

impl Resources {
    /// runc reads keys without regard to case: of two that mean one the second changes the first.
    /// Configurations made for it have `CPU`.
    pub(crate) fn in_the_specifications_letters(mut self) -> Self {
        if let Some(other) = self.other_cpu.take() {
            self.cpu = Some(self.cpu.take().unwrap_or_default().changed_by(other));
        }
        self
    }
}

/// One entry of the device allow or deny list; absent numbers are wildcards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DeviceRule {
    #[serde(deserialize_with = "or_default")]
    pub(crate) allow: bool,
    #[serde(
        rename = "type",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) major: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) minor: Option<i64>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) access: String,
}

/// Memory limits in bytes; -1 is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reservation: Option<i64>,
    /// Memory and swap together, as cgroup v1 counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swap: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<i64>,
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_tcp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub(crate) disable_oom_killer: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) use_hierarchy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check_before_update: Option<bool>,
}

/// CPU time (microseconds), weight and placement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) realtime_period: Option<u64>,
    #[serde(
        alias = "Cpus",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) cpus: String,
    #[serde(
        alias = "Mems",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) mems: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<i64>,
}

impl Cpu {
    /// The values of `new`, and for what it leaves out its own.
    pub(crate) fn changed_by(self, new: Cpu) -> Cpu {
        let old = self;
        let list = |new: String, old| if new.is_empty() { old } else { new };
        Cpu {
            shares: new.shares.or(old.shares),
            quota: new.quota.or(old.quota),
            burst: new.burst.or(old.burst),
            period: new.period.or(old.period),
            realtime_runtime: new.realtime_runtime.or(old.realtime_runtime),
            realtime_period: new.realtime_period.or(old.realtime_period),
            cpus: list(new.cpus, old.cpus),
            mems: list(new.mems, old.mems),
            idle: new.idle.or(old.idle),
        }
    }
}

/// How many tasks; negative is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pids {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
}

/// Weights and throttles of block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BlockIo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaf_weight: Option<u16>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) weight_device: Vec<WeightDevice>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(
        rename = "throttleReadIOPSDevice",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(
        rename = "throttleWriteIOPSDevice",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// The weight of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WeightDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaf_weight: Option<u16>,
}

/// The rate of one block device, bytes or operations per second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ThrottleDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) rate: u64,
}

/// The limit for one size of huge pages, such as `2MB`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HugepageLimit {
    /// runc reads keys without regard to case, and this one is found in other letters.
    #[serde(alias = "pagesize", deserialize_with = "or_default")]
    pub(crate) page_size: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) limit: u64,
}

/// Class and priorities of packets (cgroup v1 only).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
    pub(crate) class_id: Option<u32>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) priorities: Vec<InterfacePriority>,
}

/// The priority of packets that leave by one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct InterfacePriority {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    pub(crate) priority: u32,
}

/// Limits for one RDMA device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rdma {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hca_handles: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hca_objects: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_reads_as_absent_everywhere() {
        let text = r#"{"devices":null,"memory":null,"cpu":{"shares":null,"cpus":null},
            "pids":{"limit":null},"blockIO":{"weightDevice":null},"hugepageLimits":null,
            "network":{"classID":null,"priorities":null},"rdma":null,"unified":null}"#;
        let resources: Resources = serde_json::from_str(text).unwrap();
        let expected = Resources {
            cpu: Some(Cpu::default()),
            pids: Some(Pids::default()),
            block_io: Some(BlockIo::default()),
            network: Some(Network::default()),
            ..Resources::default()
        };
        assert_eq!(resources, expected);
    }

    #[test]
    fn zero_is_not_absent() {
        let text = r#"{"memory":{"limit":0,"swap":-1,"disableOOMKiller":false},"pids":{"limit":0},
            "cpu":{"idle":0,"burst":0}}"#;
        let resources: Resources = serde_json::from_str(text).unwrap();
        let memory = resources.memory.clone().unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(0), Some(-1)));
        assert_eq!(memory.disable_oom_killer, Some(false));
        assert_eq!(resources.pids.clone().unwrap().limit, Some(0));
        assert_eq!(resources.cpu.clone().unwrap().idle, Some(0));
        assert_eq!(resources.cpu.unwrap().burst, Some(0));
    }

    #[test]
    fn limits_of_the_processor_are_read_in_runcs_letters_too() {
        let text = r#"{"cpu":{"shares":100,"cpus":"1"},"CPU":{"Cpus":"0","Mems":"0"}}"#;
        let resources: Resources = serde_json::from_str(text).unwrap();
        let cpu = resources.in_the_specifications_letters().cpu.unwrap();
        assert_eq!((cpu.shares, cpu.cpus.as_str(), cpu.mems.as_str()), (Some(100), "0", "0"));
        let alone: Resources = serde_json::from_str(r#"{"CPU":{"quota":7}}"#).unwrap();
        let alone = alone.in_the_specifications_letters();
        assert_eq!(serde_json::to_string(&alone).unwrap(), r#"{"cpu":{"quota":7}}"#);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in [
            r#"{"cpu":{"shares":-1}}"#,
            r#"{"memory":{"limit":9223372036854775808}}"#,
            r#"{"blockIO":{"weight":65536}}"#,
            r#"{"network":{"classID":4294967296}}"#,
            r#"{"pids":{"limit":"10"}}"#,
        ] {
            assert!(serde_json::from_str::<Resources>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_written_back() {
        let text = concat!(
            r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}],"#,
            r#""memory":{"limit":1048576,"kernelTCP":1},"cpu":{"quota":-1,"realtimeRuntime":5},"#,
            r#""pids":{"limit":10},"blockIO":{"weight":10,"#,
            r#""throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":7}]},"#,
            r#""hugepageLimits":[{"pageSize":"2MB","limit":9}],"#,
            r#""network":{"classID":1,"priorities":[{"name":"eth0","priority":5}]},"#,
            r#""rdma":{"mlx5_1":{"hcaHandles":3}},"unified":{"memory.high":"1"}}"#
        );
        let resources: Resources = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&resources).unwrap(), text);
    }
}
