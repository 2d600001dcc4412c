//! `logs`: what a supervised container has written, and with `-f` what it writes.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify;

use super::events;
use super::supervised;
use crate::args::Logs;
use crate::clock;
use crate::records::{Records, Supervised};
use crate::state::StateStore;
use crate::supervise::log::Stream;
use crate::supervise::reader::{Reader, Row};

pub(super) fn run(args: &Logs, store: &StateStore, records: &Records) -> Result<u8> {
    let wish = Wish::new(args)?;
    let record = supervised::load(&args.id, records, store)?;
    // Before the first look, so that nothing is missed between the two.
    let changes = if args.follow { Some(watch(&record, records)?) } else { None };
    let mut reader = Reader::open(&record.log)?;
    let mut out = Out::new(&wish);
    let mut last: Vec<Row> = Vec::new();
    while let Some(row) = reader.next()? {
        if !wish.wants(&row) {
            continue;
        }
        match wish.tail {
            None => out.print(&row)?,
            Some(lines) => keep(&mut last, row, lines),
        }
    }
    last.iter().try_for_each(|row| out.print(row))?;
    out.flush()?;
    let Some(changes) = changes else { return Ok(0) };
    loop {
        // In this order: what is written before the end is then read after it.
        let ended = records.find(&record.id)?.is_none_or(|now| now.supervisor().is_none());
        reader.look_again()?;
        while let Some(row) = reader.next()? {
            if wish.until.is_some_and(|until| row.since_epoch > until) {
                return out.flush().map(|()| 0);
            }
            if wish.wants(&row) {
                out.print(&row)?;
            }
        }
        out.flush()?;
        if ended || out.broken {
            return Ok(0);
        }
        await_change(&changes)?;
    }
}

/// The last so many lines; the parts of one count once.
fn keep(last: &mut Vec<Row>, row: Row, lines: usize) {
    last.push(row);
    let whole = |row: &&Row| row.whole;
    while last.iter().filter(whole).count() > lines
        || (lines == 0 && !last.is_empty())
        || (last.iter().filter(whole).count() == lines && last.last().is_some_and(|row| !row.whole))
    {
        let first = last.iter().position(|row| row.whole).map_or(last.len(), |end| end + 1);
        last.drain(..first);
    }
}

/// Which rows are wanted.
struct Wish {
    tail: Option<usize>,
    since: Option<Duration>,
    until: Option<Duration>,
    stream: Option<Stream>,
    timestamps: bool,
}

impl Wish {
    fn new(args: &Logs) -> Result<Self> {
        Ok(Wish {
            tail: match args.tail.as_str() {
                "all" => None,
                text => Some(text.parse().map_err(|_| {
                    anyhow::anyhow!("invalid value {text:?} for --tail: a number, or `all`")
                })?),
            },
            since: args.since.as_deref().map(|text| moment("since", text)).transpose()?,
            until: args.until.as_deref().map(|text| moment("until", text)).transpose()?,
            stream: match args.stream.as_deref() {
                None | Some("all") => None,
                Some("stdout") => Some(Stream::Stdout),
                Some("stderr") => Some(Stream::Stderr),
                Some(other) => bail!("invalid value {other:?} for --stream: stdout or stderr"),
            },
            timestamps: args.timestamps,
        })
    }

    fn wants(&self, row: &Row) -> bool {
        self.stream.is_none_or(|stream| stream == row.stream)
            && self.since.is_none_or(|since| row.since_epoch >= since)
            && self.until.is_none_or(|until| row.since_epoch <= until)
    }
}

/// A time as RFC 3339 in UTC, seconds since 1970, or so long ago: `10m`.
fn moment(flag: &str, text: &str) -> Result<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = || clock::parse(&format!("{text}T00:00:00Z"));
    let seconds = || text.parse::<f64>().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
    let ago = || events::duration(text).map(|ago| now.saturating_sub(ago));
    clock::parse(text).or_else(date).or_else(seconds).or_else(ago).with_context(|| {
        format!("invalid value {text:?} for --{flag}: 2026-01-02T15:04:05Z, or 10m for so long ago")
    })
}

/// Where it goes: each stream to its own, as the container had it.
struct Out<'a> {
    wish: &'a Wish,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The row before was only part of its line.
    inside: [bool; 2],
    broken: bool,
}

impl<'a> Out<'a> {
    fn new(wish: &'a Wish) -> Self {
        Out { wish, stdout: Vec::new(), stderr: Vec::new(), inside: [false; 2], broken: false }
    }

