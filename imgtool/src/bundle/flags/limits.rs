//! Limits beyond memory, CPUs and processes: swap, which CPUs and when, resource limits, shared memory.

use anyhow::{Context, Result, bail, ensure};

use super::quantity;

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "limits")]
pub(crate) struct Words {
    /// Limit of memory and swap together, -1 for no limit of swap
    #[arg(long, value_name = "SIZE", requires = "memory", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// What memory is pushed back to when it gets scarce
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// How gladly memory is swapped, 0 to 100 (cgroup v1) [default: as around it]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Leave the container waiting where it would be killed for want of memory (cgroup v1)
    #[arg(long)]
    oom_kill_disable: bool,
    /// Period that --cpu-quota is for, in microseconds [default: 100000]
    #[arg(long, value_name = "US", conflicts_with = "cpus")]
    cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds, -1 for no limit
    #[arg(long, value_name = "US", conflicts_with = "cpus", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Period that --cpu-rt-runtime is for, in microseconds (cgroup v1)
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// CPU time in each period for real-time scheduling, in microseconds (cgroup v1)
    #[arg(long, value_name = "US")]
    cpu_rt_runtime: Option<i64>,
    /// The CPUs to run on, for example 0-2,4
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// The memory nodes to take memory from
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// Weight among those that want the CPU [default of the kernel: 1024]
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// A resource limit, for example nofile=1024:2048
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
}

/// Checked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory and swap together; -1 for no limit.
    pub(crate) swap_bytes: Option<i64>,
    pub(crate) reservation_bytes: Option<i64>,
    pub(crate) swappiness: Option<u64>,
    pub(crate) oom_kill_disable: bool,
    /// Period and quota in µs.
    pub(crate) cpu: CpuTime,
    /// The same of real-time scheduling.
    pub(crate) real_time: CpuTime,
    pub(crate) cpus: Option<String>,
    pub(crate) memory_nodes: Option<String>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) resources: Vec<ResourceLimit>,
    pub(crate) shm_bytes: Option<i64>,
}

/// How much of each period, both in µs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) period_us: Option<u64>,
    pub(crate) quota_us: Option<i64>,
}

/// One of setrlimit's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceLimit {
    /// `RLIMIT_NOFILE`.
    pub(crate) name: String,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

const RESOURCES: [&str; 15] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "sigpending",
    "stack",
];

impl Words {
    /// `memory_bytes` is the limit that swap comes on top of.
    pub(super) fn resolve(self, memory_bytes: Option<i64>) -> Result<Limits> {
        let swap_bytes = self.memory_swap.as_deref().map(swap).transpose()?;
        if let (Some(swap), Some(memory)) = (swap_bytes, memory_bytes) {
            ensure!(
                swap == -1 || swap >= memory,
                "--memory-swap is the limit of memory and swap together: it can't be below --memory"
            );
        }
        let set = |word: Option<String>, flag: &str| -> Result<Option<String>> {
            let Some(word) = word else { return Ok(None) };
            ensure!(is_cpu_list(&word), "{flag} {word:?}: want numbers and ranges, as in 0-2,4");
            Ok(Some(word))
        };
        let mut resources: Vec<ResourceLimit> = Vec::new();
        for word in &self.ulimit {
            let limit = ResourceLimit::parse(word).with_context(|| format!("--ulimit {word:?}"))?;
            resources.retain(|other| other.name != limit.name);
            resources.push(limit);
        }
        let size = |word: &str| quantity::size(word);
        let reservation_bytes = self.memory_reservation.as_deref().map(size).transpose()?;
        if let (Some(reservation), Some(memory)) = (reservation_bytes, memory_bytes) {
            ensure!(
                reservation <= memory,
                "--memory-reservation is what is left to the container: it can't be above --memory"
            );
        }
        Ok(Limits {
            swap_bytes,
            reservation_bytes,
            swappiness: self.memory_swappiness.map(swappiness).transpose()?.flatten(),
            oom_kill_disable: self.oom_kill_disable,
            cpu: cpu_time(self.cpu_period, self.cpu_quota)?,
            real_time: real_time(self.cpu_rt_period, self.cpu_rt_runtime)?,
            cpus: set(self.cpuset_cpus, "--cpuset-cpus")?,
            memory_nodes: set(self.cpuset_mems, "--cpuset-mems")?,
            cpu_shares: self.cpu_shares.filter(|&weight| weight != 0),
            resources,
            shm_bytes: self.shm_size.as_deref().map(size).transpose()?,
        })
    }
}

fn swap(word: &str) -> Result<i64> {
    if word == "-1" { Ok(-1) } else { quantity::size(word) }
}

