//! `stats`: what running containers use, as a table that is painted anew each second, or once.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollTimeout, poll};
use serde_json::{Value, json};

use super::list::table;
use crate::args::Stats;
use crate::error::Sentinel;
use crate::records::{Records, names, short};
use crate::state::{self, Record, StateStore, Status};

/// Between two looks: what is used of the CPU is told of this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// One look at one container.
struct Sample {
    id: String,
    name: String,
    at: Instant,
    cpu_ns: u64,
    memory: u64,
    memory_limit: u64,
    received: u64,
    sent: u64,
    read: u64,
    written: u64,
    pids: u64,
}

pub(super) fn run(args: &Stats, store: &StateStore, records: &Records) -> Result<u8> {
    let json = match args.format.as_str() {
        "table" => false,
        "json" => true,
        other => bail!("invalid value {other:?} for --format: table or json"),
    };
    for id in &args.ids {
        if store.find(id)?.is_none() {
            return match records.find(id)? {
                Some(_) => bail!("container {} is not running", short(id)),
                None => Err(Sentinel::NotExist.into()),
            };
        }
    }
    let mut before = look(args, store, records)?;
    loop {
        // Nothing tells of the passing of time but its passing.
        let timeout = PollTimeout::try_from(INTERVAL).context("time between two looks")?;
        poll(&mut [], timeout).context("poll")?;
        let now = look(args, store, records)?;
        let text = if json { as_json(&before, &now) } else { as_table(&before, &now) };
        let live = !args.no_stream && !json && std::io::stdout().is_terminal();
        // Home, then clear what is below: the table stays where it is.
        let text = if live { format!("\x1b[H\x1b[2J{text}") } else { text };
        let mut stdout = std::io::stdout();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("print")?;
        if args.no_stream || (now.is_empty() && !args.ids.is_empty()) {
            return Ok(0);
        }
        before = now;
    }
}

fn look(args: &Stats, store: &StateStore, records: &Records) -> Result<Vec<Sample>> {
    let ids = if args.ids.is_empty() { store.ids()?.unwrap_or_default() } else { args.ids.clone() };
    let mut samples = Vec::new();
    for id in ids {
        // One that has ended meanwhile uses nothing.
        let Ok(Some(record)) = store.find(&id) else { continue };
        if state::status(store, &record)? == Status::Stopped {
            continue;
        }
        samples.extend(sample(&record, records)?);
    }
    Ok(samples)
}

fn sample(record: &Record, records: &Records) -> Result<Option<Sample>> {
    let stats = record.cgroup().stats()?;
    let Some(pid) = record.live_process()? else { return Ok(None) };
    let network = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let (received, sent) = traffic(&network);
    let memory = stats.memory.unwrap_or_default();
    // As docker has it: what the kernel can drop at once is not counted.
    let cached = ["total_inactive_file", "inactive_file"];
    let cached = cached.iter().find_map(|key| memory.table.get(*key)).copied().unwrap_or(0);
    let block = |wanted: &str| {
        let transfers = stats.block_io.bytes.iter();
        transfers.filter(|it| it.operation.eq_ignore_ascii_case(wanted)).map(|it| it.value).sum()
    };
    let kept = records.find(&record.id)?;
    Ok(Some(Sample {
        name: kept.map_or_else(|| names::of(record), |kept| kept.name),
        id: record.id.clone(),
        at: Instant::now(),
        cpu_ns: stats.cpu.map_or(0, |cpu| cpu.total_ns),
        memory: memory.memory.usage.saturating_sub(cached),
        memory_limit: memory.memory.limit.min(host_memory()),
        received,
        sent,
        read: block("read"),
        written: block("write"),
        pids: stats.pids.map_or(0, |pids| pids.current),
    }))
}

/// Bytes received and sent by all interfaces but the loopback, of /proc/PID/net/dev.
fn traffic(text: &str) -> (u64, u64) {
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    interfaces.filter(|(name, _)| name.trim() != "lo").fold(
        (0, 0),
        |(received, sent), (_, rest)| {
            let fields: Vec<u64> =
                rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
            let field = |index: usize| fields.get(index).copied().unwrap_or(0);
            (received + field(0), sent + field(8))
        },
    )
}

/// No limit is higher than what there is.
fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or(u64::MAX, |kilobytes| kilobytes * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "two digits of it are shown")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Of one CPU, since the look before.
fn cpu(before: &[Sample], now: &Sample) -> f64 {
    let Some(before) = before.iter().find(|it| it.id == now.id) else { return 0.0 };
    let elapsed = u64::try_from((now.at - before.at).as_nanos()).unwrap_or(u64::MAX);
    percent(now.cpu_ns.saturating_sub(before.cpu_ns), elapsed)
}

fn as_table(before: &[Sample], now: &[Sample]) -> String {
    let header = [
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ];
    let rows = now.iter().map(|one| {
        [
            short(&one.id).to_owned(),
            one.name.clone(),
            format!("{:.2}%", cpu(before, one)),
            format!("{} / {}", bytes(one.memory, 1024), bytes(one.memory_limit, 1024)),
            format!("{:.2}%", percent(one.memory, one.memory_limit)),
            format!("{} / {}", bytes(one.received, 1000), bytes(one.sent, 1000)),
            format!("{} / {}", bytes(one.read, 1000), bytes(one.written, 1000)),
            one.pids.to_string(),
        ]
    });
    table::columns(&std::iter::once(header.map(str::to_owned)).chain(rows).collect::<Vec<_>>(), 0)
}

/// One object a line.
fn as_json(before: &[Sample], now: &[Sample]) -> String {
    let objects = now.iter().map(|one| -> Value {
        json!({
            "id": one.id,
            "name": one.name,
            "cpu_percent": cpu(before, one),
            "memory_bytes": one.memory,
            "memory_limit_bytes": one.memory_limit,
            "received_bytes": one.received,
            "sent_bytes": one.sent,
            "read_bytes": one.read,
            "written_bytes": one.written,
            "pids": one.pids,
        })
    });
    objects.fold(String::new(), |text, object| text + &object.to_string() + "\n")
}

/// Four digits at most, in powers of 1000 or of 1024, as docker writes them.
#[expect(clippy::cast_precision_loss, reason = "four digits of it are shown")]
fn bytes(count: u64, base: u64) -> String {
    let units = if base == 1024 {
        ["B", "KiB", "MiB", "GiB", "TiB"]
    } else {
        ["B", "kB", "MB", "GB", "TB"]
    };
    let mut value = count as f64;
    let mut unit = 0;
    while value >= base as f64 && unit + 1 < units.len() {
        value /= base as f64;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits_at_most() {
        for (count, base, text) in [
            (0, 1000, "0B"),
            (999, 1000, "999B"),
            (1_500, 1000, "1.5kB"),
            (1_234_567, 1000, "1.235MB"),
            (123_456_789, 1000, "123.5MB"),
            (1_048_576, 1024, "1MiB"),
            (25_272_303_616, 1024, "23.54GiB"),
        ] {
            assert_eq!(bytes(count, base), text);
        }
    }

    #[test]
    fn the_loopback_is_no_traffic() {
        let text = "Inter-|   Receive | Transmit\n face |bytes packets\n    lo: 7 1 0 0 0 0 0 0 7 1\n  \
                    eth0:100 1 0 0 0 0 0 0 50 1\n  eth1: 1 1 0 0 0 0 0 0 2 1\n";
        assert_eq!(traffic(text), (101, 52));
    }
}