    fn print(&mut self, row: &Row) -> Result<()> {
        let (to, other, inside) = match row.stream {
            Stream::Stdout => (&mut self.stdout, &self.stderr, &mut self.inside[0]),
            Stream::Stderr => (&mut self.stderr, &self.stdout, &mut self.inside[1]),
        };
        if self.wish.timestamps && !*inside {
            to.extend_from_slice(row.time.as_bytes());
            to.push(b' ');
        }
        to.extend_from_slice(&row.text);
        if row.whole {
            to.push(b'\n');
        }
        *inside = !row.whole;
        // On one terminal the lines of both are to stand as they were written.
        if to.len() > 64 * 1024 || !other.is_empty() {
            let (stdout, first) = (std::mem::take(&mut self.stdout), row.stream == Stream::Stderr);
            let stderr = std::mem::take(&mut self.stderr);
            return if first {
                self.write(&stdout, &stderr)
            } else {
                self.write_reversed(&stdout, &stderr)
            };
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        self.write(&stdout, &stderr)
    }

    fn write(&mut self, stdout: &[u8], stderr: &[u8]) -> Result<()> {
        self.put(std::io::stdout().write_all(stdout).and_then(|()| std::io::stdout().flush()))?;
        self.put(std::io::stderr().write_all(stderr))
    }

    fn write_reversed(&mut self, stdout: &[u8], stderr: &[u8]) -> Result<()> {
        self.put(std::io::stderr().write_all(stderr))?;
        self.put(std::io::stdout().write_all(stdout).and_then(|()| std::io::stdout().flush()))
    }

    /// A reader that has gone has seen enough.
    fn put(&mut self, result: std::io::Result<()>) -> Result<()> {
        match result {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.broken = true;
                Ok(())
            }
            other => other.context("print the log"),
        }
    }
}

/// Readable when the log or the record has changed.
fn watch(record: &Supervised, records: &Records) -> Result<OwnedFd> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC).context("inotify_init")?;
    let flags = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE_SELF;
    let directory = records.directory(&record.id)?;
    inotify::add_watch(&changes, &directory, flags)
        .with_context(|| format!("watch {}", directory.display()))?;
    if let Some(parent) = record.log.path.parent().filter(|parent| *parent != directory) {
        inotify::add_watch(&changes, parent, flags)
            .with_context(|| format!("watch {}", parent.display()))?;
    }
    Ok(changes)
}

/// The end of a supervisor that was killed changes no file: that is looked for now and then.
fn await_change(changes: &OwnedFd) -> Result<()> {
    const LOOK: Duration = Duration::from_secs(1);
    let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::NONE);
    match poll(&mut [PollFd::new(changes.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) | Err(Errno::EINTR) => Ok(()),
        Ok(_) => {
            let mut buffer = [0; 4096];
            nix::unistd::read(changes, &mut buffer).map(drop).context("read inotify")
        }
        Err(error) => Err(error).context("poll"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(marks: &str) -> Vec<Row> {
        let row = |(index, mark)| Row {
            time: String::new(),
            since_epoch: Duration::from_secs(index as u64),
            stream: Stream::Stdout,
            whole: mark == 'F',
            text: Vec::new(),
        };
        marks.chars().enumerate().map(row).collect()
    }

    #[test]
    fn the_last_lines_are_whole_ones_with_all_their_parts() {
        let kept = |marks: &str, lines| {
            let mut last = Vec::new();
            rows(marks).into_iter().for_each(|row| keep(&mut last, row, lines));
            last.iter().map(|row| row.since_epoch.as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(kept("FFFF", 2), [2, 3]);
        assert_eq!(kept("FPPFF", 2), [1, 2, 3, 4]);
        assert_eq!(kept("FFPP", 2), [1, 2, 3], "a line that is not yet at its end is one too");
        assert!(kept("FFP", 0).is_empty());
        assert_eq!(kept("FF", 9), [0, 1]);
    }

    #[test]
    fn moments_are_times_or_how_long_ago() {
        assert_eq!(moment("since", "1970-01-02T00:00:00Z").unwrap().as_secs(), 86_400);
        assert_eq!(moment("since", "1970-01-02").unwrap().as_secs(), 86_400);
        assert_eq!(moment("since", "12.5").unwrap(), Duration::from_millis(12_500));
        let ago = moment("since", "1h").unwrap();
        assert!(ago < SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        let error = moment("until", "soon").unwrap_err().to_string();
        assert!(error.contains("\"soon\" for --until"), "{error}");
    }
}
