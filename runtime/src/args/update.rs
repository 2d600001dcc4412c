//! The limits that `update` sets, as given: what is not given stays as it is.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Update {
    /// take the limits, as in config.json's linux.resources, from this file or, if `-`, from
    /// stdin; the other limits on the line are then ignored
    #[arg(long, short, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u16>,
    /// period that the CPU quota is for, in microseconds
    #[arg(long, value_name = "N")]
    pub(crate) cpu_period: Option<String>,
    /// CPU time in a period, in microseconds
    #[arg(long, value_name = "N")]
    pub(crate) cpu_quota: Option<String>,
    /// CPU time that may be saved up for later periods, in microseconds
    #[arg(long, value_name = "N")]
    pub(crate) cpu_burst: Option<String>,
    /// share of the CPU, relative to other containers
    #[arg(long, value_name = "N")]
    pub(crate) cpu_share: Option<String>,
    /// period that the realtime CPU limit is for, in microseconds
    #[arg(long, value_name = "N")]
    pub(crate) cpu_rt_period: Option<String>,
    /// realtime CPU time in a period, in microseconds
    #[arg(long, value_name = "N")]
    pub(crate) cpu_rt_runtime: Option<String>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// 1: run only when nobody else wants the CPU; 0: as usual
    #[arg(long, value_name = "N")]
    pub(crate) cpu_idle: Option<String>,
    /// memory limit (suffixes k, m, g; -1: none)
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// memory that is left to the container as long as there is enough for all
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_reservation: Option<String>,
    /// limit of memory and swap together (-1: none)
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_swap: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) kernel_memory: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// how many processes there may be (-1: any number)
    #[arg(long, value_name = "N")]
    pub(crate) pids_limit: Option<i64>,
    /// L3 cache schema of Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) l3_cache_schema: Option<String>,
    /// memory bandwidth schema of Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) mem_bw_schema: Option<String>,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}
