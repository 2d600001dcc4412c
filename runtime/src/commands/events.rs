//! `events`: what a container uses, now and then, and word of each kill for want of memory.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::args::Events;
use crate::cgroup::Cgroup;
use crate::resctrl::Class;
use crate::state::{self, StateStore, Status};

mod document;

use document::Event;

pub(super) fn run(args: &Events, store: &StateStore) -> Result<u8> {
    let record = store.load(&args.id)?;
    let interval = duration(&args.interval)
        .with_context(|| format!("invalid value {:?} for flag -interval", args.interval))?;
    if interval.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    let stopped = || format!("container with id {} is not running", args.id);
    if state::status(store, &record)? == Status::Stopped {
        bail!(stopped());
    }
    let source = Source {
        id: &args.id,
        cgroup: &record.cgroup(),
        class: Class::of(&record, &store.load_spec(&args.id)?)?,
    };
    if args.stats {
        source.print()?;
        return Ok(0);
    }
    let mut oom = source.cgroup.watch_oom().context("watch for want of memory")?;
    let init = record.pidfd()?.with_context(stopped)?;
    let mut next = Instant::now() + interval;
    loop {
        let mut fds = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        fds.extend(oom.iter().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up: waking too early would only mean to wait again.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1))
            .context("the interval is too long")?;
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let ended = fds[0].any().unwrap_or(false);
        if let Some(oom) = &mut oom {
            for _ in 0..oom.take(source.cgroup)? {
                print(&Event { kind: "oom", id: &args.id, data: None })?;
            }
        }
        if ended {
            return Ok(0);
        }
        if Instant::now() >= next {
            source.print()?;
            next = Instant::now() + interval;
        }
    }
}

/// Where the figures come from.
struct Source<'a> {
    id: &'a str,
    cgroup: &'a Cgroup,
    class: Option<Class>,
}

impl Source<'_> {
    fn print(&self) -> Result<()> {
        let class = self.class.as_ref().map(Class::stats).transpose()?;
        let data = document::data(&self.cgroup.stats()?, class.as_ref())?;
        print(&Event { kind: "stats", id: self.id, data: Some(data) })
    }
}

fn print(event: &Event) -> Result<()> {
    let mut line = serde_json::to_vec(event).context("write an event")?;
    line.push(b'\n');
    std::io::stdout().write_all(&line).context("print an event")
}

/// As Go writes durations: `100ms`, `1.5s`, `1m30s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (unit, tail) = tail
            .split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let one = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * one;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelled_as_in_go() {
        let seconds = |text| duration(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("100ms"), Some(0.1));
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        for text in ["", "5", "-1s", "s", "1x", "1s2"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
