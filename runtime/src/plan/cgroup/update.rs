//! What an update comes to: the values to write, which the kernel or the two cgroup versions want
//! together, and the limits in force afterwards.

use crate::spec::resources::{BlockIo, Cpu, Memory, Resources, ThrottleDevice, WeightDevice};

/// The values to write for `change` where `current` is in force.
pub(crate) fn complete(change: &Resources, current: &Resources) -> Resources {
    let mut write = change.clone();
    if let Some(memory) = &mut write.memory {
        complete_memory(memory, current.memory.as_ref());
    }
    if let (Some(cpu), Some(current)) = (&mut write.cpu, &current.cpu) {
        complete_cpu(cpu, current);
    }
    if is_idle(current) && weighs(change) && !speaks_of_idle(change) {
        end_idleness(&mut write, current);
    }
    // The rules for devices can't be changed, nor are they ours alone to write again.
    write.devices = Vec::new();
    write
}

/// The sum of memory and swap has no meaning without the limit of memory.
fn complete_memory(memory: &mut Memory, current: Option<&Memory>) {
    let wanted = memory.limit.is_some() || memory.swap.is_some();
    if memory.limit == Some(-1) && memory.swap.is_none() {
        // No limit at all: not even that of the sum.
        memory.swap = Some(0);
    }
    let Some(current) = current.filter(|_| wanted) else { return };
    memory.limit = memory.limit.or(current.limit);
    memory.swap = memory.swap.or(current.swap);
}

/// A quota is for a period, and v2 has one file for both. The kernel forgets the weight of a cgroup
/// that is made idle.
fn complete_cpu(cpu: &mut Cpu, current: &Cpu) {
    if cpu.idle == Some(0) && current.idle == Some(1) {
        cpu.shares = cpu.shares.or(current.shares);
    }
    let given = |period: Option<u64>| period.is_some_and(|period| period != 0);
    let quota = cpu.quota.filter(|quota| *quota != 0);
    match (given(cpu.period), quota.is_some()) {
        (true, false) => cpu.quota = current.quota,
        (false, true) => cpu.period = current.period,
        _ => {}
    }
}

fn is_idle(current: &Resources) -> bool {
    current.cpu.as_ref().is_some_and(|cpu| cpu.idle == Some(1)) || is_idle_by_file(current)
}

fn is_idle_by_file(resources: &Resources) -> bool {
    resources.unified.get("cpu.idle").is_some_and(|value| value.trim() == "1")
}

fn weighs(change: &Resources) -> bool {
    let shares = change.cpu.as_ref().and_then(|cpu| cpu.shares);
    shares.is_some_and(|shares| shares != 0) || change.unified.contains_key("cpu.weight")
}

fn speaks_of_idle(change: &Resources) -> bool {
    change.cpu.as_ref().is_some_and(|cpu| cpu.idle.is_some())
        || change.unified.contains_key("cpu.idle")
}

/// A weight is refused by an idle cgroup; systemd takes one for the end of idleness, and so do we.
fn end_idleness(write: &mut Resources, current: &Resources) {
    write.cpu.get_or_insert_default().idle = Some(0);
    if is_idle_by_file(current) {
        write.unified.insert("cpu.idle".to_owned(), "0".to_owned());
    }
}

/// `current` with the values of `write` in place of its own.
pub(crate) fn merge(mut current: Resources, write: Resources) -> Resources {
    if let Some(memory) = write.memory {
        let old = current.memory.take().unwrap_or_default();
        current.memory = Some(merge_memory(&old, &memory));
    }
    if let Some(cpu) = write.cpu {
        let old = current.cpu.take().unwrap_or_default();
        current.cpu = Some(old.changed_by(cpu));
    }
    if let Some(limit) = write.pids.and_then(|pids| pids.limit) {
        current.pids.get_or_insert_default().limit = Some(limit);
    }
    if let Some(block_io) = write.block_io {
        merge_block_io(current.block_io.get_or_insert_default(), block_io);
    }
    for limit in write.hugepage_limits {
        let known =
            current.hugepage_limits.iter_mut().find(|known| known.page_size == limit.page_size);
        match known {
            Some(known) => *known = limit,
            None => current.hugepage_limits.push(limit),
        }
    }
    current.network = write.network.or(current.network);
    current.rdma.extend(write.rdma);
    current.unified.extend(write.unified);
    current
}

fn merge_memory(old: &Memory, new: &Memory) -> Memory {
    Memory {
        limit: new.limit.or(old.limit),
        reservation: new.reservation.or(old.reservation),
        swap: new.swap.or(old.swap),
        kernel: new.kernel.or(old.kernel),
        kernel_tcp: new.kernel_tcp.or(old.kernel_tcp),
        swappiness: new.swappiness.or(old.swappiness),
        disable_oom_killer: new.disable_oom_killer.or(old.disable_oom_killer),
        use_hierarchy: new.use_hierarchy.or(old.use_hierarchy),
        check_before_update: new.check_before_update.or(old.check_before_update),
    }
}

