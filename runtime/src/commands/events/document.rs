//! The shape that runc gives to events: zeros are mostly left out.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cgroup::stats::{
    BlockIo, Cpu, Cpuset, HugePages, Memory, Pressure, Stall, Stats, Transfer, Usage,
};
use crate::resctrl;

/// One line of output; tools look at its beginning, so the order counts.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Value>,
}

/// The `data` of an event of type `stats`.
pub(super) fn data(stats: &Stats, class: Option<&resctrl::Stats>) -> Result<Value> {
    let hugetlb: Map<String, Value> =
        stats.hugetlb.iter().map(|(size, pages)| (size.clone(), huge_pages(pages))).collect();
    let pids = stats.pids.as_ref().map(|pids| {
        Fields::default().count("current", pids.current).count("limit", pids.limit).done()
    });
    let class = class.map(serde_json::to_value).transpose().context("write an event")?;
    Ok(json!({
        "cpu": stats.cpu.as_ref().map_or_else(empty, cpu),
        "cpuset": cpuset(stats.cpuset.as_ref()),
        "memory": stats.memory.as_ref().map_or_else(empty, memory),
        "pids": pids.unwrap_or_else(empty),
        "blkio": block_io(&stats.block_io),
        "hugetlb": hugetlb,
        "intel_rdt": class.unwrap_or_else(empty),
        "network_interfaces": null,
    }))
}

fn empty() -> Value {
    json!({})
}

/// An object that has no field for what is empty.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn count(self, key: &str, count: u64) -> Self {
        if count == 0 { self } else { self.value(key, count.into()) }
    }

    fn list(self, key: &str, list: Vec<Value>) -> Self {
        if list.is_empty() { self } else { self.value(key, list.into()) }
    }

    fn object(self, key: &str, object: Option<Value>) -> Self {
        match object {
            Some(object) => self.value(key, object),
            None => self,
        }
    }

    fn value(mut self, key: &str, value: Value) -> Self {
        self.0.insert(key.to_owned(), value);
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn cpu(cpu: &Cpu) -> Value {
    let numbers = |list: &[u64]| list.iter().map(|number| (*number).into()).collect();
    let usage = Fields::default()
        .count("total", cpu.total_ns)
        .list("percpu", numbers(&cpu.per_cpu_ns))
        .list("percpu_kernel", numbers(&cpu.per_cpu_kernel_ns))
        .list("percpu_user", numbers(&cpu.per_cpu_user_ns))
        .value("kernel", cpu.kernel_ns.into())
        .value("user", cpu.user_ns.into())
        .done();
    let throttling = Fields::default()
        .count("periods", cpu.periods)
        .count("throttledPeriods", cpu.throttled_periods)
        .count("throttledTime", cpu.throttled_ns);
    let throttling = (!throttling.0.is_empty()).then(|| throttling.done());
    Fields::default()
        .value("usage", usage)
        .object("throttling", throttling)
        .object("psi", cpu.pressure.as_ref().map(pressure))
        .done()
}

fn cpuset(cpuset: Option<&Cpuset>) -> Value {
    let Some(cpuset) = cpuset else { return empty() };
    let numbers = |list: &[u16]| list.iter().map(|number| (*number).into()).collect();
    let mut fields = Fields::default()
        .list("cpus", numbers(&cpuset.cpus))
        .list("mems", numbers(&cpuset.mems))
        .value("sched_relax_domain_level", cpuset.relax_domain_level.into());
    for (name, flag) in &cpuset.flags {
        fields = fields.value(name, (*flag).into());
    }
    fields.done()
}

fn memory(memory: &Memory) -> Value {
    let entry = |usage: &Usage| {
        (*usage != Usage::default()).then(|| {
            Fields::default()
                .value("limit", usage.limit.into())
                .count("usage", usage.usage)
                .count("max", usage.peak)
                .value("failcnt", usage.failures.into())
                .done()
        })
    };
    Fields::default()
        .count("cache", memory.cache)
        .object("usage", entry(&memory.memory))
        .object("swap", entry(&memory.memory_and_swap))
        .object("kernel", entry(&memory.kernel))
        .object("kernelTCP", entry(&memory.kernel_tcp))
        .value("raw", json!(memory.table))
        .object("psi", memory.pressure.as_ref().map(pressure))
        .done()
}

fn block_io(block_io: &BlockIo) -> Value {
    let list = |transfers: &[Transfer]| {
        let one = |transfer: &Transfer| {
            let operation = &transfer.operation;
            Fields::default()
                .count("major", transfer.major)
                .count("minor", transfer.minor)
                .object("op", (!operation.is_empty()).then(|| operation.as_str().into()))
                .count("value", transfer.value)
                .done()
        };
        transfers.iter().map(one).collect()
    };
    Fields::default()
        .list("ioServiceBytesRecursive", list(&block_io.bytes))
        .list("ioServicedRecursive", list(&block_io.operations))
        .list("ioQueueRecursive", list(&block_io.queued))
        .list("ioServiceTimeRecursive", list(&block_io.service_time))
        .list("ioWaitTimeRecursive", list(&block_io.wait_time))
        .list("ioMergedRecursive", list(&block_io.merged))
        .list("ioTimeRecursive", list(&block_io.time))
        .list("sectorsRecursive", list(&block_io.sectors))
        .object("psi", block_io.pressure.as_ref().map(pressure))
        .done()
}

fn huge_pages(pages: &HugePages) -> Value {
    Fields::default()
        .count("usage", pages.usage)
        .count("max", pages.peak)
        .value("failcnt", pages.failures.into())
        .done()
}

fn pressure(pressure: &Pressure) -> Value {
    let stall = |stall: &Stall| {
        let [avg10, avg60, avg300] = stall.averages;
        json!({"avg10": avg10, "avg60": avg60, "avg300": avg300, "total": stall.total_us})
    };
    json!({"some": stall(&pressure.some), "full": stall(&pressure.full)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_begins_as_tools_expect() {
        let event =
            Event { kind: "stats", id: "c", data: Some(data(&Stats::default(), None).unwrap()) };
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.starts_with(r#"{"type":"stats","id":"c","data":{"#), "{line}");
        let event = Event { kind: "oom", id: "c", data: None };
        assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"type":"oom","id":"c"}"#);
    }

    #[test]
    fn zeros_are_left_out_where_runc_leaves_them_out() {
        let usage = Usage { limit: 5, ..Usage::default() };
        let memory = Memory { memory: usage, ..Memory::default() };
        let stats = Stats { memory: Some(memory), ..Stats::default() };
        assert_eq!(
            data(&stats, None).unwrap()["memory"],
            json!({"usage": {"limit": 5, "failcnt": 0}, "raw": {}})
        );
    }
}