/// -1 is docker's word for none.
fn swappiness(number: i64) -> Result<Option<u64>> {
    match u64::try_from(number) {
        Ok(percent @ ..=100) => Ok(Some(percent)),
        _ if number == -1 => Ok(None),
        _ => bail!("--memory-swappiness {number}: from 0 to 100, or -1"),
    }
}

/// As the kernel bounds them. Zero is docker's word for none.
fn cpu_time(period_us: Option<u64>, quota_us: Option<i64>) -> Result<CpuTime> {
    let time = CpuTime {
        period_us: period_us.filter(|&period| period != 0),
        quota_us: quota_us.filter(|&quota| quota != 0),
    };
    if let Some(period) = time.period_us {
        let bounds = 1_000..=1_000_000;
        ensure!(bounds.contains(&period), "--cpu-period {period}: from 1000 to 1000000");
    }
    if let Some(quota) = time.quota_us {
        ensure!(quota == -1 || quota >= 1_000, "--cpu-quota {quota}: at least 1000, or -1");
    }
    Ok(time)
}

fn real_time(period_us: Option<u64>, quota_us: Option<i64>) -> Result<CpuTime> {
    let time = CpuTime {
        period_us: period_us.filter(|&period| period != 0),
        quota_us: quota_us.filter(|&quota| quota != 0),
    };
    if let Some(runtime) = time.quota_us {
        ensure!(runtime > 0, "--cpu-rt-runtime {runtime}: it can't be negative");
        let period = time.period_us.unwrap_or(1_000_000);
        ensure!(
            runtime.unsigned_abs() <= period,
            "--cpu-rt-runtime {runtime} is above the period of {period} (--cpu-rt-period)"
        );
    }
    Ok(time)
}

fn is_cpu_list(word: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| !text.starts_with('+'));
    word.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => {
            number(first).zip(number(last)).is_some_and(|(first, last)| first <= last)
        }
        None => number(part).is_some(),
    })
}

impl ResourceLimit {
    fn parse(word: &str) -> Result<Self> {
        let (name, limits) = word.split_once('=').context("want TYPE=SOFT[:HARD]")?;
        if !RESOURCES.contains(&name) {
            bail!("unknown type {name:?}: there are {}", RESOURCES.join(", "));
        }
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (limit(soft)?, limit(hard)?);
        ensure!(soft <= hard, "the soft limit is above the hard one");
        Ok(Self { name: format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard })
    }
}

/// -1 is no limit.
fn limit(word: &str) -> Result<u64> {
    match word {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => word.parse().with_context(|| format!("{word:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_limits_have_a_type_and_two_numbers() {
        let limit = |word: &str| ResourceLimit::parse(word).map(|l| (l.name, l.soft, l.hard));
        assert_eq!(limit("nofile=1024:2048").unwrap(), ("RLIMIT_NOFILE".into(), 1024, 2048));
        assert_eq!(limit("core=-1").unwrap(), ("RLIMIT_CORE".into(), u64::MAX, u64::MAX));
        for bad in ["nofile", "nofile=", "nofile=2:1", "files=1", "nofile=1:2:3", "nofile=-2"] {
            assert!(ResourceLimit::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_cpus_are_numbers_and_ranges() {
        for good in ["0", "0-3", "0,2-4,7"] {
            assert!(is_cpu_list(good), "{good}");
        }
        for bad in ["", "a", "3-1", "0,", "-1", "0-", "+1", "0-1-2"] {
            assert!(!is_cpu_list(bad), "{bad}");
        }
    }

    #[test]
    fn cpu_time_has_the_kernels_bounds() {
        let time = |period_us, quota_us| CpuTime { period_us, quota_us };
        let both = (Some(50_000), Some(25_000));
        assert_eq!(cpu_time(both.0, both.1).unwrap(), time(both.0, both.1));
        assert_eq!(cpu_time(Some(0), Some(-1)).unwrap(), time(None, Some(-1)));
        for (period, quota) in [(Some(999), None), (Some(1_000_001), None), (None, Some(999))] {
            assert!(cpu_time(period, quota).is_err(), "{period:?} {quota:?}");
        }
        assert!(real_time(None, Some(950_000)).is_ok());
        assert!(real_time(Some(1_000), Some(1_001)).is_err());
        assert!(real_time(None, Some(-1)).is_err());
        assert_eq!(swappiness(-1).unwrap(), None);
        assert!(swappiness(101).is_err());
    }

    #[test]
    fn swap_is_memory_and_more() {
        let resolve = |swap: &str| {
            let words = Words { memory_swap: Some(swap.into()), ..Words::default() };
            words.resolve(Some(100 << 20)).map(|limits| limits.swap_bytes)
        };
        assert_eq!(resolve("200m").unwrap(), Some(200 << 20));
        assert_eq!(resolve("-1").unwrap(), Some(-1));
        assert!(resolve("50m").is_err());
        assert!(resolve("-2").is_err());
    }
}