fn merge_block_io(old: &mut BlockIo, new: BlockIo) {
    old.weight = new.weight.or(old.weight);
    old.leaf_weight = new.leaf_weight.or(old.leaf_weight);
    for device in new.weight_device {
        put_weight(&mut old.weight_device, device);
    }
    for (old, new) in [
        (&mut old.throttle_read_bps_device, new.throttle_read_bps_device),
        (&mut old.throttle_write_bps_device, new.throttle_write_bps_device),
        (&mut old.throttle_read_iops_device, new.throttle_read_iops_device),
        (&mut old.throttle_write_iops_device, new.throttle_write_iops_device),
    ] {
        for device in new {
            put_throttle(old, device);
        }
    }
}

/// Of several entries for one device the last is in force.
fn put_weight(devices: &mut Vec<WeightDevice>, new: WeightDevice) {
    let known =
        devices.iter_mut().rev().find(|old| (old.major, old.minor) == (new.major, new.minor));
    match known {
        Some(known) => {
            known.weight = new.weight.or(known.weight);
            known.leaf_weight = new.leaf_weight.or(known.leaf_weight);
        }
        None => devices.push(new),
    }
}

fn put_throttle(devices: &mut Vec<ThrottleDevice>, new: ThrottleDevice) {
    let known =
        devices.iter_mut().rev().find(|old| (old.major, old.minor) == (new.major, new.minor));
    match known {
        Some(known) => *known = new,
        None => devices.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Resources {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_belongs_together_is_written_together() {
        let current = r#"{"memory":{"limit":10,"swap":20,"reservation":5},
            "cpu":{"quota":7,"period":9,"shares":3,"idle":1}}"#;
        for (change, write) in [
            (r#"{"memory":{"limit":15}}"#, r#"{"memory":{"limit":15,"swap":20}}"#),
            (r#"{"memory":{"swap":30}}"#, r#"{"memory":{"limit":10,"swap":30}}"#),
            (r#"{"memory":{"limit":-1}}"#, r#"{"memory":{"limit":-1,"swap":0}}"#),
            (r#"{"memory":{"reservation":6}}"#, r#"{"memory":{"reservation":6}}"#),
            (r#"{"cpu":{"quota":8}}"#, r#"{"cpu":{"quota":8,"period":9}}"#),
            (r#"{"cpu":{"period":8}}"#, r#"{"cpu":{"quota":7,"period":8}}"#),
            (r#"{"cpu":{"cpus":"1"}}"#, r#"{"cpu":{"cpus":"1"}}"#),
            (r#"{"cpu":{"idle":0}}"#, r#"{"cpu":{"idle":0,"shares":3}}"#),
            (r#"{"cpu":{"idle":1}}"#, r#"{"cpu":{"idle":1}}"#),
            (r#"{"cpu":{"shares":4}}"#, r#"{"cpu":{"shares":4,"idle":0}}"#),
            (r#"{"cpu":{"shares":4,"idle":1}}"#, r#"{"cpu":{"shares":4,"idle":1}}"#),
            (
                r#"{"unified":{"cpu.weight":"8"}}"#,
                r#"{"cpu":{"idle":0},"unified":{"cpu.weight":"8"}}"#,
            ),
            (r#"{"devices":[{"allow":true}]}"#, "{}"),
        ] {
            assert_eq!(complete(&resources(change), &resources(current)), resources(write));
        }
    }

    #[test]
    fn a_weight_ends_what_a_file_made_idle() {
        let current = resources(r#"{"unified":{"cpu.idle":"1"}}"#);
        let write = complete(&resources(r#"{"cpu":{"shares":4}}"#), &current);
        let expected = r#"{"cpu":{"shares":4,"idle":0},"unified":{"cpu.idle":"0"}}"#;
        assert_eq!(write, resources(expected));
        let other = resources(r#"{"unified":{"cpu.max":"max"}}"#);
        assert_eq!(complete(&other, &current), other);
    }

    #[test]
    fn what_is_not_spoken_of_stays_in_force() {
        let current = resources(
            r#"{"devices":[{"allow":false}],"memory":{"limit":10,"reservation":5},
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},
            {"major":8,"minor":0,"rate":2}]}}"#,
        );
        let write = resources(
            r#"{"memory":{"limit":11},"pids":{"limit":3},"blockIO":{"throttleReadBpsDevice":
            [{"major":8,"minor":0,"rate":7},{"major":8,"minor":1,"rate":8}]}}"#,
        );
        let merged = resources(
            r#"{"devices":[{"allow":false}],"memory":{"limit":11,"reservation":5},
            "pids":{"limit":3},
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},
            {"major":8,"minor":0,"rate":7},{"major":8,"minor":1,"rate":8}]}}"#,
        );
        assert_eq!(merge(current, write), merged);
    }
}
